"""The benchmark compares the same inputs, interleaved, and reports ratios, errors and the metric."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from sparsernn.runtime.layers import accelerate
from sparsernn.timing import Benchmark, benchmark


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_rows_errors_and_plain_data() -> None:
    model = nn.GRU(4, 6)
    off = nn.GRU(4, 6)
    off.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
    console = quiet()
    result = benchmark(
        {"dense": model, "off": off, "fast": accelerate(model.eval())},
        torch.randn(3, 2, 4),
        repeats=3,
        console=console,
        metric=lambda m: sum(p.numel() for p in m.parameters()),
    )
    dense, other, fast = result.rows
    assert dense.ratio == 1 and dense.spread == 0 and dense.max_error == 0
    assert other.max_error is not None and fast.max_error is not None
    assert 1e-4 < other.max_error < 1 and fast.max_error < 1e-5
    assert all(row.milliseconds > 0 and row.ratio > 0 for row in result.rows)
    assert {row.metric for row in result.rows} == {216.0}
    assert json.loads(json.dumps(result.to_dict()))["rows"][2]["name"] == "fast"
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in (shown, str(result)):
        assert "Against dense" in text and "fast" in text and "3 interleaved rounds" in text


def test_every_form_of_example_and_modes_are_restored() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert not self.training and not torch.is_grad_enabled()
            return a.add_(1) + b  # changes its argument

    model = Two()
    a, b = torch.ones(2), torch.ones(2)
    for example in ((a, b), {"a": a, "b": b}, [(a, b), {"a": a, "b": b}]):
        assert benchmark({"m": model, "again": model}, example, repeats=1, console=quiet()).rows[0].ratio == 1
    assert model.training and torch.equal(a, torch.ones(2))


def test_calls_are_interleaved() -> None:
    order: list[str] = []
    benchmark(
        {"a": lambda x: order.append("a"), "b": lambda x: order.append("b")}, torch.ones(1), repeats=4, console=quiet()
    )
    rounds = "".join(order)
    # After the warm-up every round is a run of a's and then a run of b's.
    assert rounds.count("ab") >= 4


def test_other_shapes_have_no_error() -> None:
    result = benchmark({"a": lambda x: x, "b": lambda x: x[:1]}, torch.ones(3), repeats=1, console=quiet())
    assert result.rows[1].max_error is None and "other shape" in str(result)
    assert isinstance(result, Benchmark)


def test_sentences() -> None:
    with pytest.raises(ValueError, match="no models"):
        benchmark({}, torch.ones(1))
    with pytest.raises(TypeError, match="'a' is a int"):
        benchmark({"a": 3}, torch.ones(1))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="repeats is 0"):
        benchmark({"a": abs}, torch.ones(1), repeats=0)
