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
from .compacted import kill, quiet_compact, widths

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


class Stacked(nn.Module):
    """Two layers whose states are one tensor, units along its third axis, as converters write them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTM(5, 6), nn.LSTM(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, (h, c) = self.first(x, (state[:, 0, :, 0].unsqueeze(0), state[:, 0, :, 1].unsqueeze(0)))
        y, (g, d) = self.second(y, (state[:, 1, :, 0].unsqueeze(0), state[:, 1, :, 1].unsqueeze(0)))
        return self.head(y), torch.stack([torch.stack([h[0], g[0]], 1), torch.stack([c[0], d[0]], 1)], -1)


@pytest.mark.parametrize("widths_left", [(4, 4), (5, 3)])
def test_states_of_two_layers_in_one_tensor(widths_left):
    torch.manual_seed(0)
    model = Stacked()
    with torch.no_grad():
        for layer, after, left in zip(("first", "second"), ("second.weight_ih_l0", "head.weight"), widths_left):
            for name in (f"{layer}.weight_hh_l0", after):
                model.get_parameter(name)[:, left:] = 0.0
    example = torch.randn(4, 2, 5), torch.randn(2, 2, 6, 2)
    small = compact(model, example, carried_states=True)
    assert (small.first.hidden_size, small.second.hidden_size) == widths_left
    said = []
    for one in (model.double(), small.double()):
        torch.manual_seed(1)
        state, found = torch.zeros(2, 2, 6, 2, dtype=torch.float64), []
        for _ in range(3):
            y, state = one(torch.randn(4, 2, 5, dtype=torch.float64), state)
            found.append(y.detach())
        said.append(found)
    assert difference(said[1], said[0]) <= 1e-10
