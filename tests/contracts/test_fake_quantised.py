"""Readers that are rounded to a grid while training: zero stays zero, so units are read through the weight itself."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torch.nn.utils import parametrize

from sparsernn.structure.channels import Because
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import set_slices

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own older interfaces


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Lsq(nn.Module):
    """Learned step size (arXiv 1902.08153), with the straight-through estimator written as people write it."""

    def __init__(self, rows=0, function=False):
        super().__init__()
        self.step = nn.Parameter(torch.full((rows, 1) if rows else (), 0.05))
        self.function = function

    def forward(self, w):
        step = (self.step - self.step * 0.1).detach() + self.step * 0.1
        scaled = (w / step).clamp(-128, 127)
        rounded = Round.apply(scaled) if self.function else (scaled.round() - scaled).detach() + scaled
        return rounded * step


class Learnable(nn.Module):
    def __init__(self, rows=0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((rows or 1,), 0.05))
        self.zero = nn.Parameter(torch.zeros(rows or 1))
        self.rows = rows

    def forward(self, w):
        if self.rows:
            return torch._fake_quantize_learnable_per_channel_affine(w, self.scale, self.zero, 0, -128, 127, 1.0)
        return torch._fake_quantize_learnable_per_tensor_affine(w, self.scale, self.zero, -128, 127, 1.0)


class Dynamic(nn.Module):
    """Scaled by the largest weight, of all or of a row."""

    def __init__(self, dim=None):
        super().__init__()
        self.dim = dim

    def forward(self, w):
        largest = w.abs().amax() if self.dim is None else w.abs().amax(dim=self.dim, keepdim=True)
        step = largest.clamp(min=1e-8) / 127
        return torch.round(w / step) * step


def _observer(observer, **more):
    fake = FakeQuantize(observer, quant_min=-128, quant_max=127, dtype=torch.qint8, **more)
    fake(torch.randn(3, 6))
    return fake


GRIDS = {
    "lsq": Lsq,
    "lsq by row": lambda: Lsq(3),
    "lsq function": lambda: Lsq(function=True),
    "learnable": Learnable,
    "learnable by row": lambda: Learnable(3),
    "observer": lambda: _observer(MovingAverageMinMaxObserver, qscheme=torch.per_tensor_symmetric),
    "observer by row": lambda: _observer(
        MovingAveragePerChannelMinMaxObserver, qscheme=torch.per_channel_symmetric, ch_axis=0
    ),
    "largest": Dynamic,
    "largest by row": lambda: Dynamic(1),
}


class Head(nn.Module):
    def __init__(self, grid=None):
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.lstm, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)
        self.grid = grid if isinstance(grid, FakeQuantize) else None  # which changes with each call
        if grid is not None and self.grid is None:
            parametrize.register_parametrization(self.fc, "weight", grid, unsafe=True)

    def forward(self, x):
        y = self.lstm(self.quant(x))[0]
        z = self.fc(y) if self.grid is None else F.linear(y, self.grid(self.fc.weight), self.fc.bias)
        return self.dequant(z)


def check(model, x):
    structure = trace(model, x, strict=True)
    assert structure.removable()["lstm.l0"].sum() >= 5, structure.explain()
    unit = int(structure.removable()["lstm.l0"].nonzero()[0])
    set_slices(dict(model.named_parameters()), frozenset(structure.readers("lstm.l0", unit)), 0.0)
    assert structure.dead(dict(model.named_parameters()))["lstm.l0"][unit]
    small = compact(model, x)
    assert small.lstm.hidden_size == 5
    assert (small(x) - model(x)).abs().max() <= 1e-5


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_a_weight_on_a_grid_is_read_as_the_weight(grid):
    torch.manual_seed(0)
    check(Head(GRIDS[grid]()).eval(), torch.randn(2, 5, 4))


@pytest.mark.parametrize("backend", ["fbgemm", "qnnpack"])
@torch.no_grad()
def test_training_for_int8_leaves_units_removable(backend):
    torch.manual_seed(0)
    model, x = Head().train(), torch.randn(2, 5, 4)
    model.qconfig, model.lstm.qconfig = quantization.get_default_qat_qconfig(backend), None
    model = quantization.prepare_qat(model)
    model(x)
    check(model.eval(), x)


class Rounded(nn.Module):
    """Activations on a grid whose range is learned from all units, or fixed."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)
        self.grid = quantization.default_fused_act_fake_quant()

    def forward(self, x):
        return self.fc(self.grid(self.lstm(x)[0]))


def test_a_range_over_all_units_keeps_them_until_it_is_frozen():
    model, x = Rounded(), torch.randn(2, 5, 4)
    model(x)
    kept = trace(model, x).kept
    assert [one.because for one in kept] == [Because.MEANING] and "range" in kept[0].reason
    model.apply(quantization.disable_observer)
    assert trace(model, x, strict=True).removable()["lstm.l0"].all()


@pytest.mark.parametrize(
    ("bounds", "dead"), [((-1, 1), True), ((0.1, 1), False), ((None, 2), True), ((-1, -0.1), False)]
)
@torch.no_grad()
def test_zero_arrives_through_bounds_that_hold_it(bounds, dead):
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.lstm(x)[0].clamp(*bounds) if bounds[0] is not None else self.lstm(x)[0].clamp(max=2))

    model, x = Bounded(), torch.randn(2, 5, 4)
    for p in (model.lstm.weight_ih_l0, model.lstm.weight_hh_l0, model.lstm.bias_ih_l0, model.lstm.bias_hh_l0):
        p[12 + 2] = 0  # the candidate of unit 2
    structure = trace(model, x)
    assert bool(structure.dead(dict(model.named_parameters()))["lstm.l0"][2]) == dead
