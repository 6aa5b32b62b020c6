"""A model that keeps no weights beside the packed ones: its bytes, and that nobody misses them."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.runtime.modules import Accelerated
from sparsernn.structure.held_weights import HeldWeight, held_in

pytestmark = pytest.mark.filterwarnings("ignore:.*AVX-512")
PRECISIONS = ["float32", "bfloat16", "int8", {"lstm.l0": "int8", "*": "float32"}]


class Tagger(nn.Module):
    def __init__(self, size: int = 256, proj: int = 0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, 2, proj_size=proj)
        self.head = nn.Linear(proj or size, size + 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def pruned(model: Any, how: str) -> Any:
    """In place; "blocks": four fifths of the blocks of 16 rows gone, "single": of the weights."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=source) / 16)
            if p.dim() == 2 and how != "dense":
                rows = len(p) if how == "single" else -(-len(p) // 16)
                there = torch.rand(rows, p.shape[1], generator=source) < 0.2
                p.mul_(there if how == "single" else there.repeat_interleave(16, 0)[: len(p)])
    return model.eval()


def without(model: Any, precision: Any, _: Path) -> Any:
    return srn.accelerate(model, precision, keep_weights=False)


def loaded(model: Any, precision: Any, folder: Path) -> Any:
    srn.save(srn.accelerate(model, precision), folder / "m")
    with torch.device("meta"):
        empty = copy.deepcopy(model).to("meta")
    return srn.load(empty, folder / "m")


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """What other tests have left is not looked through."""
    gc.freeze()
    yield
    gc.unfreeze()


def alive() -> dict[int, int]:
    """Address and bytes of the memory of every tensor that there is."""
    gc.collect()
    found = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and not t.is_meta]
    return dict(map(memory, found))


def memory(tensor: Tensor) -> tuple[int, int]:
    try:
        return tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):  # sparse ones, and those of transforms, that other tests have left
        return 0, 0


def packed_bytes(model: Any, rows: int, steps: int) -> int:
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear) and isinstance(module, Accelerated):
            total += module._engine.product(module, rows * steps)[0].bytes
        elif isinstance(module, Accelerated):
            layers: Any = module._engine.layers(module, rows, steps)
            total += sum(p.bytes for row in layers for layer in row for p in layer.products)
    return total


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("make", [without, loaded])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("how", ["dense", "single", "blocks"])
def test_a_model_holds_no_more_than_a_tenth_above_its_packed_bytes(
    how: str, precision: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    model, x = pruned(Tagger(512), how), torch.randn(2, 1, 512)
    before = alive()
    fast = make(model, precision, tmp_path)
    y = fast(x)
    now = alive()
    held = sum(size for place, size in now.items() if place not in before)
    assert held <= 1.1 * packed_bytes(fast, 1, 2), held / packed_bytes(fast, 1, 2)
    before = now
    stream = fast.stream()
    assert torch.allclose(stream.step(x[0]), y[0], atol=1e-2 if precision != "float32" else 1e-5)
    more = sum(size for place, size in alive().items() if place not in before)
    # A step may read other layouts than a sequence; what both read is there once.
    assert how != "dense" or more <= 0.1 * packed_bytes(fast, 1, 1)


@pytest.mark.parametrize("proj", [0, 24])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("how", ["dense", "single", "blocks"])
def test_nobody_misses_the_weights(how: str, precision: Any, proj: int, tmp_path: Path) -> None:
    model = pruned(Tagger(40, proj), how)
    fast, small = srn.accelerate(model, precision), without(model, precision, tmp_path)
    x = torch.randn(6, 17, 40)
    first = small.state_dict()
    saved = loaded(model, precision, tmp_path).state_dict()
    assert all(torch.equal(first[name], value) for name, value in saved.items())
    if precision == "float32":
        assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())
    for rows in (1, 17, 2, 1):  # in layouts of their own
        assert torch.equal(small(x[:, :rows]), fast(x[:, :rows]))
        assert all(torch.equal(first[name], value) for name, value in small.state_dict().items())
    assert small.explain(3, 6) == fast.explain(3, 6)
    assert all(torch.equal(p, first[name]) and p.device.type == "cpu" for name, p in small.named_parameters())
    with torch.no_grad():
        for one in (small, fast):
            one.lstm.bias_ih_l0.add_(1)  # biases are plain: everything is packed anew from what was packed
    assert torch.equal(small(x), fast(x))
    assert all(torch.equal(first[name], small.state_dict()[name]) for name in first if name != "lstm.bias_ih_l0")
    copies = [copy.deepcopy(small), pickle.loads(pickle.dumps(small))]
    want = small(x)
    for twin in copies:
        assert torch.equal(twin(x), want) and isinstance(twin.lstm.weight_hh_l0, HeldWeight)
    del small
    assert torch.equal(copies[0](x[:, :1]), fast(x[:, :1]))
    with io.BytesIO() as file:
        torch.save(copies[0].state_dict(), file)
        file.seek(0)
        again = torch.load(file, weights_only=True)
    assert all(torch.equal(again[name], first[name]) for name in first if name != "lstm.bias_ih_l0")


def test_weights_given_to_it_are_taken_and_shared_ones_are_kept() -> None:
    other: Any = Tagger(16).eval()
    model, x = pruned(Tagger(16), "dense"), torch.randn(4, 2, 16)
    small = srn.accelerate(model, keep_weights=False)
    small(x)
    for write in (lambda p: p.mul_(2), lambda p: p.data.zero_(), lambda p: setattr(p, "data", torch.ones(64, 16))):
        with torch.no_grad(), pytest.raises(RuntimeError, match=r"can't be written to.*\n.*load_state_dict"):
            write(small.lstm.weight_hh_l1)
    assert torch.equal(small(x), srn.accelerate(model)(x))
    with torch.no_grad():  # reading it into something else is no write
        assert torch.equal(torch.zeros(64, 16).copy_(small.lstm.weight_hh_l1), model.lstm.weight_hh_l1)
        srn.accelerate(other).load_state_dict(dict(small.named_parameters()))
    small.load_state_dict(other.state_dict())
    assert torch.equal(small(x), srn.accelerate(other)(x)) and not held_in(small.lstm)
    small = srn.accelerate(model, keep_weights=False)
    small.lstm.weight_hh_l0 = nn.Parameter(other.lstm.weight_hh_l0.detach().clone())
    model.lstm.weight_hh_l0 = other.lstm.weight_hh_l0
    assert torch.equal(small(x), srn.accelerate(model)(x))
    assert torch.equal(small.to("cpu")(x), srn.accelerate(model)(x)) and not held_in(small.lstm)
    with torch.no_grad():
        model.lstm.weight_hh_l0[3, 3] = torch.nan
    small = srn.accelerate(model, "int8", keep_weights=False)
    assert "weight_hh_l0" not in held_in(small.lstm) and "weight_hh_l1" in held_in(small.lstm)


def test_a_weight_that_two_modules_share_is_kept() -> None:
    tagger: Any = Tagger(16)
    tied: Any = nn.Sequential(nn.Embedding(9, 16), tagger)
    tagger.head = nn.Linear(16, 9)
    tagger.head.weight = tied[0].weight
    small = srn.accelerate(tied.eval(), keep_weights=False)
    assert small[1].head.weight is small[0].weight and not held_in(small[1].head) and held_in(small[1].lstm)
    tokens = torch.arange(8).view(4, 2)
    want = small(tokens)
    with torch.no_grad():
        small[0].weight.mul_(2)
        tagger.head.weight.mul_(2)
    assert torch.equal(small(tokens), srn.accelerate(tied)(tokens)) and not torch.equal(small(tokens), want)


def test_copies_in_other_precisions_leave_it_its_own() -> None:
    """Whether a model of int8 is a chain is judged on a copy in float32 that shares its parameters."""
    model, x = pruned(Tagger(64), "dense"), torch.randn(1, 1, 64)
    small = srn.accelerate(model, "int8", keep_weights=False)
    stream = small.stream()
    assert {held.precision for held in held_in(small.lstm).values()} == {"int8"}
    gc.collect()
    assert all(held._owner is not None and held._owner() is small.lstm._engine for held in held_in(small.lstm).values())
    assert torch.equal(stream.step(x[0]), srn.accelerate(model, "int8").stream().step(x[0]))
