"""The elementary functions of step programs are right over the whole range of float32."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsernn.runtime.compiled import function
from sparsernn.runtime.vector import BYTES

TAIL = 64


def run(name: str, inputs: Sequence[Tensor], given: Sequence[float] = ()) -> Tensor:
    """A kernel of kernels/elementwise.py on one row."""
    count = inputs[0].numel()
    memory = [torch.cat([x, torch.full((TAIL,), torch.nan)]) for x in inputs]
    out = torch.full((count + TAIL,), 7.0)
    fields = [1, count, out.data_ptr(), 0]
    for x in memory:
        fields += [x.data_ptr(), 0, *([BYTES] if len(inputs) > 1 else [])]
    fields += [struct.unpack("<q", struct.pack("<fi", value, 0))[0] for value in given]
    array = (ctypes.c_int64 * len(fields))(*fields)
    function(f"kernels.elementwise.{name}", 1)(ctypes.addressof(array))
    assert (out[count:] == 7.0).all()
    return out[:count]


def units_away(got: Tensor, want: Tensor) -> Tensor:
    """By how many units in the last place of a float32, the smallest denormal number at least."""
    near = want.float()
    unit = (torch.nextafter(near.abs(), torch.tensor(torch.inf)) - near.abs()).double()
    unit = torch.where(unit.isfinite(), unit, 2.0**104)
    same = (got == near) | (got.isnan() & near.isnan())
    return torch.where(same, 0.0, (got.double() - want).abs() / unit).nan_to_num(nan=torch.inf)


def whole_range() -> Tensor:
    """Every 9973rd float32, denormals, infinities and NaN among them, and what is in common use more closely."""
    bits = torch.arange(0, 2**32, 9973)
    every = torch.from_numpy(bits.numpy().astype(np.uint32).view(np.float32))
    edges = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, -1.0, 1.0])
    return torch.cat([every, torch.linspace(-110, 110, 100_001), torch.linspace(-2, 2, 50_001), edges])


def gelu(x: Tensor) -> Tensor:
    return torch.where(x == -torch.inf, torch.nan, 0.5 * x * torch.erfc(-x / 2**0.5))


def gelu_tanh(x: Tensor) -> Tensor:
    return x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))


RIGHT: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "log_sigmoid": F.logsigmoid,
    "reciprocal": torch.reciprocal,
    "absolute": torch.abs,
    "neg": torch.neg,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "nearest": torch.round,
    "relu": torch.relu,
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_to_the_last_place(name: str) -> None:
    x = whole_range()
    assert units_away(run(name, [x]), RIGHT[name](x.double())).max() <= 0.51


@pytest.mark.parametrize("name", ("rsqrt", "hardsigmoid", "hardswish"))
def test_right_to_two_units(name: str) -> None:
    x = whole_range()
    x = x[~(x > 1e37)]  # hardswish multiplies before it divides, as torch does
    right = {"rsqrt": torch.rsqrt, "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish}[name]
    assert units_away(run(name, [x]), right(x.double())).max() <= 2


@pytest.mark.parametrize("name", ("sigmoid", "tanh"))
def test_the_gates_of_cells_are_right_to_five_units_or_two_times_the_least_normal_number(name: str) -> None:
    x = whole_range()
    want = getattr(torch, name)(x.double())
    got = run(name, [x])
    assert torch.where((got.double() - want).abs() < 2.4e-38, 0.0, units_away(got, want)).max() <= 5


def test_functions_with_numbers_are_right() -> None:
    x = whole_range()
    v = x.double()
    alpha, scale = (float(torch.tensor(n)) for n in (1.3, 1.05))
    cases = [
        ("leaky_relu", [0.25], F.leaky_relu(v, 0.25)),
        ("clamp", [-1.5, 2.5], v.clamp(-1.5, 2.5)),
        ("elu", [alpha, scale, 1.0], torch.where(v > 0, scale * v, scale * alpha * v.expm1())),
        ("softplus", [1.0, 20.0], F.softplus(v)),
        ("softplus", [0.5, 3.0], F.softplus(v, 0.5, 3.0)),
    ]
    for name, given, want in cases:
        assert units_away(run(name, [x], given), want).max() <= 0.51, name


def test_powers_are_right_and_have_the_corners_of_c() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(20_000).exp(), torch.randn(20_000) * 3, torch.randn(20_000).exp() ** 8])
    y = torch.cat([torch.randn(20_000) * 4, torch.randint(-9, 10, (20_000,)).float(), torch.randn(20_000)])
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, torch.inf, -torch.inf, torch.nan, 1e-45])
    x = torch.cat([x, special.repeat_interleave(len(special))])
    y = torch.cat([y, special.repeat(len(special))])
    assert units_away(run("power", [x, y]), x.double().pow(y.double())).max() <= 0.6


def test_comparisons_know_nan() -> None:
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan])
    x, y = special.repeat_interleave(len(special)), special.repeat(len(special))
    for name, want in (("gt", x > y), ("ge", x >= y), ("eq", x == y), ("ne", x != y)):
        assert torch.equal(run(name, [x, y]) != 0, want), name
    for name in ("maximum", "minimum"):
        got, want = run(name, [x, y]), getattr(torch, name)(x, y)
        assert torch.equal(got.nan_to_num(nan=9.0), want.nan_to_num(nan=9.0)), name
