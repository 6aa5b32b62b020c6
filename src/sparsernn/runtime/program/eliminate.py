"""From the calls of a whole run to the operations of one time step: the time axis is eliminated.

Two runs of different lengths tell which axis of each tensor is time: the one whose size differs. Rules (rules/) then
say what an operation is in one step; a step's tensors keep a time axis of size 1, so views stay as they were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .builder import Builder
from .calls import Call, NotAProgram, Ref
from .capture import Capture
from .constants import OF_A_SHAPE, WRITE_NOTHING, asked, clock_for, counted, moving, written
from .program import INPUT, STATE, Clock
from .values import CONST, GONE, HELD, NOW, SEQUENCE, Value
from .windows import delayed, ends_early, reached

Rule = Callable[["Step"], Any]
_RANDOM = ("rand", "normal", "bernoulli", "multinomial", "poisson", "exponential", "dropout")


class Step:
    """One call of the run, for its rule: its arguments as values, its shapes in both runs, and the builder."""

    def __init__(self, build: Builder, call: Call, other: Call, args: dict[str, Any], steps: tuple[int, int]) -> None:
        self.build, self.call, self.other, self.args = build, call, other, args
        self.steps = steps  # of both runs
        self.asked: set[int] = set()  # the parts of the result, but for part 0, that the model goes on with
        self.name = call.name.removeprefix("aten.")

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.args.get(name, default)

    @property
    def values(self) -> list[Value]:
        """The tensors among the arguments."""
        found: list[Value] = []
        for value in self.args.values():
            found += [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, Value)]
        return found

    def differs(self, name: str) -> bool:
        """Whether a number among the arguments depends on the length of the sequence."""
        return self.call.args[name] != self.other.args[name]

    def fail(self, why: str) -> NoReturn:
        raise NotAProgram(f"{self.name}{self.where} {why}")

    def gone(self, why: str) -> Value:
        """A result that no step can have, for those who only ask for its shape."""
        return Value(GONE, why=f"{self.name}{self.where} {why}")

    @property
    def where(self) -> str:
        return f" ({self.call.source})" if self.call.source else ""

    def shapes(self, part: int | None = None) -> tuple[torch.Size, torch.Size]:
        """Of the result in both runs."""
        first, second = self.call.result, self.other.result
        return (first.shape, second.shape) if part is None else (first[part].shape, second[part].shape)

    def axis(self, part: int | None = None) -> int | None:
        """The time axis of the result."""
        return differing(*self.shapes(part), self.fail)

    def tensor(self, value: Any) -> Any:
        """The tensor of a value; a constant gets its buffer now. What is no value stays what it is."""
        if not isinstance(value, Value):
            return value
        if value.tensor is None:
            assert value.data is not None
            return self.build.constant(value.data)
        return value.tensor

    def gives(self, tensor: Tensor, source: Value, part: int | None = None, **changes: Any) -> Value:
        """The result as `tensor`, with the time of `source`; its time axis is where the sizes of both runs differ."""
        shapes = self.shapes(part)
        axis = differing(*shapes, self.fail)
        if axis is None:
            kind = source.kind if source.axis is None else self.fail("loses its time axis.")
            return replace(source, kind=kind, tensor=tensor, axis=None, data=None, **changes)
        one, two = (shape[axis] // tensor.shape[axis] for shape in shapes)
        return replace(source, tensor=tensor, axis=axis, lengths=(one, two), data=None, **changes)

    def kept_apart(self, value: Value, axes: Iterable[int], what: str = "mixes") -> None:
        """Refuses an operation along `axes` of `value` if time is among them."""
        if value.axis is not None and value.axis in [a % self.dim(value) for a in axes]:
            self.fail(f"{what} the steps of the sequence: it needs the whole of it. Along features it streams.")

    def dim(self, value: Value) -> int:
        return self.tensor(value).dim()


def differing(one: Sequence[int], two: Sequence[int], fail: Callable[[str], NoReturn]) -> int | None:
    """The axis whose size differs; None for none."""
    if len(one) != len(two):
        fail("gives tensors of another number of axes for another length.")
    axes = [n for n, (a, b) in enumerate(zip(one, two)) if a != b]
    if len(axes) > 1:
        fail("combines each step with every other one: read a fixed number of past steps (pad, then unfold).")
    return axes[0] if axes else None


class Elimination:
    """Goes through the calls of two runs and builds the program's operations."""

    def __init__(
        self, build: Builder, first: Capture, second: Capture, rules: Mapping[str, Rule], steps: tuple[int, int]
    ) -> None:
        self.build, self.first, self.second, self.rules, self.steps = build, first, second, rules, steps
        self.inputs: list[Value] = []
        self.results: list[Any] = []
        self.held: dict[int, Value] = {}  # id of a tensor of the model that the run changes -> its state
        self.rounds: dict[
            int, tuple[int, tuple[int, int]]
        ] = {}  # a call in a loop -> its round, and how many there are
        self._data: dict[int, Value] = {}
        self._asked = asked(first)
        self._written = written(first, second)
        self._moving = moving(first.calls) if self._written else set()

    def run(self, first: slice = slice(None), second: slice = slice(None)) -> None:
        """So many calls of both runs, in order, which are the same but for lengths."""
        for call, other in zip(self.first.calls[first], self.second.calls[second], strict=True):
            collected = self._collected(call)
            value = self.call(call, other) if collected is None else collected
            if len(self.results) in self._written:
                kind = NOW if len(self.results) in self._moving else HELD
                held = [self._held(v, kind) for v in (value if isinstance(value, list) else [value])]
                value = held if isinstance(value, list) else held[0]
            self.results.append(value)

    def _held(self, value: Any, kind: str) -> Any:
        return self._memory(value, kind) if isinstance(value, Value) else value

    def _memory(self, value: Value, kind: str) -> Value:
        """Memory that later calls may write into: not a state, and a constant is made anew in each step. kind: of a
        constant, HELD where nothing is written that moves."""
        if value.kind == CONST and value.data is not None:
            clock = Clock() if value.axis is None else clock_for(self.steps, value.lengths)
            tensor = self.build.copied(self.build.constant(value.data), clock)
            return Value(kind if value.axis is None else SEQUENCE, tensor, value.axis, clock, value.lengths)
        if value.moves and value.tensor is not None and self.build.kind(value.tensor) == STATE:
            return value.but(self.build.copied(value.tensor, value.clock))
        return value

    def _collected(self, call: Call) -> Value | None:
        """The results of all rounds of a loop put together, by stack or cat, are a sequence."""
        refs = call.args.get("tensors")
        if not isinstance(refs, (list, tuple)) or not all(isinstance(r, Ref) and not r.input for r in refs):
            return None
        numbers = [self.rounds.get(r.call, (-1, (0, 0))) for r in refs]
        rounds = numbers[0][1]
        if len({r.part for r in refs}) > 1 or numbers != [(n, rounds) for n in range(rounds[0])]:
            return None
        value: Value = self.value(refs[-1])
        tensor, stacked = value.data if value.tensor is None else value.tensor, call.name == "aten.stack"
        assert tensor is not None
        dim = call.args["dim"] % (tensor.dim() + stacked)
        tensor = tensor.unsqueeze(dim) if stacked else tensor
        if value.tensor is None:
            return Value(CONST, axis=dim, lengths=rounds, data=tensor)
        return Value(SEQUENCE, tensor, dim, value.clock, rounds)

    def _module(self, call: Call) -> str:
        """The path of the module whose parameters a call takes."""
        leaves = [v for item in call.args.values() for v in (item if isinstance(item, (list, tuple)) else [item])]
        named = (self.first.names.get(id(v)) for v in leaves if isinstance(v, nn.Parameter))
        return next((name.rpartition(".")[0] for name in named if name), "")

    def value(self, item: Any) -> Any:
        """What a reference, a tensor or any other argument is in one step."""
        if isinstance(item, Ref):
            found: Any = self.inputs[item.call] if item.input else self.results[item.call]
            if found is None:
                raise NotAProgram(
                    "it reads what one round of a loop over time made, but not the last: stack all rounds."
                )
            return found if item.part is None or item.input else found[item.part]
        if isinstance(item, Tensor):
            if id(item) in self.held:
                return self.held[id(item)]
            if id(item) not in self._data:
                name = self.first.names.get(id(item), "constant")
                data = self.first.before.get(id(item), item.detach())
                self._data[id(item)] = Value(CONST, self.build.constant(data, name), data=data)
            return self._data[id(item)]
        if isinstance(item, (list, tuple)) and any(isinstance(v, (Ref, Tensor)) for v in item):
            return [self.value(v) for v in item]
        return item

    def replace(self, ref: Ref, value: Value) -> None:
        """Another value for the result of an earlier call."""
        if ref.part is None:
            self.results[ref.call] = value
        else:
            self.results[ref.call] = [value if n == ref.part else v for n, v in enumerate(self.results[ref.call])]

    def call(self, call: Call, other: Call, value: Callable[[str], Any] | None = None) -> Any:
        """What one call gives in a step. value: of an argument, by its name, where it is not the call's own."""
        self.build.source, self.build.module = call.source, self._module(call)
        if call.name.removeprefix("aten.") in OF_A_SHAPE:
            return self._constant(Step(self.build, call, other, {}, self.steps))
        args = {name: value(name) if value else self.value(v) for name, v in call.args.items()}
        step = Step(self.build, call, other, args, self.steps)
        step.asked = self._asked.get(id(call), set())
        if any(word in step.name for word in _RANDOM) and step.get("train", step.get("training", True)):
            step.fail("draws random numbers: put the model into eval mode, or draw them outside.")
        for given in step.values:
            if given.kind == GONE:
                raise NotAProgram(given.why)
        in_place = step.name.endswith("_") and not step.name.startswith("_") and step.name not in WRITE_NOTHING
        if not in_place and all(v.kind == CONST for v in step.values):
            return self._constant(step)
        rule: Rule | None = self.rules.get(step.name.removesuffix("_") if in_place else step.name)
        if rule is None:
            step.fail("is not among the operations that a step program has: write it with others, or stream the parts.")
        if in_place:
            return self._in_place(step, rule)
        return rule(step)

    def _constant(self, step: Step) -> Any:
        """A result that depends on no input, worked out now."""

        def one(first: Any, second: Any) -> Any:
            if not isinstance(first, Tensor):
                return first
            if first.layout != torch.strided:
                step.fail("gives a sparse tensor: make it dense.")
            axis = differing(first.shape, second.shape, step.fail)
            if axis is not None:
                start = first.narrow(axis, 0, 1)
                if not bool((first == start).all()) or not bool((second == second.narrow(axis, 0, 1)).all()):
                    rising = counted(self.build, self.steps, first, second, axis)
                    return rising or step.fail(
                        "numbers the steps of a sequence, which in a stream have no end: compute it of torch.arange."
                    )
                return Value(CONST, axis=axis, lengths=(first.shape[axis], second.shape[axis]), data=start.contiguous())
            if not torch.equal(first, second) and not (first.isnan() & second.isnan()).any():
                step.fail("gives a constant that depends on the length of the sequence: make it of one step.")
            return Value(CONST, data=first)

        results = step.call.result, step.other.result
        return one(*results) if isinstance(results[0], Tensor) else [one(a, b) for a, b in zip(*results)]

    def _in_place(self, step: Step, rule: Rule) -> Any:
        """The operation's result, written over its first argument, which every view of it then shows."""
        target: Value = step[next(iter(step.args))]
        if not target.moves and (target.kind != HELD or target.tensor is None):
            step.fail("writes into a constant in place, which a step program does not follow: use torch.cat or where.")
        step.name = step.name.removesuffix("_")
        result = rule(step)
        if target.kind == SEQUENCE and ends_early(target, step.steps):
            step.fail("leaves out the last steps, which a stream does not know for such: leave out the first.")
        if isinstance(result, Value) and result.kind == target.kind == SEQUENCE:
            late = result.clock.every == target.clock.every and result.clock.first < target.clock.first
            result = delayed(self.build, result, target.clock) if late else result
        tensor = step.tensor(result)
        if isinstance(result, Value) and result.moves and result.clock != target.clock:
            step.fail("writes into a tensor whose steps come at another time.")
        assert target.tensor is not None
        if any(v is not target and v.tensor is not None and self.build.crosses(v.tensor, target.tensor)
               for v in step.values):  # fmt: skip
            step.fail("writes in place over what it reads, which torch leaves undefined: clone() what it reads.")
        if self.build.kind(target.tensor) == INPUT:
            step.fail("changes an input in place: write `x = x + y`, not `x += y`.")
        self.build.overwrite(tensor, target.tensor, target.clock)
        return target


def joined(step: Step, values: Sequence[Value]) -> tuple[str, Clock]:
    """Kind and clock of what is made of `values`, none of which is delayed for it."""
    moving = [v for v in values if v.moves]
    kinds = {v.kind for v in moving}
    if kinds == {SEQUENCE, NOW}:
        step.fail(
            "combines each step with a value of the whole sequence: take one so far (cumsum), or give it as an input."
        )
    held = [v.clock.first for v in values if v.kind == HELD]
    if not moving:
        return (HELD if held else CONST), Clock(1, max(held, default=0))
    clocks = {v.clock for v in moving}
    if held and max(held) > max(c.first for c in clocks):  # not before what is held is known
        behind = max(clocks, key=lambda c: c.first)
        clocks.add(reached(behind, max(held)))
    if len(clocks) == 1:
        return moving[0].kind, moving[0].clock
    if kinds == {SEQUENCE} and len({c.every for c in clocks}) > 1:
        step.fail("combines sequences of different rates: bring them to one by x[:, ::n] or repeat_interleave.")
    every = moving[0].clock.every if kinds == {SEQUENCE} else 1
    return moving[0].kind, Clock(every, max(c.first for c in clocks))
