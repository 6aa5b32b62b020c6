"""What an ONNX file takes: an input for every tensor of the call, every state of a step, and nothing frozen unsaid."""

from __future__ import annotations

import collections
import random
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree

import sparsernn as srn
from sparsernn.nn.ragged import RaggedState
from sparsernn.surgery.attachments import attachments
from sparsernn.surgery.onnx import export_onnx
from sparsernn.surgery.onnx.nest import nest

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


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


def session(path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs(path) -> list[str]:
    return [given.name for given in session(path).get_inputs()]


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
    assert inputs(tmp_path / "m.onnx") == names
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
        assert inputs(tmp_path / "m.onnx") == names


# Steps


class Step(nn.Module):
    def __init__(self, rnn: nn.Module, tupled: bool = False) -> None:
        super().__init__()
        self.rnn, self.fc, self.tupled = rnn, nn.Linear(16, 3), tupled

    def forward(self, x: Tensor, *states: Any):
        given = states[0] if self.tupled or len(states) == 1 else states
        if isinstance(self.rnn, nn.RNNCellBase):
            state = self.rnn(x, given)
            y = state if isinstance(state, Tensor) else state[0]
        else:
            y, state = self.rnn(x[None], given)
            y = y[0]
        return (self.fc(y), state) if self.tupled or not isinstance(state, tuple) else (self.fc(y), *state)


def flat(value: Any) -> list[Tensor]:
    return [leaf.value for leaf in nest("", value).tensors()]


def check_steps(path, model: nn.Module, x: Tensor, states: tuple, steps: int = 5) -> None:
    """The file, fed with the states that it gives, computes what the model does, fed with its own."""
    run = session(path)
    names = [given.name for given in run.get_inputs()]
    kept = [torch.zeros([d if isinstance(d, int) else len(x) for d in given.shape]) for given in run.get_inputs()[1:]]
    with torch.no_grad():
        for _ in range(steps):
            x = torch.randn_like(x)
            y, *states = model(x, *states)
            got = run.run(None, dict(zip(names, (value.numpy() for value in (x, *kept)), strict=True)))
            want = [y, *flat(states)]
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=1e-5)
            kept = [torch.from_numpy(value) for value in got[1:]]


STEPS = {
    "LSTM": (lambda: Step(nn.LSTM(4, 16, 2)), ((2, 16), (2, 16))),
    "GRU": (lambda: Step(nn.GRU(4, 16, 2)), ((2, 16),)),
    "one layer": (lambda: Step(nn.LSTM(4, 16)), ((1, 16), (1, 16))),
    "tuple": (lambda: Step(nn.LSTM(4, 16, 2), tupled=True), (((2, 16), (2, 16)),)),
    "LSTMCell": (lambda: Step(nn.LSTMCell(4, 16)), ((16,), (16,))),
}


def zeros(shape: Any, batch: int = 1) -> Any:
    if isinstance(shape[0], tuple):
        return tuple(zeros(one, batch) for one in shape)
    return torch.zeros(*shape[:-1], batch, shape[-1])


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_a_file_is_called_step_by_step_with_the_states_it_gives(name, compacted, tmp_path):
    """Plain, and compacted with carried states from the old example: widths are those of the layers that are left."""
    torch.manual_seed(0)
    make, shapes = STEPS[name]
    model = make().eval()
    states = tuple(map(zeros, shapes))
    example = (torch.randn(1, 4), *states)
    if compacted:
        srn.Prune(model, example, 0.5, level="unit", carried_states=True, scope="model").finish()
        model = srn.compact(model, example, carried_states=True)
    export_onnx(model, tmp_path / "m.onnx", example)
    for batch in (1, 3):
        check_steps(tmp_path / "m.onnx", model, torch.randn(batch, 4), tuple(zeros(s, batch) for s in shapes))


def test_rows_of_a_ragged_state_are_one_input_each(tmp_path):
    torch.manual_seed(0)
    model = Step(srn.nn.RaggedLSTM(4, [7, 16])).eval()
    state = RaggedState([torch.zeros(1, 7), torch.zeros(1, 16)])
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(1, 4), state, state))
    assert inputs(tmp_path / "m.onnx") == ["x", "states_0_0", "states_0_1", "states_1_0", "states_1_1"]
    check_steps(tmp_path / "m.onnx", model, torch.randn(1, 4), (state, state))


class OwnState(nn.Module):
    """Keeps its state from call to call: `where` says how."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.rnn, self.where, self.calls = nn.GRU(3, 4), where, 0
        self.register_buffer("hidden", torch.zeros(1, 1, 4))
        self.frozen = nn.Parameter(torch.zeros(1, 1, 4), requires_grad=False)
        self.kept: Any = None
        self.nested: dict[str, list[Any]] = {"states": []}

    def forward(self, x: Tensor, memory: Any = None) -> Tensor:
        if self.where == "buffer in place":
            y, h = self.rnn(x, self.hidden)
            self.hidden[:] = h
        elif self.where == "attribute":
            y, self.kept = self.rnn(x, self.kept)
        elif self.where == "list":
            y, h = self.rnn(x, self.nested["states"][-1] if self.nested["states"] else None)
            self.nested["states"].append(h)
        elif self.where == "parameter":
            y, h = self.rnn(x, self.frozen)
            self.frozen.data.copy_(h)
        elif self.where == "number":
            self.calls += 1
            y = self.rnn(x)[0] * self.calls
        else:  # an argument that can hold tensors
            y, memory["h"] = self.rnn(x, memory.get("h"))
        return y


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("buffer in place", "hidden"),
        ("attribute", "kept"),
        ("list", "nested"),
        ("number", "calls"),
        ("parameter", "frozen"),
    ],
)
def test_a_state_that_the_model_keeps_is_refused_by_name(where, names, tmp_path):
    torch.manual_seed(0)
    model = OwnState(where).eval()
    with pytest.raises(
        ValueError, match=rf"{names} changes in forward.*\n.*argument of forward and return it"
    ) as caught:
        export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 1, 3))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())
    assert model.kept is None and model.calls == 0 and not model.hidden.any()


def test_a_state_put_into_an_argument_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="puts tensors into its argument memory"):
        export_onnx(OwnState("argument"), tmp_path / "m.onnx", {"x": torch.randn(5, 1, 3), "memory": {}})


class Remembers(nn.Module):
    """What is kept for the user to look at, and never read again, does no harm."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.seen, self.count = nn.GRU(3, 4), [], 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.rnn(x)[0]
        self.seen.append(self.last)
        self.count += 1
        return self.last.tanh()


def test_what_a_model_only_stores_is_no_state(tmp_path):
    model = Remembers()
    model(torch.randn(5, 1, 3)).sum().backward()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 1, 3))
    assert inputs(tmp_path / "m.onnx") == ["x"] and model.count == 1


class Noisy(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.rnn, self.draw = nn.GRU(3, 4), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] * self.draw(x)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda x: torch.randn(4), "random numbers .randn at test_onnx_inputs.py"),
        (lambda x: nn.functional.dropout(x.new_ones(4), 0.5), "random numbers"),
        (lambda x: torch.bernoulli(x.new_full((4,), 0.5)) + 1, "random numbers .bernoulli"),
        (lambda x: torch.manual_seed(1) and torch.randn(4), "randn at test_onnx_inputs.py"),
        (lambda x: random.random(), "other outputs each time"),
    ],
)
def test_random_numbers_in_eval_mode_are_refused(draw, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_onnx(Noisy(draw), tmp_path / "m.onnx", torch.randn(5, 2, 3))


class InPlace(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.mul_(2.0))[0]


def test_an_input_that_is_changed_in_place_is_named_and_stays_as_it_is(tmp_path):
    torch.manual_seed(0)
    model, x = InPlace(lambda x: 1.0).eval(), torch.randn(5, 2, 3)
    with pytest.warns(UserWarning, match="changes x in place"):
        export_onnx(model, tmp_path / "m.onnx", x)
    got = session(tmp_path / "m.onnx").run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), model(x.clone()), rtol=0, atol=1e-5)


# Numbers that Python reads


class Reads(nn.Module):
    def __init__(self, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.rnn, self.read = nn.GRU(3, 4, batch_first=True), read

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.read(self.rnn(x)[0], lengths)


def branch(y: Tensor, lengths: Tensor) -> Tensor:
    return y * 2 if bool((y.abs() > 2).any()) else y


def item(y: Tensor, lengths: Tensor) -> Tensor:
    return y * (1.0 if lengths.max().item() > 3 else 2.0)


def listed(y: Tensor, lengths: Tensor) -> Tensor:
    return y * y.new_tensor([float(n) for n in lengths.tolist()]).mean()


def array(y: Tensor, lengths: Tensor) -> Tensor:
    return y + float(lengths.numpy().sum())


def equal(y: Tensor, lengths: Tensor) -> Tensor:
    return y + 1 if torch.equal(lengths, lengths.flip(0)) else y


@pytest.mark.parametrize("read", [branch, item, listed, array, equal])
def test_numbers_that_python_reads_out_of_inputs_are_refused_with_their_line(read, tmp_path):
    torch.manual_seed(0)
    line = read.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match=rf"test_onnx_inputs.py:{line}") as caught:
        export_onnx(Reads(read), tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())


def masked(y: Tensor, lengths: Tensor) -> Tensor:
    return y * float(lengths.numpy()[-1])


def test_an_example_of_equal_numbers_hides_no_constant(tmp_path):
    """A mask of ones, words that are all the first: the example's own numbers mixed would be the same."""
    for values in (torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="depend on lengths"):
            export_onnx(Reads(masked), tmp_path / "m.onnx", (torch.randn(2, 5, 3), values))


def checks(y: Tensor, lengths: Tensor) -> Tensor:
    assert bool((lengths > 0).all()), "empty"
    if bool((lengths > 1000).any()):
        raise ValueError("long")
    return y


def shortcut(y: Tensor, lengths: Tensor) -> Tensor:
    gone = torch.arange(y.shape[1])[None] >= lengths[:, None]
    return y.masked_fill(gone[..., None], 0.0) if bool(gone.any()) else y


@pytest.mark.parametrize("read", [checks, shortcut])
def test_assertions_and_shortcuts_do_no_harm(read, tmp_path):
    torch.manual_seed(0)
    export_onnx(Reads(read), tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))


# Packed sequences


class Padded(nn.Module):
    def __init__(self, change: bool, total: bool) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.change, self.total = change, total

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
        if self.change:
            packed = PackedSequence(self.fc(packed.data) + 1.0, *packed[1:])
        total = x.shape[1] if self.total else None
        return pad_packed_sequence(packed, batch_first=True, padding_value=-7.0, total_length=total)


@pytest.mark.parametrize(("change", "total"), [(False, False), (True, False), (False, True)])
def test_padding_has_its_value_and_its_length(change, total, tmp_path):
    """Also behind what was computed on packed data, and up to `total_length`."""
    torch.manual_seed(0)
    model = Padded(change, total).eval()
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))
    x, lengths = torch.randn(3, 9, 3), torch.tensor([2, 6, 1])
    got = session(tmp_path / "m.onnx").run(None, {"x": x.numpy(), "lengths": lengths.numpy()})
    with torch.no_grad():
        for a, b in zip(got, model(x, lengths), strict=True):
            torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=1e-5)


class Tagged(nn.Module):
    """Reads the final states by a view, which leaves adapters on the compacted layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 10), nn.LSTM(10, 16, batch_first=True, bidirectional=True)
        self.fc, self.fh = nn.Linear(32, 3), nn.Linear(32, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True)
        y, (h, _) = self.rnn(packed)
        y = pad_packed_sequence(y, batch_first=True)[0]
        return self.fc(y), self.fh(h.transpose(0, 1).contiguous().view(tokens.shape[0], -1))


def test_a_compacted_packed_layer_in_adapter_form_is_exported(tmp_path):
    torch.manual_seed(0)
    model, example = Tagged().eval(), (torch.randint(20, (2, 6)), torch.tensor([6, 4]))
    srn.Prune(model, example, 0.5, level="unit", score=srn.Magnitude(), scope="model").finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = srn.compact(model, example)
    assert "DenseWidths" in {type(one).__name__ for one in attachments(small.rnn)}
    export_onnx(small, tmp_path / "m.onnx", example)
