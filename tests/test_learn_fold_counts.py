"""What counts when a net is folded: units that were dead before, and the share that compaction leaves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsernn as srn
from fold_models import inputs, made

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_units_that_were_dead_before_count_as_gone(cell):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = cell(5, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model, data = made(Tagger()), inputs()
    with torch.no_grad():
        model.rnn.weight_hh_l0[:, :5] = 0
        model.head.weight[:, :5] = 0
    for share, left in ((0.9, 7), (0.3, 5)):
        done = srn.fold(model, data, share)
        small = srn.compact(done.model, data[0])
        size = sum(p.numel() for name, p in small.rnn.named_parameters() if "weight" in name)
        whole = sum(p.numel() for name, p in model.rnn.named_parameters() if "weight" in name)
        assert small.rnn.hidden_size == left == int((~done.removed["rnn.l0"]).sum())
        assert done.share == pytest.approx(size / whole) and bool(done.removed["rnn.l0"][:5].all())
    assert srn.fold(model, data, 0.9).measured == 0


class Subclass(nn.LSTM):
    """Its layers and directions stay equally wide, as torch's are."""


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Subclass(5, 10, bidirectional=True),
        lambda: Subclass(5, 10, num_layers=2),
        lambda: nn.LSTM(5, 12, num_layers=2, bidirectional=True, proj_size=3),
    ],
    ids=["directions", "layers", "projections"],
)
def test_what_compact_leaves_is_the_share_where_widths_depend_on_each_other(layer):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = layer()
            width = self.rnn.proj_size or self.rnn.hidden_size
            self.head = nn.Linear(width * (1 + self.rnn.bidirectional), 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model, data = made(Tagger()), inputs()
    whole = sum(p.numel() for name, p in model.rnn.named_parameters() if "weight" in name)
    for done in srn.fold(model, data, (0.75, 0.5, 0.25)):
        small = srn.compact(done.model, data[0])
        size = sum(p.numel() for name, p in small.rnn.named_parameters() if "weight" in name)
        assert done.share == pytest.approx(size / whole)
        torch.testing.assert_close(small(data[1]), done.model(data[1]), rtol=1e-10, atol=1e-10)
        assert 0.2 * done.measured < done.predicted < 5 * done.measured


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_net_with_dead_units_folds_as_the_compacted_net(cell):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = cell(5, 14), nn.Linear(14, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model, data = made(Tagger()), inputs()
    with torch.no_grad():
        model.rnn.weight_hh_l0[:, 3:8] = 0
        model.head.weight[:, 3:8] = 0
    small = srn.compact(copy.deepcopy(model), data[0])
    units = {"cost": lambda widths: float(widths["rnn.l0"])}
    whole, part = srn.fold(model, data, 5, **units), srn.fold(small, data, 5, **units)
    assert part.measured == pytest.approx(whole.measured, rel=1e-6)
    torch.testing.assert_close(part.model(data[0]), whole.model(data[0]), rtol=1e-7, atol=1e-7)


def test_units_that_are_always_zero_go_first_however_large_their_weights_are():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(5, 24, nonlinearity="relu"), nn.Linear(24, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model = made(Net())
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(0.2)
        model.rnn.bias_ih_l0[:8] = -100
        model.head.weight[:, :8] *= 5
    done = srn.fold(model, inputs(), to=8 / 24, cost=lambda widths: float(widths["rnn.l0"]))
    assert bool(done.removed["rnn.l0"][:8].all())
    done = srn.fold(model, inputs(), to=16 / 24, cost=lambda widths: float(widths["rnn.l0"]))
    assert done.removed["rnn.l0"].nonzero()[:, 0].tolist() == list(range(8)) and done.measured < 1e-6
