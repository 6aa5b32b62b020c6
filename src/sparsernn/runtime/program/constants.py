"""Tensors that are written in place later, and those that depend on no input and rise from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .builder import Builder
from .calls import Call, NotAProgram, Ref
from .capture import Capture
from .program import FLOAT, INT, Clock
from .values import SEQUENCE, Value

# Whatever they are given, the result depends on its shape alone.
OF_A_SHAPE = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty")
_VIEWS = ("select", "slice", "narrow", "view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "t", "alias",
          "detach", "unbind", "split", "chunk", "expand", "flatten", "unflatten", "movedim")  # fmt: skip


WRITE_NOTHING = ("detach_", "requires_grad_")


def written(first: Capture, second: Capture) -> set[int]:
    """The calls of the first run, outside of loops, into whose results later ones write."""
    found = [_roots(run.calls) for run in (first, second)]
    if len(found[0]) != len(found[1]):  # a loop makes some of them
        return set()
    return {call for (call, n), m in zip(found[0].items(), found[1].values()) if n == m}  # not those that a loop fills


def asked(run: Capture) -> dict[int, set[int]]:
    """By the id of a call, the parts of its result, but for part 0, that others read or that are outputs."""
    refs = tree_leaves([[list(c.args.values()) for c in run.calls], run.outputs, list(run.changed.values())])
    found: dict[int, set[int]] = {}
    for ref in refs:
        if isinstance(ref, Ref) and ref.part and not ref.input:
            found.setdefault(id(run.calls[ref.call]), set()).add(ref.part)
    return found


def moving(calls: Sequence[Call]) -> set[int]:
    """The calls into whose results, or views of them, something is written that depends on an input."""
    depends: set[int] = set()
    found: set[int] = set()
    for _ in range(2):  # views made before something is written show it as well
        for number, call in enumerate(calls):
            target, *rest = tree_leaves(list(call.args.values())) or [None]
            new = any(isinstance(v, Ref) and (v.input or v.call in depends) for v in rest)
            if call.name.endswith("_") and new and isinstance(root := shown(calls, target), Ref) and not root.input:
                depends.add(root.call)
                found.add(root.call)
            if new or (isinstance(target, Ref) and (target.input or target.call in depends)):
                depends.add(number)
    return found


def written_calls(calls: Sequence[Call]) -> set[int]:
    """The calls into whose results, or views of them, later ones write."""
    return set(_roots(calls))


def _roots(calls: Sequence[Call]) -> dict[int, int]:
    """Calls whose result, or a view of it, is written in place, in their order, and how often it is."""
    count: dict[int, int] = {}
    for call in calls:
        target = next(iter(call.args.values()), None)
        if not call.name.endswith("_") or call.name.split(".")[1] in WRITE_NOTHING:
            continue
        target = shown(calls, target)
        if isinstance(target, Ref) and not target.input:
            count[target.call] = count.get(target.call, 0) + 1
    return dict(sorted(count.items()))


def shown(calls: Sequence[Call], item: Any) -> Any:
    """Whose memory `item` shows, through views and through what writes in place and gives back what it wrote into."""
    while isinstance(item, Ref) and not item.input:
        name = calls[item.call].name.split(".")[1]
        if name not in _VIEWS and not name.endswith("_"):
            break
        item = next(iter(calls[item.call].args.values()))
    return item


def clock_for(steps: tuple[int, int], lengths: tuple[int, int]) -> Clock:
    """When elements come that are known beforehand, so many in both runs: as soon as any other sequence's of that
    length."""
    every, rest = divmod(steps[1] - steps[0], lengths[1] - lengths[0])
    if rest or every < 1:
        raise NotAProgram("a tensor that depends on no input grows faster than the sequence.")
    return Clock(every, -max(lengths[0] - -(-steps[0] // every), 0) * every)


def counted(build: Builder, steps: tuple[int, int], first: Tensor, second: Tensor, axis: int) -> Value | None:
    """A tensor along time that rises evenly, as the number of the step does; None where it does not."""
    start, lengths = first.select(axis, 0), (first.shape[axis], second.shape[axis])
    if first.dtype == torch.bool or lengths[0] < 2:
        return None
    rise = first.select(axis, 1) - start
    for run in (first, second):
        shape = [-1 if n == axis else 1 for n in range(run.dim())]
        number = torch.arange(run.shape[axis], dtype=first.dtype, device=first.device).view(shape)
        if not torch.equal(run, start.unsqueeze(axis) + number * rise.unsqueeze(axis)):
            return None
    clock = clock_for(steps, lengths)
    before, more = (start - rise).double().contiguous(), build.constant(rise.double().contiguous(), "rise")
    state = build.state("number", start.shape, FLOAT, before)
    build.counters.add(build.view(state).buffer)
    build.emit("add", (state, more), (state,), clock)
    value = state if first.is_floating_point() else build.made("copy", (state,), state.shape, clock, INT)
    return Value(SEQUENCE, value.unsqueeze(axis), axis, clock, lengths)
