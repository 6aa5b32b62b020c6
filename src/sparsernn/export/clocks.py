"""Which steps something is due at, in C: the state counts them where that matters."""

from __future__ import annotations

from math import lcm

from ..runtime.program.program import Clock
from .lowering import Plan
from .maps import Before


def due(clock: Clock) -> str:
    """The condition under which a clock is due, "" for each step."""
    first, every = max(clock.first, 0), clock.every
    if every == 1:
        return f"s->number >= {first}u" if first else ""
    first = clock.first if clock.first >= 0 else clock.first % every
    if first == 0:
        return f"s->number % {every}u == 0u"
    return f"s->number >= {first}u && (s->number - {first}u) % {every}u == 0u"


def counted(plan: Plan) -> bool:
    """Whether something is not due at each step, so that steps have to be counted."""
    return _until(plan) > 0 or any(c.every > 1 or c.first > 0 for c in _clocks(plan))


def counting(plan: Plan) -> list[str]:
    """Steps are counted up to a number behind which everything repeats itself, so that no run is too long."""
    clocks = _clocks(plan)
    period = lcm(*(c.every for c in clocks))
    last = max(_until(plan), *(c.first for c in clocks)) + period
    return [f"    if (++s->number == {last}u)", f"        s->number = {last - period}u;"]


def due_function(plan: Plan) -> str:
    conditions = [due(a.port.clock) for a in plan.outputs]
    terms = " | ".join(f"({c or '1'}) << {k}" for k, c in enumerate(conditions))
    return f"int $due(const $state *s)\n{{\n    (void)s;\n    return {terms};\n}}\n"


def _clocks(plan: Plan) -> list[Clock]:
    return [t.clock for t in plan.timed] + [a.port.clock for a in plan.outputs]


def _until(plan: Plan) -> int:
    """The first step from which on no step begins anything any more."""
    return max([0, *(s.until for t in plan.timed for s in t.steps if isinstance(s, Before))])
