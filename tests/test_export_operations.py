"""Every operation of step programs in C: the bits of the oracle, which agrees with torch on the same program."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsernn as srn
from export_programs import BOOL, INT, Clock, Sketch, compiled, differing, needs_compiler
from sparsernn.runtime.program.operations import BINARY, OPERATIONS, UNARY
from sparsernn.runtime.program.program import Program, View

pytestmark = needs_compiler
FLAGS = [["-O2"], ["-O3", "-march=native"], ["-O1", "-DPORTABLE"]]
OPTIONS = {
    "elu": {"alpha": 1.2, "scale": 1.05, "input_scale": 0.9},
    "clamp": {"min": -0.5, "max": None},
    "leaky_relu": {"negative_slope": 0.2},
    "softplus": {"beta": 2.0, "threshold": 3.0},
    "gelu": {"approximate": "tanh"},
}
POSITIVE = {"log", "log1p", "sqrt", "rsqrt", "reciprocal"}
CONDITIONS = {"gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not"}


def transposed(view: View) -> View:
    return replace(view, shape=view.shape[::-1], strides=view.strides[::-1])


def unary() -> Program:
    s = Sketch()
    x = s.input(3, 7)
    y = s.made("add", (s.made("mul", (x, x), (3, 7)), 0.1), (3, 7))
    for kind in UNARY:
        if kind not in CONDITIONS:
            s.output(s.made(kind, (y if kind in POSITIVE else x,), (3, 7), **OPTIONS.get(kind, {})))
    s.output(s.made("gelu", (x,), (3, 7)))
    for power in (2, 3.0, -1, 0.5, -0.5):
        s.output(s.made("pow", (y, power), (3, 7)))
    return s.program()


def binary() -> Program:
    s = Sketch()
    x, z = s.input(4, 5, name="x"), s.input(5, 4, name="double")
    y = transposed(z)
    for kind in BINARY:
        dtype = BOOL if kind in CONDITIONS else "float"
        if kind == "pow":
            continue
        if kind.startswith("logical"):
            given = [s.made("gt", (v, 0.3), (4, 5), BOOL) for v in (x, y)]
            s.output(s.made(kind, given, (4, 5), dtype))
            continue
        s.output(s.made(kind, (x, y), (4, 5), dtype))
        s.output(s.made(kind, (x, replace(y, strides=(y.strides[0], 0))), (4, 5), dtype))
        if kind not in ("maximum", "minimum"):
            s.output(s.made(kind, (x, 0.7), (4, 5), dtype))
    condition = s.made("lt", (x, y), (4, 5), BOOL)
    s.output(s.made("where", (condition, x, -1.0), (4, 5)))
    s.output(s.made("where", (condition, 2.0, y), (4, 5)))
    s.output(s.made("copy", (condition,), (4, 5)))
    s.output(s.made("mul", (condition, y), (4, 5)))
    s.output(s.made("logical_not", (condition,), (4, 5), BOOL))
    for kind in ("sub", "div", "maximum"):
        s.output(s.made(kind, (1.5, x), (4, 5)))
    return s.program()


def reductions() -> Program:
    s = Sketch()
    x = s.input(3, 4, 6)
    for kind in ("sum", "mean", "amax", "amin", "prod"):
        s.output(s.made(kind, (x,), (3, 4), axes=1))
        s.output(s.made(kind, (x,), (3,), axes=2))
        s.output(s.made(kind, (replace(x, shape=(6, 4, 3), strides=x.strides[::-1]),), (6,), axes=2))
    for kind in ("softmax", "log_softmax"):
        s.output(s.made(kind, (x,), (3, 4, 6)))
        s.output(s.made(kind, (transposed(x),), (6, 4, 3)))
    return s.program()


def norms() -> Program:
    s = Sketch()
    x = s.input(2, 5, 8)
    weight, bias = torch.randn(8), torch.randn(5, 8)
    s.output(s.made("normalise", (x, s.constant(weight), None), x.shape, axes=1, eps=1e-5, rms=False))
    s.output(s.made("normalise", (x, None, None), x.shape, axes=1, eps=1e-5, rms=True))
    s.output(s.made("normalise", (x, s.constant(bias), s.constant(bias + 1)), x.shape, axes=2, eps=1e-3, rms=False))
    s.output(s.made("normalise", (transposed(x), None, None), (8, 5, 2), axes=2, eps=1e-3, rms=True))
    return s.program()


def rings() -> Program:
    """A causal convolution of 3 taps, an echo of a token, a state that begins with numbers."""
    s = Sketch()
    x, token = s.input(1, 6, name="x"), s.input(1, name="the token", dtype=INT)
    ring = s.state(3, 1, 6, value=torch.randn(3, 1, 6))
    s.emit("push", (x,), (ring,))
    window = replace(ring, shape=(1, 18), strides=(18, 1))
    s.output(s.made("linear", (window, s.constant(torch.randn(20, 18)), s.constant(torch.randn(20))), (1, 20)))
    late = s.buffer("state", (2, 1), INT)
    s.emit("push", (token,), (late,))
    table = s.constant(torch.randn(9, 5))
    s.output(s.made("lookup", (replace(late, shape=(1,), strides=(1,)), table), (1, 5)))
    s.output(s.made("lookup", (token, s.constant(torch.randn(7, 4))), (1, 4)))
    s.output(s.made("pick", (ring,), (2, 1, 6), index=(2, 0)))
    return s.program()


def clocks() -> Program:
    """Every second step, from step 3 on; every third; a value that stays in between."""
    s = Sketch()
    x = s.input(1, 5)
    second, third = Clock(2, 3), Clock(3, -1)
    held = s.buffer("work", (1, 5))
    s.emit("tanh", (x,), (held,), second)
    total = s.state(1, 5)
    s.emit("add", (total, x), (total,), third)
    s.output(held, second)
    s.output(total, third)
    s.output(s.made("mul", (total, 2.0), (1, 5)))
    return s.program()


def products() -> Program:
    s = Sketch()
    x, y = s.input(2, 3, 5, name="x"), s.input(2, 5, 4, name="y")
    s.output(s.made("matmul", (x, y), (2, 3, 4)))
    back = replace(y, shape=(2, 4, 5), strides=(20, 1, 4))
    s.output(s.made("matmul", (x, s.made("copy", (y,), (2, 5, 4))), (2, 3, 4)))
    s.output(s.made("linear", (back, s.constant(torch.randn(17, 5)), None), (2, 4, 17)))
    out = s.buffer("work", (6, 2, 3))
    s.emit("linear", (x, s.constant(torch.randn(6, 5)), None), (replace(out, shape=(2, 3, 6), strides=(3, 1, 6)),))
    s.output(out)
    return s.program()


def convolution(s: Sketch, x: View, channels: int, kernel: tuple[int, ...], groups: int = 1, **given: object) -> View:
    nd = len(kernel)
    options = {"stride": (1,) * nd, "padding": (0,) * nd, "dilation": (1,) * nd, "groups": groups} | given
    weight = torch.randn(channels, x.shape[1] // groups, *kernel)
    bias = torch.randn(channels)
    function = (F.conv1d, F.conv2d)[nd - 1]
    shape = function(torch.zeros(x.shape), weight, bias, **options).shape  # type: ignore[arg-type]
    return s.made("conv", (x, s.constant(weight), s.constant(bias)), tuple(shape), **options)


def windows() -> Program:
    s = Sketch()
    x, plane = s.input(1, 6, 9, name="x"), s.input(2, 4, 3, 8, name="plane")
    s.output(convolution(s, x, 8, (3,), stride=(2,), padding=(1,)))
    s.output(convolution(s, x, 20, (9,)))
    s.output(convolution(s, x, 12, (3,), groups=6, dilation=(2,)))
    s.output(convolution(s, plane, 8, (3, 2), groups=2, padding=(1, 0)))
    s.output(convolution(s, plane, 4, (2, 3), groups=4, stride=(1, 2)))
    s.output(convolution(s, plane, 5, (3, 3), stride=(1, 2), padding=(0, 1)))
    frames = replace(plane, shape=(2, 8, 3, 4), strides=(96, 1, 8, 24))  # channels last in memory
    s.output(convolution(s, frames, 7, (3, 4)))
    for groups in (1, 2):
        weight, bias = torch.randn(4, 6 // groups, 3, 3), torch.randn(6)
        options = {"stride": (1, 2), "padding": (0, 1), "output_padding": (0, 1), "dilation": (1, 1), "groups": groups}
        shape = F.conv_transpose2d(torch.zeros(plane.shape), weight, bias, **options).shape  # type: ignore[arg-type]
        inputs = (plane, s.constant(weight), s.constant(bias))
        s.output(s.made("conv_transpose", inputs, tuple(shape), **options))
    options = {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 1)}
    s.output(s.made("avg_pool", (plane,), (2, 4, 4, 4), **options))
    s.output(s.made("max_pool", (plane,), (2, 4, 4, 4), **options, dilation=(1, 1)))
    return s.program()


PROGRAMS = {f.__name__: f for f in (unary, binary, reductions, norms, rings, clocks, products, windows)}


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    torch.manual_seed(0)
    return {name: make() for name, make in PROGRAMS.items()}


def test_every_operation_gives_the_bits_of_the_oracle(tmp_path, programs):
    assert differing(tmp_path, programs, FLAGS) == {}


def test_every_operation_is_in_one_of_these_programs(programs):
    used = {o.kind for program in programs.values() for o in program.operations}
    assert set(OPERATIONS) - used == {"recurrent", "before"}


class Logarithms(nn.Module):
    """Of numbers of both signs, and of zero; and probabilities that are none in between."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.log(torch.relu(self.head(x)) * torch.sign(x[..., :1]))
        return logs, torch.softmax(torch.cat([logs, x], -1), -1)


@pytest.mark.parametrize("flags", [["-O2", "-march=native"], ["-O1", "-DPORTABLE"]], ids=["vectors", "portable"])
def test_outputs_that_are_infinite_or_no_number_are_compared_as_well(tmp_path, flags):
    torch.manual_seed(0)
    srn.export_c(Logarithms().eval(), tmp_path, example=torch.randn(1, 9, 4))
    text = (tmp_path / "model_test.c").read_text()
    assert "model_NAN" in text and "-model_INF" in text
    assert (
        compiled(tmp_path, ["model"], [*flags, "-fsanitize=undefined", "-fno-sanitize-recover=all"]).model_test() == 0
    )
    (tmp_path / "model_test.c").write_text(text.replace("-model_INF,", "model_INF,", 1))
    assert compiled(tmp_path, ["model"], [*flags, "-g"]).model_test() > 0


def test_a_zero_of_the_other_sign_is_another_number(tmp_path):
    srn.export_c(nn.Sequential(nn.Linear(4, 9), nn.ReLU()).eval(), tmp_path)
    text = (tmp_path / "model_test.c").read_text()
    inputs, expected, rest = text.partition("model_expected_0[")
    assert compiled(tmp_path, ["model"], ["-O2"]).model_test() == 0
    (tmp_path / "model_test.c").write_text(inputs + expected + rest.replace(" 0.0f,", " -0.0f,", 1))
    assert compiled(tmp_path, ["model"], ["-O2", "-g"]).model_test() > 0
