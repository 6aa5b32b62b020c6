"""Precision layer by layer: by name, and chosen by what each layer does to the outputs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.nn.ragged import RaggedGRU
from sparsernn.runtime import calibration
from sparsernn.runtime.precision import precisions, units
from sparsernn.runtime.processor import processor


class Net(nn.Module):
    """`last` is one row behind large activations that nearly cancel: rounding its weights ruins the output."""

    def __init__(self, sensitive: bool = True) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 32, 2, bidirectional=True)
        self.cell = nn.LSTMCell(64, 48)
        self.attention = nn.ModuleDict({"v": nn.Linear(48, 512), "last": nn.Linear(512, 1)})
        self.register_buffer("seen", torch.zeros(()))
        if sensitive:
            self.attention["v"].bias += 100
            self.attention["last"].weight -= self.attention["last"].weight.mean()

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1  # a state: what is measured does not depend on how often
        y = self.rnn(x)[0]
        return self.attention["last"](self.attention["v"](self.cell(y[-1])[0])) * self.seen


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


NAMES = ["rnn.l0", "rnn.l0_reverse", "rnn.l1", "rnn.l1_reverse", "cell", "attention.v", "attention.last"]


@pytest.mark.parametrize(
    "wanted, low",
    [
        ("bfloat16", NAMES),
        ({"*": "bfloat16"}, NAMES),
        ({"rnn": "bfloat16"}, NAMES[:4]),
        ({"rnn.l1": "bfloat16"}, ["rnn.l1"]),
        ({"rnn.l1": "float32", "rnn": "bfloat16"}, ["rnn.l0", "rnn.l0_reverse", "rnn.l1_reverse"]),
        ({"*_reverse": "bfloat16", "cell": "bfloat16"}, ["rnn.l0_reverse", "rnn.l1_reverse", "cell"]),
        ({"*": "bfloat16", "attention.*": "float32"}, NAMES),  # the first pattern that fits
        ({"attention.*": "float32", "*": "bfloat16"}, NAMES[:5]),
        ({"*": "bfloat16", "attention.last": "float32"}, NAMES[:6]),  # a name stands before every pattern
    ],
)
def test_precision_by_name(wanted: Any, low: list[str]) -> None:
    model, x = Net().eval(), torch.randn(5, 3, 6)
    fast = srn.accelerate(model, wanted)
    assert precisions(fast) == {name: "bfloat16" if name in low else "float32" for name in NAMES}
    other = copy.deepcopy(model)  # with the weights that bfloat16 has of these layers
    for name, p in other.named_parameters():
        path, _, own = name.rpartition(".")
        layer = f"{path}.{own.partition('_')[2].partition('_')[2]}" if path == "rnn" else path
        if p.dim() == 2 and layer in low:
            p.copy_(p.bfloat16())
    for again in (fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.allclose(again(x), copy.deepcopy(other)(x), rtol=1e-3, atol=1e-3)
        assert precisions(again) == precisions(fast)


def test_names_of_shared_and_unequal_layers_and_of_the_model_itself() -> None:
    model = nn.ModuleDict({"a": RaggedGRU(6, [5, 7]), "b": nn.LSTM(6, 4)}).eval()
    model["c"] = model["b"]
    fast = srn.accelerate(model, {"c.l0": "bfloat16", "a.l1": "bfloat16"})
    assert precisions(fast) == {"a.l0": "float32", "a.l1": "bfloat16", "b.l0": "bfloat16"}
    assert precisions(srn.accelerate(nn.LSTM(6, 4).eval(), {"l0": "bfloat16"})) == {"l0": "bfloat16"}
    assert "bfloat16" in srn.accelerate(model, {"b": "bfloat16"}).explain()


def test_sentences_of_precision() -> None:
    model, x = Net().eval(), torch.randn(5, 3, 6)
    with pytest.raises(
        ValueError, match=r"names 'attention.w', which fits no layer on kernels; these are rnn.l0, .*last"
    ):
        srn.accelerate(model, {"attention.w": "float32", "*": "bfloat16"})
    with pytest.raises(ValueError, match="expected names with float32, bfloat16, int8 each"):
        srn.accelerate(model, {"rnn": "float16"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="expected float32, bfloat16, int8, auto or a dict"):
        srn.accelerate(model, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batches missing"):
        srn.accelerate(model, "auto")
    with pytest.raises(ValueError, match="batches given"):
        srn.accelerate(model, "bfloat16", batches=x)
    with pytest.raises(ValueError, match="tolerance is -1"):
        srn.accelerate(model, "auto", batches=x, tolerance=-1)
    with pytest.raises(ValueError, match="could not run on example 2"):
        srn.accelerate(model, "auto", batches=[x, x[..., :5]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        srn.accelerate(model, "auto", batches=x / 0)
    left = nn.ModuleDict({"a": nn.LSTM(6, 4), "b": nn.LSTM(6, 4)}).eval()
    left["a"].forward = lambda x: x
    with pytest.raises(ValueError, match="names 'a', which stays on torch: its forward was replaced"):
        srn.accelerate(left, {"a": "bfloat16"})


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


@pytest.fixture
def all_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower precisions are worth having for layers of any size."""
    took = {"float32": 3.0, "bfloat16": 2.0, "int8": 1.0}
    monkeypatch.setattr(
        calibration, "_nanoseconds", lambda unit, p: took[p] * unit.module.__class__.__name__.count("e")
    )


def test_calibration_keeps_the_one_sensitive_layer_exact(all_cheaper: None) -> None:
    model, x = Net().eval(), torch.randn(5, 3, 6)
    lowest = "int8" if processor().vnni else "bfloat16"
    exact = srn.accelerate(model)(x)
    low = relative(srn.accelerate(model, lowest)(x), exact)
    kept = relative(srn.accelerate(model, {"attention.*": "float32", "*": lowest})(x), exact)
    assert kept < low / 20
    fast = srn.accelerate(model, "auto", batches=x, tolerance=2 * kept)
    chosen = precisions(fast)
    assert chosen["attention.last"] == "float32"
    assert list(chosen.values()).count(lowest) >= 4
    assert fast.seen == model.seen
    assert relative(fast(x), exact) <= 2 * kept
    assert "attention.last: float32; alone it brings" in fast.explain()
    assert f"tolerance {2 * kept:g}" in fast.explain()


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.9, 2])
def test_the_whole_is_within_the_tolerance_and_no_more_exact_than_it_has_to_be(share: float, all_cheaper: None) -> None:
    """share: of the error of all layers in the lowest precision."""
    model, batches = Net(sensitive=False).eval(), [torch.randn(5, n, 6) for n in (3, 1)]
    lowest = "int8" if processor().vnni else "bfloat16"

    def error(fast: nn.Module) -> float:
        return relative(torch.cat([copy.deepcopy(fast)(x) for x in batches]), want)

    want = torch.cat([copy.deepcopy(srn.accelerate(model))(x) for x in batches])
    tolerance = share * error(srn.accelerate(model, lowest))
    fast = srn.accelerate(model, "auto", batches=iter(batches), tolerance=tolerance)
    assert error(fast) <= tolerance
    chosen = precisions(fast)
    assert (set(chosen.values()) == {"float32"}) == (share == 0)
    assert (set(chosen.values()) == {lowest}) == (share == 2)
    for name, p in chosen.items():
        if p == "float32" and 0 < share < 2:
            assert error(srn.accelerate(model, chosen | {name: "bfloat16"})) > tolerance


def test_a_precision_that_saves_nothing_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_nanoseconds", lambda unit, p: 1.0)
    fast = srn.accelerate(Net().eval(), "auto", batches=torch.randn(5, 3, 6), tolerance=10)
    assert set(precisions(fast).values()) == {"float32"}


def test_predicted_times_of_every_kind_of_unit() -> None:
    fast = srn.accelerate(
        nn.ModuleDict({"a": RaggedGRU(6, [5, 7]), "b": nn.LSTMCell(6, 4), "c": nn.Linear(6, 9)}).eval()
    )
    for unit in units(fast):
        assert all(calibration._nanoseconds(unit, p) > 0 for p in ("float32", "bfloat16"))


def test_int8_is_offered_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "multiplied", lambda p: "float32" if p == "int8" else p)
    fast = srn.accelerate(Net(False).eval(), "auto", batches=torch.randn(5, 3, 6), tolerance=10)
    assert "int8" not in precisions(fast).values()
