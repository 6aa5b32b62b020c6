"""What each kind of operation becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from ..operations import BINARY, UNARY
from ..program import INT, STATE, Operation, Program, View
from . import convolutions, elementwise, matrices, moves, recurrent, rows
from .code import CLOCK, CannotCompile, Code

_MOVES = ("copy", "before", "push", "pick")
RING_BYTES = 2048  # memories of past steps that are longer are not moved at each step: a window moves over them


def _pick(code: Code, operation: Operation) -> None:
    view = operation.inputs[0]
    assert isinstance(view, View)
    moves.pick(code, code.operand(view), code.operand(operation.outputs[0]), operation.options["index"])


def _copy(code: Code, operation: Operation) -> None:
    to = code.operand(operation.outputs[0])
    moves.copy(code, code.input(operation.inputs[0], to.shape), to)  # type: ignore[arg-type]


def _before(code: Code, operation: Operation) -> None:
    x_view, start = operation.inputs
    to, until = code.operand(operation.outputs[0]), operation.options["until"]
    x = code.input(x_view, to.shape)  # type: ignore[arg-type]
    if until <= 0:
        moves.copy(code, x, to)
        return
    rows = code.operand(start) if isinstance(start, View) else code.constant(torch.full(to.shape, float(start or 0.0)))
    same = []
    for operand, shape in ((x, to.shape), (rows, rows.shape)):
        if (operand.dtype == INT) != (to.dtype == INT):
            made = code.temporary(shape, to.dtype)
            moves.copy(code, operand, made)
            operand = made
        same.append(moves.without_gaps(code, operand))
    made = to if to.flat else code.temporary(to.shape, to.dtype)
    row = same[1].steps[0] if isinstance(start, View) else 0
    code.call(
        "kernels.steps.before", CLOCK, until, operation.clock.first, operation.clock.every, same[0].at, same[1].at,
        row, made.at, to.size * to.item // 4,
    )  # fmt: skip
    if made is not to:
        moves.copy(code, made, to)


def _lookup(code: Code, operation: Operation) -> None:
    tokens_view, weight = operation.inputs
    assert isinstance(tokens_view, View) and isinstance(weight, View)
    tokens = code.operand(tokens_view)
    if tokens_view.buffer not in code.checked:  # numbers that the model computes: a table has no other rows
        numbers, inside = code.temporary(tokens.shape), code.temporary(tokens.shape)
        moves.copy(code, tokens, numbers)
        elementwise.apply(code, "clamp", [numbers], inside, [0.0, float(weight.shape[0] - 1)])
        tokens = code.temporary(tokens.shape, INT)
        moves.copy(code, inside, tokens)
    moves.lookup(code, tokens, code.operand(weight), code.operand(operation.outputs[0]))


LOWER: Mapping[str, Callable[[Code, Operation], None]] = MappingProxyType({
    **dict.fromkeys([*UNARY, *BINARY, "where"], elementwise.elementwise),
    "copy": _copy,
    "before": _before,
    **dict.fromkeys(("sum", "mean", "amax", "amin", "prod"), rows.reduce),
    **dict.fromkeys(("softmax", "log_softmax"), rows.softmax),
    "normalise": rows.normalise,
    "linear": matrices.linear,
    "matmul": matrices.matmul,
    "recurrent": recurrent.recurrent,
    "conv": convolutions.conv,
    "conv_transpose": convolutions.conv_transpose,
    **dict.fromkeys(("avg_pool", "max_pool"), convolutions.pool),
    "pick": _pick,
    "lookup": _lookup,
})  # fmt: skip


def lower(program: Program, code: Code) -> frozenset[str]:
    """All operations of `program` as calls; gives the states that a window moves over."""
    rings = frozenset(o.outputs[0].buffer for o in program.operations if o.kind == "push" and _is_ring(program, o))
    for operation in program.operations:
        code.clock = operation.clock
        if operation.kind == "push":
            row, (to,) = operation.inputs[0], map(code.operand, operation.outputs)
            moves.push(code, code.input(row, to.shape[1:]), to, operation.outputs[0].buffer in rings)  # type: ignore[arg-type]
        elif operation.kind in LOWER:
            LOWER[operation.kind](code, operation)
        else:
            raise CannotCompile(operation.kind)
    return rings


def _is_ring(program: Program, push: Operation) -> bool:
    """Whether all of a long state is a memory of past steps, and nothing else writes to it."""
    (view,) = push.outputs
    buffer = program.buffers[view.buffer]
    writers = [o for o in program.operations if any(v.buffer == view.buffer for v in o.outputs)]
    whole = view.contiguous and view.size == buffer.size and buffer.kind == STATE and buffer.dtype == "float"
    return whole and len(writers) == 1 and 4 * buffer.size > RING_BYTES


def tokens_to_check(program: Program) -> tuple[list[tuple[str, int]], set[str]]:
    """Input buffers whose numbers are looked up in tables, now or later, and the rows of the smallest of those; and all
    buffers that hold nothing but such numbers."""
    found: list[tuple[str, int]] = []
    checked: set[str] = set()
    for port in program.inputs:
        same, rows = {port.view.buffer}, []
        for o in [*program.operations, *program.operations]:
            read = [v for v in o.inputs if isinstance(v, View) and v.buffer in same]
            if read and o.kind in _MOVES:
                same |= {v.buffer for v in o.outputs if program.buffers[v.buffer].dtype == INT}
            table = o.inputs[1] if o.kind == "lookup" else None
            if read and isinstance(table, View) and read[0] is o.inputs[0]:
                rows.append(table.shape[0])
        if rows:
            found.append((port.view.buffer, min(rows)))
            checked |= same
    for o in program.operations:
        if o.kind not in _MOVES or any(isinstance(v, View) and v.buffer not in checked for v in o.inputs[:1]):
            checked -= {v.buffer for v in o.outputs}
    return found, checked
