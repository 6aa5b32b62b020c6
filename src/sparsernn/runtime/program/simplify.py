"""Takes out of a program what its outputs do not need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .interpreter import Interpreter
from .operations import BINARY, UNARY
from .program import CONSTANT, INPUT, STATE, WORK, Buffer, Operation, Port, Program, View, whole


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
            if source.buffer != target.buffer and kept and kept[-1].kind == "copy" and _makes(kept[-1], target, o):
                kept.pop()
            maker = kept[-1] if kept and _makes(kept[-1], source, o) else None
            if maker and readers[source.buffer] == 1 and _may_write(program, maker, source, target):
                o = replace(kept.pop(), outputs=(target,))
        kept.append(o)
    return replace(program, operations=tuple(kept))


def _makes(operation: Operation, made: View, copy: Operation) -> bool:
    """Whether it makes that alone, whenever the copy is due."""
    return operation.outputs == (made,) and operation.clock == copy.clock


def _may_write(program: Program, maker: Operation, source: View, target: View) -> bool:
    """Whether an operation may write to `target` what it has written to `source`: it is elementwise, both are as large
    and of the same numbers, and it reads of the target's memory at most the element that it writes."""
    one, two = program.buffers[source.buffer], program.buffers[target.buffer]
    elementwise = maker.kind in UNARY or maker.kind in BINARY or maker.kind == "where"
    alike = one.kind == WORK and one.dtype == two.dtype and source.shape == target.shape
    return elementwise and alike and not any(isinstance(v, View) and target.crosses(v, two.size) for v in maker.inputs)


def _renamed(operation: Operation, old: View, new: View) -> Operation:
    inputs = tuple(new if v == old else v for v in operation.inputs)
    return replace(operation, inputs=inputs, outputs=tuple(new if v == old else v for v in operation.outputs))
