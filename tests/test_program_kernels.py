"""Every kind of operation, compiled, gives what torch defines it by: at several shapes and strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from program_cases import error, one_operation
from sparsernn.runtime.program.operations import BINARY, OPERATIONS, UNARY

NEAR = 1e-5


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).float().double() * 1.5


def transposed(*shape: int) -> Tensor:
    return numbers(*shape[::-1]).permute(*reversed(range(len(shape))))


def sliced(*shape: int) -> Tensor:
    return numbers(*(n + 3 for n in shape))[tuple(slice(2, 2 + n) for n in shape)]


def spread(*shape: int) -> Tensor:
    return numbers(*(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]


def expanded_first(*shape: int) -> Tensor:
    return numbers(1, *shape[1:]).expand(shape)


def expanded_last(*shape: int) -> Tensor:
    return numbers(*shape[:-1], 1).expand(shape)


LAID = [numbers, transposed, sliced, spread, expanded_first, expanded_last]
SHAPES = [(1, 1), (1, 16), (3, 5), (1, 70), (3, 33), (2, 3, 17), (3, 1, 4, 5)]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "elu": [{"alpha": 1.3, "scale": 1.05, "input_scale": 0.7}],
    "leaky_relu": [{"negative_slope": 0.2}],
    "clamp": [{"min": -0.5, "max": 0.25}, {"min": None, "max": 1.0}, {"min": 0.0, "max": None}],
    "softplus": [{"beta": 2.0, "threshold": 3.0}, {"beta": 1.0, "threshold": 20.0}],
}
POSITIVE = {"log", "log1p", "sqrt", "rsqrt", "pow"}


def check(kind: str, make: Callable[[], list[Any]], options: dict[str, Any], constants: Any, laid: str) -> None:
    program, given = one_operation(kind, make(), options, constants, laid)
    again = [x if x.dtype == torch.int64 else x.roll(1) for x in given]
    assert error(program, [given, again, given]) <= NEAR


@pytest.mark.parametrize("kind", UNARY)
def test_functions_of_one(kind: str) -> None:
    torch.manual_seed(0)
    for options in OPTIONS.get(kind, [{}]):
        for n, shape in enumerate(SHAPES):
            for m, lay in enumerate(LAID):
                x = lay(*shape)
                x = x.abs() if kind in POSITIVE and lay in (numbers, expanded_first, expanded_last) else x
                x = (x > 0) if kind == "logical_not" else x
                laid = ("plain", "turned", "inside")[(n + m) % 3]
                check(kind, lambda x=x: [x], options, (), laid)


@pytest.mark.parametrize("kind", BINARY)
def test_functions_of_two(kind: str) -> None:
    torch.manual_seed(1)
    for n, shape in enumerate(SHAPES):
        for m, first in enumerate(LAID):
            for k, second in enumerate((LAID[m], numbers, LAID[(n + m) % 6])):
                x, y = first(*shape), second(*shape)
                if kind == "pow":
                    x = x.abs() + 0.1
                if kind.startswith("logical"):
                    x, y = x > 0, y > 0.5
                laid = ("plain", "turned", "inside")[(n + m + k) % 3]
                check(kind, lambda x=x, y=y: [x, y], {}, (1,) if k == 2 else (), laid)
    if not kind.startswith("logical") and kind not in ("maximum", "minimum"):  # torch has those of tensors alone
        for number in (2.0, 0.5, -1.0, 3.0):
            check(kind, lambda number=number: [numbers(3, 18).abs() + 0.1, number], {}, (), "plain")


def test_numbers_come_first_as_well() -> None:
    for kind in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
        check(kind, lambda: [1.5, numbers(2, 19).abs() + 0.1], {}, (), "inside")


def test_where_takes_truths_and_numbers() -> None:
    torch.manual_seed(2)
    for n, shape in enumerate(SHAPES):
        for lay in LAID:
            laid = ("plain", "turned", "inside")[n % 3]
            check("where", lambda shape=shape, lay=lay: [lay(*shape) > 0, numbers(*shape), lay(*shape)], {}, (), laid)
    check("where", lambda: [numbers(2, 9) > 0, numbers(2, 9), 3.0], {}, (), "plain")
    check("where", lambda: [numbers(2, 9) > 0, 2.0, 3.0], {}, (), "plain")


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "sum", "mean", "amax", "amin", "prod", "normalise"])
def test_along_the_last_axes(kind: str) -> None:
    torch.manual_seed(3)
    for n, shape in enumerate(SHAPES):
        for lay in LAID:
            laid = ("plain", "turned", "inside")[n % 3]
            if kind == "normalise":
                for axes, rms in ((1, False), (len(shape) - 1, True), (len(shape), False)):
                    own = shape[len(shape) - axes :]
                    options = {"axes": axes, "eps": 1e-5, "rms": rms}
                    inputs = [lay(*shape), numbers(*own) if axes % 2 else None, transposed(*own)]
                    check(kind, lambda inputs=inputs: inputs, options, (1, 2), laid)
            elif kind.endswith("softmax"):
                check(kind, lambda lay=lay, shape=shape: [lay(*shape)], {}, (), laid)
            else:
                for axes in range(1, len(shape) + 1):
                    check(kind, lambda lay=lay, shape=shape: [lay(*shape)], {"axes": axes}, (), laid)


def test_masked_places_have_no_share() -> None:
    x = numbers(3, 21)
    x[:, 5:] = -torch.inf
    check("softmax", lambda: [x], {}, (), "plain")


@pytest.mark.parametrize("batch", (1, 3))
def test_linear(batch: int) -> None:
    torch.manual_seed(4)
    for shape in ((batch, 1), (batch, 5), (batch, 40), (batch, 2, 19), (batch, 4, 3, 7)):
        for n, lay in enumerate(LAID):
            for out in (1, 8, 16, 33):
                laid = ("plain", "turned", "inside")[(n + out) % 3]
                inputs = [lay(*shape), numbers(out, shape[-1]), numbers(out) if out % 2 else None]
                check("linear", lambda inputs=inputs: inputs, {}, (1, 2) if n else (), laid)


def test_linear_on_overlapping_rows() -> None:
    x = numbers(40)
    check("linear", lambda: [x.unfold(0, 7, 3), numbers(20, 7), numbers(20)], {}, (1, 2), "plain")


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("mode", ("LSTM", "GRU", "RNN_TANH", "RNN_RELU"))
def test_recurrent(mode: str, batch: int) -> None:
    torch.manual_seed(5)
    gates = {"LSTM": 4, "GRU": 3}.get(mode, 1)
    for hidden, features, projected in ((16, 3, 0), (5, 20, 0), (33, 7, 0), (24, 9, 5), (7, 4, 16)):
        if projected and mode != "LSTM":
            continue
        width = projected or hidden
        weights = [numbers(gates * hidden, features) / 4, numbers(gates * hidden, width) / 4, numbers(gates * hidden)]
        for n, lay in enumerate((numbers, transposed, sliced)):
            bias = numbers(gates * hidden) if n else None
            hr = numbers(projected, hidden) if projected else None
            states = [lay(batch, width), *([lay(batch, hidden)] if mode == "LSTM" else [])]
            inputs = [lay(batch, features), *weights, bias, hr, *states]
            laid = ("plain", "turned", "inside")[n]
            check("recurrent", lambda inputs=inputs: inputs, {"mode": mode}, (1, 2, 3, 4, 5), laid)


def test_matmul() -> None:
    torch.manual_seed(6)
    shapes = [
        ((3, 4), (4, 5)),
        ((1, 20), (20, 1)),
        ((6, 1), (1, 18)),
        ((2, 3, 7), (2, 7, 40)),
        ((2, 3, 1, 9), (2, 3, 9, 4)),
    ]
    for n, (a, b) in enumerate(shapes):
        for lay in LAID[:5]:
            for other in LAID[:5]:
                for constants in ((), (1,)):
                    laid = ("plain", "turned", "inside")[n % 3]
                    inputs = [lay(*a), other(*b)]
                    check("matmul", lambda inputs=inputs: inputs, {}, constants, laid)


CONVOLUTIONS = [
    ((5, 3), (7, 5, 3), {}),
    ((20, 9), (16, 20, 3), {"dilation": 3}),
    ((20, 3), (33, 20, 3), {}),
    ((6, 30), (6, 1, 5), {"groups": 6, "padding": 2}),
    ((24, 4), (24, 1, 4), {"groups": 24}),
    ((8, 12), (12, 4, 3), {"groups": 2, "stride": 2, "padding": 1}),
    ((3, 2, 40), (5, 3, 2, 3), {"stride": (1, 2), "padding": (0, 1)}),
    ((3, 2, 9), (4, 3, 2, 4), {"stride": 1, "padding": (0, 2), "dilation": (1, 2)}),
    ((2, 3, 4, 20), (3, 2, 2, 2, 3), {"padding": (0, 1, 1)}),
]  # fmt: skip


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("case", range(len(CONVOLUTIONS)))
def test_convolutions(case: int, batch: int) -> None:
    torch.manual_seed(7)
    shape, weight, options = CONVOLUTIONS[case]
    for n, lay in enumerate(LAID):
        laid = ("plain", "turned", "inside")[n % 3]
        inputs = [lay(batch, *shape), numbers(*weight) / 4, numbers(weight[0]) if n % 2 else None]
        check("conv", lambda inputs=inputs: inputs, options, (1, 2), laid)
    channels_last = numbers(batch, *shape[1:], shape[0]).movedim(-1, 1)
    check("conv", lambda: [channels_last, numbers(*weight), numbers(weight[0])], options, (1, 2), "plain")


TRANSPOSED = [
    ((5, 3), (5, 7, 3), {}),
    ((4, 6), (4, 3, 4), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    ((3, 2, 20), (3, 5, 2, 3), {"stride": (1, 2), "padding": (1, 0)}),
    ((3, 2, 9), (3, 2, 2, 3), {"stride": (1, 3), "dilation": (1, 2), "output_padding": (0, 1)}),
]


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("case", range(len(TRANSPOSED)))
def test_transposed_convolutions(case: int, batch: int) -> None:
    torch.manual_seed(8)
    shape, weight, options = TRANSPOSED[case]
    for n, lay in enumerate(LAID):
        laid = ("plain", "turned", "inside")[n % 3]
        bias = numbers(weight[1] * options.get("groups", 1)) if n % 2 else None
        check("conv_transpose", lambda lay=lay, bias=bias: [lay(batch, *shape), numbers(*weight) / 4, bias],
              options, (1, 2), laid)  # fmt: skip


POOLS = [
    ((4, 12), {"kernel": 3}),
    ((4, 40), {"kernel": (2,), "stride": (1,), "padding": 1}),
    ((3, 7, 9), {"kernel": (2, 3), "stride": (2, 2), "ceil_mode": True}),
    ((3, 5, 36), {"kernel": 2, "padding": 1}),
]


@pytest.mark.parametrize("kind", ("avg_pool", "max_pool"))
def test_pools(kind: str) -> None:
    torch.manual_seed(9)
    for n, (shape, options) in enumerate(POOLS):
        for m, lay in enumerate(LAID):
            laid = ("plain", "turned", "inside")[(n + m) % 3]
            more = {"count_include_pad": m % 2 == 0} if kind == "avg_pool" else {}
            check(kind, lambda lay=lay, shape=shape: [lay(2, *shape)], {**options, **more}, (), laid)
    check("max_pool", lambda: [numbers(1, 2, 20)], {"kernel": 3, "dilation": 2, "stride": 1}, (), "plain")


def test_rows_by_number() -> None:
    torch.manual_seed(10)
    for lay in LAID:
        for index in ([0], [2, 1, 0], [0, 2, 4], [3, 1, 4, 1], [-1]):
            for laid in ("plain", "turned", "inside"):
                check("pick", lambda lay=lay: [lay(5, 2, 3)], {"index": index}, (), laid)
                check("pick", lambda lay=lay: [lay(5, 18)], {"index": index}, (), laid)
    check("pick", lambda: [torch.arange(12).view(4, 3)], {"index": [3, 0, 1]}, (), "plain")


def test_lookup() -> None:
    torch.manual_seed(11)
    for shape in ((1,), (3,), (2, 5)):
        for width in (3, 16, 40):
            for laid in ("plain", "turned", "inside"):
                for lay in (numbers, transposed):
                    tokens = torch.randint(9, shape)
                    check("lookup", lambda tokens=tokens, lay=lay, width=width: [tokens, lay(9, width)], {}, (1,), laid)


def test_whole_numbers_count_and_compare() -> None:
    tokens = torch.arange(6).view(2, 3)
    for kind in ("add", "sub", "mul", "maximum", "minimum", "gt", "le", "eq"):
        check(kind, lambda kind=kind: [tokens, tokens.flip(0).contiguous()], {}, (), "inside")
    check("copy", lambda: [tokens.T], {}, (), "plain")
    check("mul", lambda: [tokens, numbers(2, 3)], {}, (), "plain")


def test_every_kind_is_tried() -> None:
    """`push` and `before` are tried in programs of several steps."""
    here = {*UNARY, *BINARY, "where", "softmax", "log_softmax", "sum", "mean", "amax", "amin", "prod", "normalise",
            "linear", "recurrent", "matmul", "conv", "conv_transpose", "avg_pool", "max_pool", "pick",
            "lookup"}  # fmt: skip
    assert here | {"push", "before"} == set(OPERATIONS)
