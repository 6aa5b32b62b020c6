"""Takes out of a program what its outputs do not need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .interpreter import Interpreter
from .operations import BINARY, UNARY
from .program import CONSTANT, INPUT, STATE, WORK, Buffer, Operation, Port, Program, View, crossing, whole


def without_dead(program: Program) -> Program:
    """Without operations and buffers that no output depends on."""
    live = {p.view.buffer for p in program.outputs}
    count = -1
    while count != len(live):  # states are read in the next step: once round is not enough
        count = len(live)
        for o in reversed(program.operations):
            if any(v.buffer in live for v in o.outputs):
                live |= {v.buffer for v in o.views()}
    operations = tuple(o for o in program.operations if any(v.buffer in live for v in o.outputs))
    used = live | {p.view.buffer for p in program.inputs}
    buffers = {n: b for n, b in program.buffers.items() if n in used}
    states = tuple(p for p in program.states if p.view.buffer in buffers)
    return replace(program, operations=operations, buffers=buffers, states=states)


def started(program: Program) -> Program:
    """With the steps before zero done: their contents are the states' values.

    Those steps know constants alone, so they are the same for every sequence. A buffer that is not written at each
    step becomes a state, since step 0 may read what a step before it left.
    """
    first = min((o.clock.first for o in program.operations), default=0)
    if first >= 0:
        return program
    before = Interpreter(program)
    for number in range(first, 0):
        before.run(number)
    rare = {v.buffer for o in program.operations if o.clock.every > 1 for v in o.outputs}
    buffers = {name: _after(b, before, name in rare) for name, b in program.buffers.items()}
    new = [
        Port(n, whole(n, (b.size,))) for n, b in buffers.items() if b.kind == STATE and program.buffers[n].kind == WORK
    ]
    return replace(program, buffers=buffers, states=(*program.states, *new))


def _after(buffer: Buffer, run: Interpreter, rare: bool) -> Buffer:
    if buffer.kind in (CONSTANT, INPUT) or (buffer.kind == WORK and not rare):
        return buffer
    return replace(buffer, kind=STATE, value=run.flat(buffer.name).clone())


def reach(operations: Sequence[Operation]) -> int:
    """How many steps lie between the first and the last start of an operation."""
    starts = [o.clock.first for o in operations]
    return max(starts, default=0) - min(starts, default=0)


def in_place(program: Program) -> Program:
    """A cell's new state is written over the old one where nobody reads the old one later: the copy is left out."""
    program = without_dead(program)
    operations = list(program.operations)
    for copy in [o for o in operations if o.kind == "copy" and isinstance(o.inputs[0], View)]:
        source, target = next(copy.views()), copy.outputs[0]
        makers = [o for o in operations if source in o.outputs]
        if len(makers) != 1 or makers[0].kind != "recurrent" or program.buffers[target.buffer].kind != STATE:
            continue
        maker = makers[0]
        mine = [o for o in operations if any(v.buffer == source.buffer for v in o.views())]
        exact = all(v == source for o in mine for v in o.views() if v.buffer == source.buffer)
        at = operations.index(maker)
        later = [o for o in operations[at + 1 :] if o != copy and any(v.buffer == target.buffer for v in o.views())]
        old = [v for v in maker.inputs if isinstance(v, View) and v.buffer == target.buffer]
        if (
            later
            or old != [target]
            or not exact
            or any(p.view.buffer == source.buffer and p.view != source for p in program.outputs)
        ):
            continue
        operations.remove(copy)
        operations = [_renamed(o, source, target) for o in operations]
        outputs = tuple(replace(p, view=target) if p.view == source else p for p in program.outputs)
        program = replace(program, outputs=outputs)
    return without_dead(_written_at_once(replace(program, operations=tuple(operations))))


def _written_at_once(program: Program) -> Program:
    """What an elementwise operation made for a copy alone, which follows it, is written to the copy's place. What was
    copied there just before, and nobody has read, is left out."""
    readers = Counter(name for o in program.operations for name in {v.buffer for v in o.inputs if isinstance(v, View)})
    readers.update(p.view.buffer for p in program.outputs)
    kept: list[Operation] = []
    for o in program.operations:
        if o.kind == "copy" and isinstance(o.inputs[0], View):
            source, target = o.inputs[0], o.outputs[0]
            if kept and source.buffer != target.buffer and _is(kept[-1], "copy", target, o):
                kept.pop()
            made = kept[-1] if kept and program.buffers[source.buffer].kind == WORK else None
            if (
                made
                and readers[source.buffer] == 1
                and source.shape == target.shape
                and _is(made, made.kind, source, o)
            ):
                size = program.buffers[target.buffer].size
                apart = not any(isinstance(v, View) and crossing(v, target, size) for v in made.inputs)
                if apart and (made.kind in UNARY or made.kind in BINARY or made.kind == "where"):
                    o = replace(kept.pop(), outputs=(target,))
        kept.append(o)
    return replace(program, operations=tuple(kept))


def _is(operation: Operation, kind: str, made: View, other: Operation) -> bool:
    """Whether it is of that kind and makes that, whenever the other one is due."""
    return (operation.kind, operation.outputs, operation.clock) == (kind, (made,), other.clock)


def _renamed(operation: Operation, old: View, new: View) -> Operation:
    inputs = tuple(new if v == old else v for v in operation.inputs)
    return replace(operation, inputs=inputs, outputs=tuple(new if v == old else v for v in operation.outputs))
