"""States that a model hands to its caller: kept by default, free with `carried_states=True`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from sparsernn.surgery.compact import compact

from .architecture import Architecture, difference, leaves
from .architectures import ARCHITECTURES
from .test_compact import kill, quiet_compact, widths

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

CARRIED = {name: dataclasses.replace(one, readers=one.carried) for name, one in ARCHITECTURES.items() if one.carried}


def played(name: str, model: nn.Module, segments: int = 3) -> list[torch.Tensor]:
    """What the model says over several segments, its state fed back into it each time (states left out)."""
    torch.manual_seed(0)
    said: list[torch.Tensor] = []
    state: Any = None
    with torch.no_grad():
        for _ in range(segments):
            if name == "actor_critic":
                output = model(torch.randn(2, 4, 5, dtype=torch.float64), state)
                state = output.pop("state")
                said += leaves(output)
            else:
                if state is None:  # dense width, as the user's init_hidden makes it
                    state = torch.zeros(2, 2, 7, dtype=torch.float64)
                    state = (state, state.clone()) if name == "word_language_model" else state
                output, state = model(torch.randint(0, 11, (4, 2)), state)
                said.append(output)
    return said


@pytest.mark.parametrize("name", CARRIED)
def test_units_of_carried_states_go_when_asked(name):
    architecture: Architecture = CARRIED[name]
    model = architecture.model()
    dead, _ = kill(dataclasses.replace(architecture, kept={}), model, 0.5, seed=1)
    expected = played(name, model)
    example = architecture.examples()[0]
    kept = quiet_compact(model, example)
    assert widths(kept) == widths(model)
    assert difference(played(name, kept), expected) <= 1e-10
    small = compact(model, example, carried_states=True)
    for unit_set, units in dead.items():
        assert widths(small)[unit_set] == widths(model)[unit_set] - len(units)
    assert difference(played(name, small), expected) <= 1e-10
