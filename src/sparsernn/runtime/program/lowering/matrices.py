"""Products with matrices: known ones packed, as `accelerate` packs them, others as they lie in memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...costs import Matrix
from ...linear import PackedLinear
from ...pack import WIDTH, Arrangement, Packed, unit_rows
from ..program import Operation, View
from .axes import side_by_side, together
from .code import SCRATCH, At, Code, Operand
from .elementwise import apply
from .moves import as_numbers, copy, without_gaps


def linear(code: Code, operation: Operation) -> None:
    x_view, weight_view, bias_view = operation.inputs
    assert isinstance(x_view, View) and isinstance(weight_view, View)
    (to,), x = map(code.operand, operation.outputs), as_numbers(code, code.operand(x_view))
    weight = code.value(weight_view)
    bias = code.value(bias_view) if isinstance(bias_view, View) else None
    if weight is not None and (bias is not None or bias_view is None):
        rows_of(code, x, weight, bias, to)
        return
    other = code.operand(weight_view)
    made = code.temporary((x.size // x.shape[-1], to.shape[-1]))
    flat = without_gaps(code, x)
    rows = flat.shown_as((made.shape[0], x.shape[-1]), (x.shape[-1] * 4, 4))
    multiply(code, rows, replace(other, shape=other.shape[::-1], steps=other.steps[::-1]), made)
    result = made.shown_as(to.shape, side_by_side(to.shape))
    if isinstance(bias_view, View):
        own = code.operand(bias_view)
        wide = own.shown_as(to.shape, (0,) * (len(to.shape) - 1) + own.steps)
        apply(code, "add", [result, wide], to)
    else:
        copy(code, result, to)


def rows_of(code: Code, x: Operand, weight: Tensor, bias: Tensor | None, to: Operand) -> None:
    """to (r, out) = x (r, in) weight (out, in)^T + bias."""
    if x.shape[-1] > 1 and x.steps[-1] != 4:
        x = without_gaps(code, x)
    made = to if (to.shape[-1] == 1 or to.steps[-1] == 4) and to.dtype == "float" else code.temporary(to.shape)
    rows = together(x.shape[:-1], [x.steps[:-1], made.steps[:-1]])
    if len(rows) > 1:
        x = without_gaps(code, x)
        rows = together(x.shape[:-1], [x.steps[:-1], made.steps[:-1]])
    if len(rows) > 1:
        made = code.temporary(to.shape)
        rows = together(x.shape[:-1], [x.steps[:-1], made.steps[:-1]])
    count, (step, to_step) = rows[0] if rows else (1, (0, 0))
    product(code, packed(code, weight, bias, count, made.ends), x.at, step, count, made.at, to_step)
    if made is not to:
        copy(code, made, to)


def packed(code: Code, weight: Tensor, bias: Tensor | None, count: int, free: bool) -> Packed:
    """The product with `weight` (out, in) for `count` rows. free: there is room behind a single row of output, so
    whole vectors may be written."""
    weight = weight.float().contiguous()
    bias = None if bias is None else bias.float()
    if count == 1 and free:
        rows, where = unit_rows(weight.shape[0], 1, (0,), 1)
        start = torch.zeros(rows.numel(), dtype=torch.float32, device="cpu")
        if bias is not None:
            start[: len(bias)] = bias
        matrix = Matrix(weight, Arrangement(rows, where, start, len(start)), code.precision)
        return matrix.packed(matrix.choose(1).layout)
    return PackedLinear(weight, bias, code.precision).product(count)


def adding(code: Code, weight: Tensor, count: int) -> Packed | None:
    """The product that adds to what is there; None where its rows would need padding."""
    if weight.shape[0] % WIDTH:
        return None
    rows, where = unit_rows(weight.shape[0], 1, (0,), 1)
    matrix = Matrix(weight.float().contiguous(), Arrangement(rows, where, None, rows.numel()), code.precision)
    return matrix.packed(matrix.choose(count).layout)


def product(code: Code, matrix: Packed, x: At, step: int, count: int, to: At, to_step: int) -> None:
    code.kept.append(matrix)
    code.scratch = max(code.scratch, matrix.scratch)
    code.call("chain.product", matrix.kernel, matrix.plan, x, step, count, to, to_step, SCRATCH)


def matmul(code: Code, operation: Operation) -> None:
    x_view, y_view = operation.inputs
    assert isinstance(x_view, View) and isinstance(y_view, View)
    (to,) = map(code.operand, operation.outputs)
    x, y = (as_numbers(code, code.operand(v)) for v in (x_view, y_view))
    one = y.part(0, 0) if len(y.shape) == 3 and y.steps[0] == 0 else y
    while len(one.shape) > 2 and (one.shape[0] == 1 or one.steps[0] == 0):
        one = one.part(0, 0)
    known = code.known(one) if len(one.shape) == 2 else None
    if known is not None:
        rows_of(code, x, known.T, None, to)
        return
    multiply(code, x, y, to)


def multiply(code: Code, x: Operand, y: Operand, to: Operand) -> None:
    """to (r, n, m) = x (r, n, k) y (r, k, m)."""
    inner, columns = y.shape[-2:]
    made = to if (columns == 1 or to.steps[-1] == 4) and to.dtype == "float" else code.temporary(to.shape)
    dots = inner > 1 and x.steps[-1] == 4 and y.steps[-2] == 4
    if not dots and columns > 1 and y.steps[-1] != 4:
        y = without_gaps(code, y)
    outer = to.shape[:-2]
    walked = together(outer, [o.steps[:-2] for o in (x, y, made)])
    if len(walked) > 1:
        x, y = without_gaps(code, x), without_gaps(code, y)
        dots = False
        walked = together(outer, [o.steps[:-2] for o in (x, y, made)])
    if len(walked) > 1:
        made = code.temporary(to.shape)
        walked = together(outer, [o.steps[:-2] for o in (x, y, made)])
    count, (x_more, y_more, to_more) = walked[0] if walked else (1, (0, 0, 0))
    y_steps = (y.steps[-1], y.steps[-2]) if dots else (y.steps[-2],)
    code.call(
        f"kernels.taps.{'dots' if dots else 'matmul'}", x.at, x_more, x.steps[-2], x.steps[-1], y.at, y_more,
        y_steps[0], made.at, to_more, made.steps[-2], count, x.shape[-2], inner, columns,
    )  # fmt: skip
    if made is not to:
        copy(code, made, to)
