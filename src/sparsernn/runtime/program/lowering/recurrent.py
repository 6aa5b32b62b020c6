"""One time step of a recurrent layer, on the packed layer and workspace of `accelerate`."""

from __future__ import annotations

from typing import Any

from ...fields import Field
from ...matrices import LayerMatrices
from ...pack import WIDTH
from ...packed_layer import Workspace
from ...weights import LayerWeights
from ..program import Operation, View
from .code import SCRATCH, CannotCompile, Code, Distance, Operand
from .moves import as_numbers, copy, without_gaps


def recurrent(code: Code, operation: Operation) -> None:
    x_view, *views = operation.inputs
    assert isinstance(x_view, View)
    known = [code.value(v) if isinstance(v, View) else None for v in views[:5]]
    if any(value is None and view is not None for value, view in zip(known, views)):
        raise CannotCompile("a recurrent layer whose weights are computed at each step")
    ih, hh, bias_ih, bias_hh, hr = [None if value is None else value.float().contiguous() for value in known]
    assert ih is not None and hh is not None
    weights = LayerWeights(operation.options["mode"], 0, False, ih, hh, bias_ih, bias_hh, hr)
    x = as_numbers(code, code.operand(x_view))
    if x.shape[1] > 1 and x.steps[1] != 4:
        x = without_gaps(code, x)
    states = [code.operand(v) for v in operation.outputs]
    for view, state in zip(views[5:], states):
        assert isinstance(view, View)
        before = code.operand(view)
        if (before.at, before.steps) != (state.at, state.steps):
            copy(code, before, state)
    _layer(code, weights, x, states)


def _layer(code: Code, weights: LayerWeights, x: Operand, states: list[Operand]) -> None:
    rows = x.shape[0]
    # Units keep their order: the states are the program's own, which others may read.
    layer = LayerMatrices(weights, code.precision, resort=False).layer(rows, 1)
    space = Workspace(layer, rows, rows)
    code.kept.append(layer)
    code.scratch = max(code.scratch, layer.scratch)
    fields: list[Any] = list(space.fields)
    fields[Field.STEPS], fields[Field.ROWS] = 1, rows
    fields[Field.X], fields[Field.X_ROW] = x.at, x.steps[0]
    fields[Field.GATES], fields[Field.SCRATCH] = code.temporary((rows, layer.gates_width)).at, SCRATCH
    units, own = -(-weights.hidden_size // WIDTH) * WIDTH, states
    same_rows = rows == 1 or len({state.steps[0] for state in states}) == 1
    if weights.hr is not None or not same_rows or not all(_has_room(state, rows) for state in states):
        own = [code.temporary((rows, units)) for _ in states]
    h, *c = own
    fields[Field.H], fields[Field.STATE_STRIDE] = h.at, h.steps[0]
    if c:
        fields[Field.C] = Distance(h.at, c[0].at)
    if weights.hr is not None:
        width = -(-weights.output_size // WIDTH) * WIDTH
        own = [code.temporary((rows, width)), *c]
    fields[Field.RECURRENT], fields[Field.RECURRENT_STRIDE] = own[0].at, own[0].steps[0]
    pairs = [] if own is states else [(s, mine.shown_as(s.shape, mine.steps)) for s, mine in zip(states, own)]
    for state, mine in pairs:
        copy(code, state, mine)
    code.call("sequence.layer", *fields)
    for state, mine in pairs:
        copy(code, mine, state)


def _has_room(state: Operand, rows: int) -> bool:
    """Whether whole vectors may be written to its rows."""
    width = state.shape[1]
    return (width == 1 or state.steps[1] == 4) and (width % WIDTH == 0 or (rows == 1 and state.ends))
