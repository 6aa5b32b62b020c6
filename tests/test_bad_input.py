"""Misuse gets a sentence (what was given, what was expected, what to do; three lines at most) and changes nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from misuses import MISUSES, Bench
from sparsernn.extras import require
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(("call", "says"), [pytest.param(*rest, id=name) for name, *rest in MISUSES])
def test_a_sentence_and_nothing_changed(bench, call, says):
    with pytest.raises((TypeError, ValueError, RuntimeError, OSError)) as caught:
        call(bench)
    text = str(caught.value)
    assert len(text) > 20 and text.count("\n") <= 2, text
    assert "Traceback" not in text and "NoneType' object" not in text
    for fragment in says:
        assert fragment in text, f"{fragment!r} is not said in: {text}"
    bench.assert_unchanged()


def test_a_missing_extra_is_a_command(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"plots.*pip install 'sparsernn\[plots\]'"):
        require("matplotlib", "plots")


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.spare = nn.LSTM(6, 4, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x, more=False):
        y, _ = self.rnn(x)
        return self.spare(y)[0] if more else self.fc(y)


def test_a_module_that_no_example_reached_is_named():
    model, x = Branches().eval(), torch.randn(2, 4, 5)
    with pytest.warns(UserWarning, match="spare"):
        structure = trace(model, x)
    assert {int(k) for kept in structure.kept if kept.unit_set == "spare.l0" for k in kept.units} == set(range(4))
    assert "spare" in structure.explain()
    # With an example for each branch nothing is left to warn of.
    both = trace(model, [x, (x, True)])
    assert ("spare.weight_ih_l0", 1, 2) in _readers(both, "rnn.l0", 2)


def _readers(structure: Any, unit_set: str, unit: int) -> set[tuple[str, int, int]]:
    groups = structure.groups("unit")
    number = int(groups.units[unit_set][unit])
    return {
        (member.parameter, member.axis, index)
        for member in groups.members
        if member.role == "outgoing"
        for index, group in enumerate(member.group.tolist())
        if group == number
    }


def test_a_branch_that_no_example_took_still_runs_or_says_so():
    """Never a bare size mismatch from within torch."""
    torch.manual_seed(0)
    model, x = Branches().double().eval(), torch.randn(2, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        for unit in (1, 4):
            model.rnn.weight_hh_l0[:, unit] = 0
            model.fc.weight[:, unit] = 0
    with pytest.warns(UserWarning, match="spare"):
        small = compact(model, x)
    assert torch.allclose(small(x), model(x), atol=1e-10, rtol=0)
    try:
        result = small(x, more=True)
    except (RuntimeError, ValueError, TypeError) as error:
        assert "example" in str(error) and str(error).count("\n") <= 2, error
    else:
        assert torch.allclose(result, model(x, more=True), atol=1e-10, rtol=0)
