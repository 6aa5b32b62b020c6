"""Whatever an operation does along time, it leaves units removable that it keeps apart; along the units it does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsernn.structure.trace import trace
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact

from .architecture import set_slices

T, H = 6, 8
MID = 3


def pooled(function):
    return lambda y, d: function(y.movedim(d, -1)).movedim(-1, d)


def over_images(function):
    """Time as an image of 2 x 3, or the units as one of 2 x 4."""

    def run(y, d):
        moved = y.movedim(d, -1)
        image = moved.reshape(*moved.shape[:-1], 2, -1)
        return function(image).flatten(-2).movedim(-1, d)

    return run


def unpooled(y):
    values, places = F.max_pool1d(y, 2, return_indices=True)
    return F.max_unpool1d(values, places, 2)


def there_and_back(y):
    spectrum = torch.stft(y.flatten(0, 1), 4, 2, window=torch.ones(4, dtype=y.dtype), return_complex=True)
    return torch.istft(spectrum * 0.5, 4, 2, window=torch.ones(4, dtype=y.dtype), length=y.shape[-1]).view(y.shape)


def magnitudes(y):
    found = torch.stft(y.flatten(0, 1), 4, 2, window=torch.ones(4, dtype=y.dtype), return_complex=True)
    return found.abs().mean(1).unflatten(0, y.shape[:2])


# y is (batch, time, units); d is 1 (along time) or 2 (along the units).
ALONG = {
    "sort": lambda y, d: y.sort(d).values,
    "msort": lambda y, d: torch.msort(y.movedim(d, 0)).movedim(0, d),
    "argsort": lambda y, d: y.argsort(dim=d).to(y.dtype),
    "topk": lambda y, d: y.topk(4, d).values,
    "kthvalue": lambda y, d: y.kthvalue(2, d, keepdim=True).values,
    "median": lambda y, d: y.median(d, keepdim=True).values,
    "nanmedian": lambda y, d: y.nanmedian(d, keepdim=True).values,
    "mode": lambda y, d: y.round().mode(d, keepdim=True).values,
    "quantile": lambda y, d: y.quantile(0.3, dim=d, keepdim=True),
    "quantiles": lambda y, d: torch.quantile(y, torch.tensor([0.2, 0.7], dtype=y.dtype), dim=d, keepdim=True).sum(0),
    "nanquantile": lambda y, d: torch.nanquantile(y, 0.6, dim=d, keepdim=True),
    "cumsum": lambda y, d: y.cumsum(d),
    "cumprod": lambda y, d: y.cumprod(d),
    "cummax": lambda y, d: y.cummax(d).values,
    "logcumsumexp": lambda y, d: y.logcumsumexp(d),
    "logsumexp": lambda y, d: y.logsumexp(d, keepdim=True),
    "prod": lambda y, d: y.prod(d, keepdim=True),
    "softmax": lambda y, d: y.softmax(d),
    "special softmax": lambda y, d: torch.special.log_softmax(y, d),
    "normalize": lambda y, d: F.normalize(y, dim=d),
    "renorm": lambda y, d: (
        torch.renorm(y.movedim(d, -1).flatten(0, 1), 2, 0, 1.0).view_as(y.movedim(d, -1)).movedim(-1, d)
    ),
    "std": lambda y, d: y / (1 + y.std(d, keepdim=True)),
    "var_mean": lambda y, d: torch.var_mean(y, d, keepdim=True)[0] + y,
    "diff": lambda y, d: y.diff(dim=d),
    "gradient": lambda y, d: torch.gradient(y, dim=d)[0],
    "trapezoid": lambda y, d: torch.trapezoid(y, dim=d).unsqueeze(d),
    "cumulative_trapezoid": lambda y, d: torch.cumulative_trapezoid(y, dim=d),
    "flip": lambda y, d: y.flip(d) if d == 1 else y.cumsum(d),
    "roll": lambda y, d: y.roll(2, d) if d == 1 else y.cumsum(d),
    "fft": lambda y, d: torch.fft.fft(y, dim=d).real,
    "rfft": lambda y, d: torch.fft.rfft(y, dim=d).abs(),
    "irfft": lambda y, d: torch.fft.irfft(torch.fft.rfft(y, dim=d) * 0.5, n=5, dim=d),
    "fftn": lambda y, d: torch.fft.fftn(y, dim=(0, d)).imag,
    "rfft2": over_images(lambda y: torch.view_as_real(torch.fft.rfft2(y)).flatten(-2)),
    "fftshift": lambda y, d: torch.fft.fftshift(torch.fft.fft(y, dim=d), dim=d).abs(),
    "hfft": lambda y, d: torch.fft.hfft(y, dim=d),
    "stft": pooled(magnitudes),
    "istft": pooled(there_and_back),
    "interpolate": pooled(lambda y: F.interpolate(y, scale_factor=2)),
    "linear interpolation": pooled(lambda y: F.interpolate(y, size=7, mode="linear")),
    "bicubic interpolation": over_images(lambda y: F.interpolate(y, scale_factor=2, mode="bicubic")),
    "max_pool1d": pooled(lambda y: F.max_pool1d(y, 2)),
    "lp_pool1d": pooled(lambda y: F.lp_pool1d(y, 2, 2)),
    "adaptive_avg_pool1d": pooled(lambda y: F.adaptive_avg_pool1d(y, 2)),
    "avg_pool2d": over_images(lambda y: F.avg_pool2d(y, 2)),
    "fractional_max_pool2d": over_images(
        lambda y: F.fractional_max_pool2d(y, 2, 1, _random_samples=torch.full((*y.shape[:2], 2), 0.5, dtype=y.dtype))
    ),
    "max_unpool1d": pooled(unpooled),
    "reflect": pooled(lambda y: F.pad(y, (2, 1), "reflect")),
    "replicate": pooled(lambda y: F.pad(y, (2, 1), "replicate")),
    "circular": pooled(lambda y: F.pad(y, (2, 1), "circular")),
    "reflection module": pooled(nn.ReflectionPad1d(2)),
    "unfold": pooled(lambda y: y.unfold(-1, 3, 1).mean(-1)),
    "fold": pooled(
        lambda y: F.fold(y.repeat_interleave(2, 1), (1, y.shape[-1] + 1), (1, 2)).squeeze(2)[..., : y.shape[-1]]
    ),
    "cosine": lambda y, d: F.cosine_similarity(y, y.flip(1), dim=d).unsqueeze(d) * y,
    "instance_norm": pooled(F.instance_norm),
    "group_norm": pooled(lambda y: F.group_norm(y, y.shape[1])),
    "bucketize": lambda y, d: (
        torch.bucketize(y.contiguous(), torch.linspace(-1, 1, 5, dtype=y.dtype)).to(y.dtype).cumsum(d)
    ),
}
# Of each unit only its own steps take part here as well, so these can't mix the units.
APART_EITHER_WAY = {"reflect", "replicate", "circular", "reflection module", "unfold"}


class Along(nn.Module):
    def __init__(self, function, d):
        super().__init__()
        self.rnn = nn.LSTM(4, H // 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(H, 3)
        self.function, self.d = function, d

    def forward(self, x):
        y = self.rnn(x)[0]
        z = self.function(y, self.d)
        return self.fc(z) if self.d == 1 else self.fc(y) + z.mean(-1, keepdim=True)


@pytest.mark.parametrize("name", ALONG)
@torch.no_grad()
def test_units_kept_apart_along_time_may_go(name):
    torch.manual_seed(0)
    model, x = Along(ALONG[name], 1).double().eval(), torch.randn(2, T, 4, dtype=torch.float64)
    structure = trace(model, x, strict=True)
    assert all(bool(mask.all()) for mask in structure.removable().values()), structure.explain()
    for unit in (0, 2):
        assert ("fc.weight", 1, H // 2 + unit) in structure.readers("rnn.l0_reverse", unit)
        for unit_set in structure.unit_sets:
            set_slices(dict(model.named_parameters()), frozenset(structure.readers(unit_set, unit)), 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_size == H // 2 - 2
    for one in (x, torch.randn(1, T, 4, dtype=torch.float64)):
        assert (small(one) - model(one)).abs().max() <= 1e-10


@pytest.mark.parametrize("name", [name for name in ALONG if name not in APART_EITHER_WAY])
@torch.no_grad()
def test_units_mixed_by_the_same_operation_stay(name):
    torch.manual_seed(0)
    model, x = Along(ALONG[name], 2).double().eval(), torch.randn(2, T, 4, dtype=torch.float64)
    structure = trace(model, x, check=False)
    assert not any(bool(mask.any()) for mask in structure.removable().values()), structure.explain()


class Norms(nn.Module):
    """Norms of each channel over time, with and without weights and running statistics."""

    def __init__(self, norm):
        super().__init__()
        self.rnn, self.norm, self.fc = nn.GRU(4, H, batch_first=True), norm, nn.Conv1d(H, 3, 1)

    def forward(self, x):
        return self.fc(self.norm(self.rnn(x)[0].mT))


NORMS = {
    "instance": lambda: nn.InstanceNorm1d(H),
    "affine": lambda: nn.InstanceNorm1d(H, affine=True),
    "tracked": lambda: nn.InstanceNorm1d(H, affine=True, track_running_stats=True),
    "groups": lambda: nn.GroupNorm(H, H),
    "bare groups": lambda: nn.GroupNorm(H, H, affine=False),
}


@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_norms_of_each_channel_over_time_are_cut_with_their_units(norm, tmp_path):
    torch.manual_seed(0)
    model, x = Norms(NORMS[norm]()).double().eval(), torch.randn(2, T, 4, dtype=torch.float64)
    structure = trace(model, x, strict=True)
    assert structure.removable()["rnn.l0"].all(), structure.explain()
    planes = {name for name, _ in structure.classes.planes}
    assert {f"norm.{n}" for n, t in [*model.norm.named_parameters(), *model.norm.named_buffers()] if t.dim()} <= planes
    set_slices(dict(model.named_parameters()), frozenset(structure.readers("rnn.l0", 3)), 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_size == H - 1 and (small(x) - model(x)).abs().max() <= 1e-10
    save(small, tmp_path / "small.safetensors")
    again = load(Norms(NORMS[norm]()).double().eval(), tmp_path / "small.safetensors")
    assert torch.equal(again(x), small(x))


class Complex(nn.Module):
    """Complex numbers between layers: two units are one number from there on, so they go together."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(4, H, batch_first=True), nn.Linear(H, 4)

    def forward(self, x):
        y = self.rnn(x)[0]
        spectrum = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
        turned = torch.view_as_real(spectrum * torch.exp(torch.tensor(0.3j, dtype=torch.complex128))).flatten(-2)
        return torch.view_as_complex(self.fc(turned).unflatten(-1, (-1, 2)).contiguous())


def test_two_units_of_one_complex_number_go_together():
    structure = trace(Complex().double().eval(), torch.randn(2, T, 4, dtype=torch.float64), check=False, strict=True)
    assert structure.removable()["rnn.l0"].all(), structure.explain()
    classes = structure.classes.sets["rnn.l0"].view(-1, 2)
    assert bool((classes[:, 0] == classes[:, 1]).all()) and len(classes[:, 0].unique()) == H // 2
