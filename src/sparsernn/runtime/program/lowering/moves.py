"""Copies, memories of past steps, rows by number."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from ..program import BOOL, INT
from .axes import Axis, together
from .code import CannotCompile, Code, Operand

AXES = 5  # that the strided kernel walks


def copy(code: Code, source: Operand, to: Operand, keep_order: bool = False) -> None:
    """All of `source` to `to`, of the same shape."""
    if (source.dtype == INT) != (to.dtype == INT):
        _converted(code, source, to)
        return
    if source.dtype != BOOL and to.dtype == BOOL:
        truth(code, source, to)
        return
    axes = together(source.shape, [source.steps, to.steps], keep_order)
    item = source.item
    if len(axes) == 1 and axes[0][1] == (4, 4):
        code.call("kernels.moves.flat", source.at, to.at, axes[0][0])
        return
    _walk(code, "kernels.moves.longs" if item == 8 else "kernels.moves.strided", source, to, axes)


def _walk(code: Code, kernel: str, source: Operand, to: Operand, axes: list[Axis]) -> None:
    if len(axes) > AXES:
        (size, (step, to_step)), *rest = axes
        for n in range(size):
            _walk(code, kernel, _moved(source, n * step), _moved(to, n * to_step), rest)
        return
    full = [(1, (0, 0))] * (AXES - len(axes)) + axes
    if not axes:
        full[-1] = (1, (source.item, source.item))
    sizes, steps = [size for size, _ in full], [step for _, step in full]
    code.call(kernel, source.at, to.at, *sizes, *(s for s, _ in steps), *(s for _, s in steps))


def _moved(operand: Operand, more: int) -> Operand:
    return Operand(operand.at + more, operand.shape, operand.steps, operand.dtype)


def _converted(code: Code, source: Operand, to: Operand) -> None:
    """Whole numbers to others, exact up to 2^24, and back."""
    flat = without_gaps(code, source)
    made = to if to.flat else code.temporary(to.shape, to.dtype)
    code.call("kernels.moves.floats" if source.dtype == INT else "kernels.moves.whole", flat.at, made.at, source.size)
    if to.dtype == BOOL:
        truth(code, made, made)
    if made is not to:
        copy(code, made, to)


def truth(code: Code, source: Operand, to: Operand) -> None:
    """1 where `source` is not 0."""
    flat, made = without_gaps(code, source), to if to.flat else code.temporary(to.shape, to.dtype)
    code.call("kernels.elementwise.truth", 1, flat.size, made.at, 0, flat.at, 0)
    if made is not to:
        copy(code, made, to)


def without_gaps(code: Code, operand: Operand) -> Operand:
    """The operand itself, or a copy of it, in the order of its shape; of a constant one made beforehand."""
    if operand.flat:
        return operand
    value = code.known(operand)
    if value is not None:
        return code.constant(value)
    made = code.temporary(operand.shape, operand.dtype)
    copy(code, operand, made)
    return made


def as_numbers(code: Code, operand: Operand) -> Operand:
    """Whole numbers as float32."""
    if operand.dtype != INT:
        return operand
    value = code.known(operand)
    if value is not None:
        return code.constant(value.double())
    made = code.temporary(operand.shape)
    copy(code, operand, made)
    return made


def push(code: Code, row: Operand, rows: Operand, ring: bool) -> None:
    """A new last row; `ring`: rows have memory for twice as many, and a window moves over them."""
    count, width = rows.shape[0], row.size
    if (row.dtype == INT) != (rows.dtype == INT):
        made = code.temporary(row.shape, rows.dtype)
        copy(code, row, made)
        row = made
    if ring:
        # Where the addresses stand is known only when everything is linked.
        code.call("kernels.moves.ring", without_gaps(code, row).at, rows.at, count, width, 0, 0, 0)
    elif rows.flat:
        kernel = "kernels.moves.push_longs" if rows.dtype == INT else "kernels.moves.push"
        code.call(kernel, without_gaps(code, row).at, rows.at, count, width)
    else:
        if count > 1:
            shape = (count - 1, *rows.shape[1:])
            later = Operand(rows.at + rows.steps[0], shape, rows.steps, rows.dtype)
            # In the order of the rows, so that each is read before it is written over.
            copy(code, later, Operand(rows.at, shape, rows.steps, rows.dtype), keep_order=True)
        copy(code, row, rows.part(0, count - 1))


def pick(code: Code, source: Operand, to: Operand, index: Any) -> None:
    numbers = [int(n) % source.shape[0] for n in index]
    apart = {b - a for a, b in pairwise(numbers)}
    if len(apart) <= 1:
        step = apart.pop() if apart else 0
        shown = Operand(
            source.at + numbers[0] * source.steps[0], to.shape, (step * source.steps[0], *source.steps[1:]),
            source.dtype, constant=source.constant,
        )  # fmt: skip
        copy(code, shown, to)
    elif source.dtype == INT or to.dtype == INT:
        for n, number in enumerate(numbers):
            copy(code, source.part(0, number), to.part(0, n))
    else:
        flat, made = without_gaps(code, source), to if to.flat else code.temporary(to.shape)
        begins = torch.tensor(numbers, dtype=torch.int64, device="cpu") * flat.steps[0]
        width = to.size // len(numbers)
        code.call("kernels.moves.pick", flat.at, made.at, len(numbers), begins, width)
        if made is not to:
            copy(code, made, to)


def lookup(code: Code, tokens: Operand, weight: Operand, to: Operand) -> None:
    """Rows of a table; that the tokens are rows of it was looked at when they came."""
    if tokens.dtype != INT:
        raise CannotCompile("lookup by numbers that are not whole")
    flat, table = without_gaps(code, tokens), without_gaps(code, weight)
    width = weight.shape[1]
    made = to if to.flat else code.temporary(to.shape)
    code.call("chain.lookup", flat.at, flat.size, table.at, width, made.at, width * 4)
    if made is not to:
        copy(code, made, to)
