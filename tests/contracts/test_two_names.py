"""A layer that stands under two names, or in a list of the user's own, is one module after surgery as before."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.nn import SplitLSTM
from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.ragged import RaggedLSTM

from .architecture import difference, run


class Twice(nn.Module):
    """Both sides of a pair go through one encoder; it is found in a list, a dict and a tuple as well."""

    def __init__(self, layer: nn.Module, inside: bool) -> None:
        super().__init__()
        self.a = layer
        self.b = nn.Sequential(layer) if inside else layer
        self.listed, self.named, self.pair = [layer], {"layer": layer}, (layer, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        first = self.a(x)[0] + self.named["layer"](x.flip(0))[0]
        return self.fc(first + self.b(x)[0] + self.listed[0](x)[0] + self.pair[0](x)[0])


def same_everywhere(model: nn.Module) -> bool:
    other = model.b[0] if isinstance(model.b, nn.Sequential) else model.b
    return all(one is model.a for one in (other, model.listed[0], model.named["layer"], model.pair[0]))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("make", "gates", "kind"),
    [
        (lambda: nn.LSTM(4, 8), False, nn.LSTM),
        (lambda: nn.LSTM(4, 8, 2), False, RaggedLSTM),
        (lambda: nn.LSTM(4, 8), True, GatedLSTM),
        (lambda: RaggedLSTM(4, [6, 8]), True, GatedLSTM),
        (lambda: SplitLSTM(4, 8, blocks=2), False, SplitLSTM),
    ],
    ids=["narrower", "ragged", "gated", "gated from ragged", "split"],
)
def test_both_names_are_one_module(make, gates, kind, inside):
    torch.manual_seed(0)
    model, x = Twice(make(), inside).double().eval(), torch.randn(5, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        if gates:
            for weight in (model.a.weight_ih_l0, model.a.weight_hh_l0):
                weight[[1, 2]] = 0.0
        else:
            structure = srn.trace(model, x)
            unit_set = list(structure.unit_sets)[-1]
            for parameter, axis, index in structure.readers(unit_set, 1):
                model.get_parameter(parameter).select(axis, index).zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        small = srn.compact(model, x, gates=gates)
    assert type(small.a) is kind and same_everywhere(small) and same_everywhere(model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert difference(run(small, x), run(model, x)) <= 1e-10
