"""Loops over time in the model's Python: the rounds that both runs repeat become one round with carried values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .calls import Call, NotAProgram, Ref, flat
from .constants import shown, written_calls
from .eliminate import Elimination
from .patterns import Leaf, patterns
from .program import EACH_STEP, INPUT, Clock
from .values import CONST, HELD, NOW, SEQUENCE, Elements, Value
from .windows import begin, delayed, reached

_NO_LOOP = (
    "its operations{where} depend on the length of the sequence in another way than by a loop with one round a step, "
    "all of which do the same: begin with zeros, keep a fixed number of past steps in one tensor, choose by where()."
)


@dataclass(frozen=True)
class Loop:
    """`size` calls a round, from call `start` of the first run and `other` of the second on; `body`: for each call its
    arguments by name. rounds: of both runs."""

    start: int
    other: int
    size: int
    rounds: tuple[int, int]
    body: Sequence[dict[str, Leaf]]


def eliminate(work: Elimination) -> None:
    """All calls of both runs; loops are rolled up."""
    first, second = (0, 0)
    for loop in _loops(work):
        work.run(slice(first, loop.start), slice(second, loop.other))
        _Round(work, loop).run()
        first, second = (at + loop.size * n for at, n in zip((loop.start, loop.other), loop.rounds))
    if len(work.first.calls) - first != len(work.second.calls) - second:
        raise _no_loop(work)
    work.run(slice(first, None), slice(second, None))


def _no_loop(work: Elimination) -> NotAProgram:
    """With the first line of the model that ran more often in the longer run."""
    often = [Counter(call.source for call in run.calls) for run in (work.first, work.second)]
    line = next((c.source for c in work.second.calls if c.source and often[0][c.source] != often[1][c.source]), "")
    return NotAProgram(_NO_LOOP.format(where=f" ({line})" if line else ""))


def _loops(work: Elimination) -> Iterator[Loop]:
    """The loops of both runs, in order."""
    one, two = ([c.name for c in run.calls] for run in (work.first, work.second))
    begin, shift = 0, 0  # behind the last loop; by how many calls the second run is longer there
    while len(two) - len(one) > shift:
        loop = _next(work, one, two, begin, shift)
        if loop is None:
            raise _no_loop(work)
        yield loop
        begin = loop.start + loop.size * loop.rounds[0]
        shift += loop.size * (loop.rounds[1] - loop.rounds[0])


def _next(work: Elimination, one: list[str], two: list[str], begin: int, shift: int) -> Loop | None:
    """The first loop from call `begin` on: its body is as long as can be."""
    longer = len(two) - len(one) - shift
    for size in range(longer, 0, -1):
        for start in range(begin, len(one) - 2 * size + 1):
            if start > begin and one[start - 1] != two[start - 1 + shift]:
                break
            rounds = _repeats(one, start, size)
            more = _repeats(two, start + shift, size) - rounds
            if rounds < 3 or more < 1 or more * size > longer:
                continue
            found = patterns(work.first.calls, start, size, rounds)
            if found is not None:
                return Loop(start, start + shift, size, (rounds, rounds + more), found)
    return None


def _repeats(names: list[str], start: int, size: int) -> int:
    """How often the `size` names from `start` on follow each other."""
    body, count = names[start : start + size], 0
    while names[start + count * size : start + (count + 1) * size] == body:
        count += 1
    return count


Carry = tuple[int, int | None, tuple[Any, ...]]  # a leaf's place, part and start


@dataclass
class _Round:
    """The one round that stands for all."""

    work: Elimination
    loop: Loop
    values: list[Any] = field(default_factory=list)
    carried: dict[Carry, list[Tensor]] = field(default_factory=dict)  # of one round back, of two, ...
    filled: dict[Ref, tuple[int, Tensor]] = field(default_factory=dict)  # the time axis, and a step with that axis
    late: set[str] = field(default_factory=set)  # buffers that hold what sequences were some steps before
    clock: Clock = EACH_STEP

    def run(self) -> None:
        work, loop = self.work, self.loop
        self._align()
        self._keep_written()
        for body in loop.body:
            for leaf in body.values():
                for one in leaf.leaves():
                    self._carry(one)
        written = self._written()
        for place, body in enumerate(loop.body):
            call, other = (work.first.calls[loop.start + n * loop.size + place] for n in (1, 2))
            value = self._call(call, other, body)
            if place in written and isinstance(value, Value) and value.kind == CONST and value.data is not None:
                value = Value(NOW, work.build.copied(work.build.constant(value.data), self.clock), None, self.clock)
            self.values.append(value)
        self._hand_over()
        for n in range(loop.rounds[0]):
            for place in range(loop.size):
                work.rounds[loop.start + n * loop.size + place] = (n, loop.rounds)
                work.results.append(self.values[place] if n == loop.rounds[0] - 1 else None)
        for ref, (axis, tensor) in self.filled.items():
            work.replace(ref, Value(SEQUENCE, tensor, axis, self.clock, loop.rounds))

    def _keep_written(self) -> None:
        """A constant made before the loop, parts of which a round writes, is a state."""
        for place, body in enumerate(self.loop.body):
            if not self.work.first.calls[self.loop.start + place].name.endswith("_"):
                continue
            leaf = next(iter(body.values()))
            while leaf.kind == "local":
                inner = self.loop.body[leaf.place]
                if any(one.kind == "index" for one in inner.values()):
                    break  # a step's own place
                leaf = next(iter(inner.values()))
            value = self._outside(leaf) if leaf.kind == "outer" else None
            if isinstance(value, Value) and value.kind == CONST and value.axis is None and value.data is not None:
                work = self.work
                tensor = work.build.state("written", value.data.shape, value.data, value.data)
                if isinstance(leaf.item, Ref):
                    work.replace(leaf.item, Value(NOW, tensor, None, self.clock))

    def _written(self) -> set[int]:
        """The places in the round of what the round makes and writes into."""
        calls, size = self.work.first.calls, self.loop.size
        begin = self.loop.start + size
        roots = written_calls(calls[: begin + size])
        return {number - begin for number in roots if number >= begin}

    def _sequences(self) -> Iterator[Value]:
        for body in self.loop.body:
            for leaf in body.values():
                for one in leaf.leaves():
                    if one.kind in ("outer", "element"):
                        value = self._outside(one)
                        if isinstance(value, Elements):
                            yield value.sequence
                        elif isinstance(value, Value) and value.kind == SEQUENCE:
                            yield value

    def _outside(self, leaf: Leaf) -> Any:
        item = leaf.item
        if leaf.kind == "element":
            item = Ref(item.call)
        return self.work.value(item)

    def _align(self) -> None:
        clocks = {value.clock for value in self._sequences()}
        if len({c.every for c in clocks}) > 1:
            raise NotAProgram("a loop over time reads sequences of different rates.")
        if clocks:
            self.clock = max(clocks, key=lambda c: c.first)
        known = [v.clock for v in map(self.work.value, self._starts()) if isinstance(v, Value) and v.kind == HELD]
        for clock in known:  # not before what it begins with
            self.clock = reached(self.clock, clock.first)

    def _starts(self) -> Iterator[Any]:
        leaves = (one for body in self.loop.body for leaf in body.values() for one in leaf.leaves())
        return (item for leaf in leaves for item in leaf.start if isinstance(item, (Ref, Tensor)))

    def _carry(self, leaf: Leaf) -> None:
        """A state for what a round reads of the round before."""
        if leaf.kind != "carry":
            return
        work, key = self.work, (leaf.place, leaf.part, leaf.start)
        if key in self.carried:
            return
        result = work.first.calls[self.loop.start + leaf.place].result
        shape = (result if leaf.part is None else result[leaf.part]).shape
        states = []
        for item in reversed(leaf.start):  # round 0 reads what is the furthest back
            start = work.value(item) if isinstance(item, (Ref, Tensor)) else None
            first = start.tensor if isinstance(start, Value) and start.kind == HELD else None
            if first is not None and work.build.kind(first) != INPUT:
                states.append(work.build.state("carried", shape, first))
                begin(work.build, states[-1], first, self.clock)
                continue
            if not isinstance(start, Value) or start.kind != CONST or start.data is None:
                raise NotAProgram(
                    "a loop over time begins with a value that is not constant: where it is an input, name it in "
                    "states=, beside time=."
                )
            states.append(work.build.state("carried", shape, start.data, start.data.expand(shape).contiguous()))
        self.carried[key] = states

    def _argument(self, leaf: Leaf) -> Any:
        if leaf.kind == "list":
            return [self._argument(one) for one in leaf.item]
        if leaf.kind == "local":
            value = self.values[leaf.place]
            return value if leaf.part is None else value[leaf.part]
        if leaf.kind == "carry":
            return Value(NOW, self.carried[leaf.place, leaf.part, leaf.start][-1], None, self.clock)
        if leaf.kind == "element":
            elements = self._outside(leaf)
            if not isinstance(elements, Elements):
                raise NotAProgram("a loop takes the steps of a tensor that depends on no input one by one: index it.")
            return self._current(elements.sequence, elements.keep)
        return self._outside(leaf) if leaf.kind == "outer" else leaf.item

    def _current(self, sequence: Value, keep: bool = False) -> Value:
        """The element of this round."""
        value = delayed(self.work.build, sequence, self.clock)
        assert value.tensor is not None and value.axis is not None
        if value.tensor is not sequence.tensor:
            self.late.add(self.work.build.view(value.tensor).buffer)
        tensor = value.tensor if keep else value.tensor.select(value.axis, 0)
        return Value(NOW, tensor, None, self.clock)

    def _call(self, call: Call, other: Call, body: dict[str, Leaf]) -> Any:
        name = call.name.removeprefix("aten.")
        numbered = {key: leaf.item for key, leaf in body.items() if leaf.kind == "index"}
        if numbered:
            return self._read(call, name, body, numbered)
        target = self._argument(next(iter(body.values()))) if name.endswith("_") and body else None
        tensor = target.tensor if isinstance(target, Value) else None
        if tensor is not None and self.work.build.view(tensor).buffer in self.late:
            raise NotAProgram(f"{name} ({call.source}) changes a step of a sequence that came some steps before.")
        return self.work.call(call, other, lambda key: self._argument(body[key]))

    def _read(self, call: Call, name: str, body: dict[str, Leaf], numbered: dict[str, int]) -> Any:
        """x[:, t] of a sequence, or the place that it has in a tensor that is filled."""
        source = body["self"]
        value = self._argument(source) if "self" in body else None
        one = numbered in ({"index": 0}, {"start": 0, "end": 1}, {"start": 0})
        one = one and (name != "narrow" or body["length"].item == 1)
        if not one or name not in ("select", "slice", "narrow") or not isinstance(value, Value):
            raise NotAProgram(f"{name} ({call.source}) uses the number of the step in another way than as x[:, t].")
        tensor = value.tensor if value.kind == SEQUENCE else value.data
        if tensor is not None and value.axis == body["dim"].item % tensor.dim():
            if value.kind == SEQUENCE:
                return self._current(value, name != "select")
            if value.kind == CONST and source.kind == "outer" and isinstance(source.item, Ref):
                return self._place(source.item, value, name != "select", call.source)
        raise NotAProgram(f"{name} ({call.source}) reads a place by the number of the step that is not the step's own.")

    def _place(self, ref: Ref, whole: Value, keep: bool, source: str) -> Value:
        """The place of this round in a constant, with its time axis or without: memory of its own."""
        assert whole.axis is not None and whole.data is not None
        axis, build = whole.axis, self.work.build
        if ref not in self.filled:
            if self._shown_otherwise(ref):
                raise NotAProgram(
                    f"a loop fills a tensor ({source}) of which another view is used as well: fill it whole."
                )
            made = build.copied(build.constant(whole.data if keep else whole.data.select(axis, 0)), self.clock)
            self.filled[ref] = axis, made if keep else made.unsqueeze(axis)
        tensor = self.filled[ref][1]
        return Value(NOW, tensor if keep else tensor.select(axis, 0), None, self.clock)

    def _shown_otherwise(self, ref: Ref) -> bool:
        """Whether the loop, or what comes after it, uses another view of the memory of `ref` that was made before."""
        run, start = self.work.first, self.loop.start
        used = [*run.outputs, *(v for call in run.calls[start:] for v in flat(call.args.values()))]
        before = {v for v in used if isinstance(v, Ref) and not v.input and v.call < start and v != ref}
        return any(shown(run.calls, v) == shown(run.calls, ref) for v in before)

    def _hand_over(self) -> None:
        """What the round made becomes what the next one reads, all at once."""
        build = self.work.build
        ours = {build.view(tensor).buffer for states in self.carried.values() for tensor in states}
        made = []
        for (place, part, _), states in self.carried.items():
            value = self.values[place] if part is None else self.values[place][part]
            new = build.constant(value.data.expand(states[0].shape)) if value.tensor is None else value.tensor
            made.append((states, build.copied(new, self.clock) if build.view(new).buffer in ours else new))
        for states, new in made:
            for tensor, newer in zip(reversed(states), [*reversed(states[:-1]), new]):
                build.emit("copy", (newer,), (tensor,), self.clock)
