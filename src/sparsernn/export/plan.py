"""From a step program to a plan: its operations in C's steps, its ports as the arguments of a C function."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.program.program import INT, Clock, Operation, Port, Program, View
from .identifiers import identifiers
from .lowering import Argument, Lowering, Plan, Refused, Timed
from .maps import copy
from .places import row_major
from .rules import RULES


def lower(program: Program, precision: str = "float32", limits: Sequence[float] | None = None) -> Plan:
    """The plan of `program`; raises Refused for what C lacks. limits: of calibration.py."""
    inputs, outputs = _names(program.inputs, "x"), _names(program.outputs, "y")
    names = identifiers([*inputs, *outputs])
    direct = {p.view.buffer: n for p, n in zip(program.inputs, names) if _whole(program, p)}
    low = Lowering(program, precision, direct, limits)
    arguments = [_argument(low, p, n) for p, n in zip([*program.inputs, *program.outputs], names)]
    read, written = arguments[: len(inputs)], arguments[len(inputs) :]
    moved = [copy(a.place, a.inside) for a in read if a.place != a.inside]
    timed = [Timed(Clock(), "input", tuple(moved))] if moved else []
    timed += [_lowered(low, o) for o in program.operations]
    adds = sum(matrix.multiply_adds * times for matrix, times in low.matrices)
    return Plan(program, timed, low.tables, low.sizes, low.start(), read, written, _bounds(program), adds)


def _lowered(low: Lowering, o: Operation) -> Timed:
    where = f" ({o.source})" if o.source else ""
    if o.kind not in RULES:
        raise Refused(f"{o.kind}{where} has no form in C yet; accelerate(model).stream(...) runs it.")
    try:
        return low.done(o, RULES[o.kind](low, o))
    except Refused as refused:
        raise Refused(f"{o.kind}{where} can't be written in C: {refused}.") from None
    except TypeError as error:  # an option that the formula doesn't have
        if "keyword argument" not in str(error):
            raise
        options = ", ".join(f"{k}={v}" for k, v in o.options.items())
        raise Refused(f"{o.kind}{where} with {options} has no form in C yet.") from None


def _names(ports: tuple[Port, ...], single: str) -> list[str]:
    return [single] if len(ports) == 1 else [port.name for port in ports]


def _argument(low: Lowering, port: Port, name: str) -> Argument:
    dtype = low.program.buffers[port.view.buffer].dtype
    return Argument(port, row_major(name, port.view.shape, 0, dtype), low.place(port.view))


def _whole(program: Program, port: Port) -> bool:
    """Whether an input's buffer is just what the caller hands over."""
    view = port.view
    return view.contiguous and view.offset == 0 and view.size == program.buffers[view.buffer].size


def _bounds(program: Program) -> dict[str, int]:
    """For each input of integers how many rows the smallest table has that they reach, through whatever copies."""
    bounds: dict[str, int] = {}
    for port in program.inputs:
        if program.buffers[port.view.buffer].dtype != INT:
            continue
        reached, before = {port.view.buffer}, set()
        while reached != before:
            before = set(reached)
            for o in program.operations:
                if any(isinstance(v, View) and v.buffer in before for v in o.inputs):
                    reached |= {v.buffer for v in o.outputs if program.buffers[v.buffer].dtype == INT}
        looked = [o.inputs for o in program.operations if o.kind == "lookup"]
        tables = [table.shape[0] for tokens, table in looked
                  if isinstance(tokens, View) and isinstance(table, View) and tokens.buffer in reached]  # fmt: skip
        if tables:
            bounds[port.view.buffer] = min(tables)
    return bounds
