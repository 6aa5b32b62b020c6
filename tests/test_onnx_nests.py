"""Every tensor of a call, in whatever containers and arguments it comes, is an input of the ONNX file by name."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from onnx_models import inputs_of, session
from sparsernn.surgery.onnx import export_onnx
from sparsernn.surgery.onnx.nest import nest


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Batch:
    x: Tensor
    scale: Tensor
    name: str = "batch"


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor
    scale: Tensor


class Attributes:
    def __init__(self, a: Any, b: Any) -> None:
        self.a, self._b, self.note = a, b, "kept"


class TensorDict(collections.abc.MutableMapping):
    """A mapping that keeps its tensors in an attribute and has a batch size, as tensor dictionaries do."""

    def __init__(self, items: dict[str, Any], batch_size: int) -> None:
        self._items, self.batch_size = dict(items), batch_size

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __iter__(self) -> Any:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class OwnDict(dict):
    pass


class OwnOrdered(collections.OrderedDict):
    pass


class OwnList(list):
    pass


class OwnTuple(tuple):
    pass


KNOWN_TO_PYTREE: dict[type, Callable[[Any, Any], Any]] = {
    tuple: lambda a, b: (a, b),
    list: lambda a, b: [a, b],
    dict: lambda a, b: {"a": a, 3: b},
    collections.OrderedDict: lambda a, b: collections.OrderedDict(z=a, a=b),
    collections.defaultdict: lambda a, b: collections.defaultdict(list, {"a": a, "b": b}),
    collections.deque: lambda a, b: collections.deque([a, b], maxlen=2),
    collections.namedtuple: Pair,  # pyright: ignore[reportAssignmentType]
}
CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    **{kind.__name__: make for kind, make in KNOWN_TO_PYTREE.items()},
    "dataclass": Batch,
    "frozen dataclass with slots": Frozen,
    "object": Attributes,
    "namespace": lambda a, b: types.SimpleNamespace(a=a, b=b),
    "UserDict": lambda a, b: collections.UserDict(a=a, b=b),
    "UserList": lambda a, b: collections.UserList([a, b]),
    "TensorDict": lambda a, b: TensorDict({"a": a, "b": b}, 2),
    "dict of one's own": lambda a, b: OwnDict(a=a, b=b),
    "ordered dict of one's own": lambda a, b: OwnOrdered(a=a, b=b),
    "list of one's own": lambda a, b: OwnList([a, b]),
    "tuple of one's own": lambda a, b: OwnTuple([a, b]),
}


def test_every_container_that_torch_knows_is_among_those_tried():
    known = {kind for kind in _pytree.SUPPORTED_NODES if kind.__module__ in ("builtins", "collections", "typing")}
    assert known - set(KNOWN_TO_PYTREE) <= {slice, frozenset, set, type(None)}


@pytest.mark.parametrize("inner", [*CONTAINERS, "tensor"])
@pytest.mark.parametrize("outer", CONTAINERS)
def test_a_nest_is_put_together_again_from_other_tensors(outer, inner):
    """Any container of tensors or of containers: same types, the given tensors in their places, the original kept."""
    leaves = [torch.full((2,), float(n)) for n in range(4)]
    make = CONTAINERS.get(inner)
    inside = [make(*leaves[:2]), make(*leaves[2:])] if make else leaves[:2]
    value = CONTAINERS[outer](*inside)
    found = nest("v", value)
    before = [leaf.value for leaf in found.tensors()]
    assert before == (leaves if make else leaves[:2])  # the very tensors, in order
    names = [leaf.name for leaf in found.tensors()]
    assert len(set(names)) == len(names) and all(name.startswith("v_") for name in names)
    others = [-leaf for leaf in before]
    again = found.filled(iter(others))
    assert type(again) is type(value) and again is not value
    assert [leaf.value for leaf in nest("v", again).tensors()] == others
    assert [leaf.value for leaf in nest("v", value).tensors()] == before


class Scaled(nn.Module):
    """A tagger whose two tensors come in any container."""

    def __init__(self, take: Callable[[Any], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.take = take
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, batch: Any) -> Tensor:
        x, scale = self.take(batch)
        return self.rnn(x)[0] * scale[:, None, None]


def items(value: Any) -> tuple[Tensor, Tensor]:
    return tuple(leaf.value for leaf in nest("v", value).tensors())  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Batch, ["batch_x", "batch_scale"]),
        (Pair, ["batch_first", "batch_second"]),
        (lambda a, b: {"deep": [(a,), {"er": b}]}, ["batch_deep_0_0", "batch_deep_1_er"]),
        (lambda a, b: TensorDict({"obs": a, "gain": b}, 2), ["batch_obs", "batch_gain"]),
    ],
)
def test_tensors_in_containers_are_inputs_with_clear_names(make, names, tmp_path):
    torch.manual_seed(0)
    model = Scaled(items).eval()
    export_onnx(model, tmp_path / "m.onnx", (make(torch.randn(2, 5, 3), torch.rand(2)),))
    assert inputs_of(tmp_path / "m.onnx") == names
    x, scale = torch.randn(3, 9, 3), torch.rand(3)
    got = session(tmp_path / "m.onnx").run(None, dict(zip(names, (x.numpy(), scale.numpy()))))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got[0]), model(make(x, scale)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "hide",
    [
        lambda x: {x},
        lambda x: iter([x]),
        lambda x: lambda: x,
        lambda x: x.numpy(),
        lambda x: Attributes(x.numpy(), 1),
        lambda x: types.MappingProxyType({"x": x}),
    ],
)
def test_an_argument_that_hides_its_tensors_is_refused_by_name(hide, tmp_path):
    with pytest.raises(ValueError, match=r"batch.* would become a constant"):
        export_onnx(Scaled(items), tmp_path / "m.onnx", (hide(torch.randn(2, 5, 3)),))


class Arguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, output: Any = None, *more: Tensor, gain: Any = None, flag: bool = False, **rest: Any):
        y = self.rnn(x if output is None else x + output)[0]
        for value in (*more, *([] if gain is None else [gain]), *rest.values()):
            y = y * value.mean(-1, keepdim=True).mean(1, keepdim=True)
        return -y if flag else y


def test_arguments_of_all_kinds_have_names_of_their_own(tmp_path):
    """Positional, the same tensor twice, None, starred, keyword-only, further keywords; a name that outputs have."""
    torch.manual_seed(0)
    x, model = torch.rand(2, 5, 3), Arguments().eval()
    for example, names in (
        ((x, x), ["x", "output"]),
        ((x, None, x + 1), ["x", "more"]),
        ((x, x, x + 1, x + 2), ["x", "output", "more_0", "more_1"]),
        ({"gain": x + 1, "x": x, "output": None, "flag": True, "other": x + 2}, ["x", "gain", "other"]),
    ):
        export_onnx(model, tmp_path / "m.onnx", example)
        assert inputs_of(tmp_path / "m.onnx") == names
