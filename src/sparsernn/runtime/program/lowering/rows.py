"""Operations along the last axes: softmax, sums, norms."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from ..program import Operation, View
from .axes import together
from .code import Code, Operand
from .moves import as_numbers, copy, without_gaps

_NAMES = {"sum": "sum_"}


def reduce(code: Code, operation: Operation) -> None:
    """sum, mean, amax, amin, prod."""
    (to,) = map(code.operand, operation.outputs)
    axes = operation.options["axes"]
    x, made, steps = _rows(code, _input(code, operation), to, axes, 0)
    name = _NAMES.get(operation.kind, operation.kind)
    code.call(f"kernels.rows.{name}", *steps[:2], x.at, steps[2], made.at, steps[3])
    _finish(code, made, to)


def softmax(code: Code, operation: Operation) -> None:
    (to,) = map(code.operand, operation.outputs)
    x, made, steps = _rows(code, _input(code, operation), to, 1, 1)
    code.call(f"kernels.rows.{operation.kind}", *steps[:2], x.at, steps[2], made.at, steps[3])
    _finish(code, made, to)


def normalise(code: Code, operation: Operation) -> None:
    _, weight, bias = operation.inputs
    (to,), axes = map(code.operand, operation.outputs), operation.options["axes"]
    x, made, steps = _rows(code, _input(code, operation), to, axes, axes)
    own: list[Any] = [0 if v is None else without_gaps(code, code.operand(v)).at  # type: ignore[arg-type]
                      for v in (weight, bias)]  # fmt: skip
    eps = operation.options["eps"]
    own += [int(operation.options["rms"]), torch.finfo(torch.float32).eps if eps is None else float(eps)]
    code.call("kernels.rows.normalise", *steps[:2], x.at, steps[2], made.at, steps[3], *own)
    _finish(code, made, to)


def _input(code: Code, operation: Operation) -> Operand:
    view = operation.inputs[0]
    assert isinstance(view, View)
    return as_numbers(code, code.operand(view))


def _finish(code: Code, made: Operand, to: Operand) -> None:
    if made is not to:
        copy(code, made, to)


def _rows(
    code: Code, x: Operand, to: Operand, axes: int, kept: int
) -> tuple[Operand, Operand, tuple[int, int, int, int]]:
    """Input and output as rows of numbers without gaps: rows, numbers in one, bytes from row to row of both.

    axes: the last so many of x are a row; kept: how many of them the output has.
    """
    made = to if _a_row(to, kept) and to.dtype == "float" else code.temporary(to.shape)
    if not _a_row(x, axes):
        x = without_gaps(code, x)
    for again in (False, True):
        if again:
            x = without_gaps(code, x)
        outer = x.shape[: len(x.shape) - axes]
        walked = together(outer, [x.steps[: len(outer)], made.steps[: len(outer)]])
        if len(walked) <= 1:
            break
    else:
        made = code.temporary(to.shape)
        walked = together(outer, [x.steps[: len(outer)], made.steps[: len(outer)]])
    rows, (step, to_step) = walked[0] if walked else (1, (0, 0))
    return x, made, (rows, prod(x.shape[len(outer) :]), step, to_step)


def _a_row(operand: Operand, axes: int) -> bool:
    """Whether its last axes are numbers without gaps."""
    cut = len(operand.shape) - axes
    walked = together(operand.shape[cut:], [operand.steps[cut:]], keep_order=True)
    return not walked or (len(walked) == 1 and walked[0][1] == (4,))
