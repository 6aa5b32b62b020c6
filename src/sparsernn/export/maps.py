"""Steps that work on each element by itself, and those that fold an axis into one element after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .places import C_TYPES, NUMPY_TYPES, Memory, Place, collapsed
from .source import Source
from .terms import FLOATS, INTS, MASKS, Term, Trace

_KINDS = {"float": FLOATS, "int": INTS, "bool": MASKS}
_FURTHER = ("", " + $W")  # where vector 0 and 1 of two begin
Operand = Place | float


@dataclass(frozen=True)
class Map:
    """outputs = formula(inputs), element by element; inputs and outputs of one shape, or numbers. One that is written
    may be one that is read."""

    name: str
    formula: Callable[..., Any]
    inputs: tuple[Operand, ...]
    outputs: tuple[Place, ...]

    def run(self, memory: Memory) -> None:
        values = [v.of(memory) if isinstance(v, Place) else v for v in self.inputs]
        results = self.formula(*values)
        for place, result in zip(self.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            np.copyto(place.of(memory), np.asarray(result).astype(NUMPY_TYPES[place.dtype]))

    def write(self, source: Source) -> None:
        places = [*(p for p in self.inputs if isinstance(p, Place)), *self.outputs]
        sizes, strides = collapsed(places)
        outer, inner = (sizes[:-1], sizes[-1]) if sizes else ([], 1)
        last = strides[-1] if strides else [1] * len(places)
        name = row_function(source, self, last)
        pointers = [p.pointer([s[k] for s in strides[: len(outer)]]) for k, p in enumerate(places)]
        source.loop(outer, [f"{name}({', '.join([*pointers, str(inner)])});"])


@dataclass(frozen=True)
class Fold:
    """output = formula(output, inputs[0]), then of inputs[1], ...: inputs have one axis more in front, of one size."""

    name: str
    formula: Callable[..., Any]
    inputs: tuple[Place, ...]
    output: Place

    def run(self, memory: Memory) -> None:
        arrays = [p.of(memory) for p in self.inputs]
        total = self.output.of(memory)
        for k in range(self.inputs[0].shape[0]):
            np.copyto(total, self.formula(total, *(a[k] for a in arrays)))

    def write(self, source: Source) -> None:
        count = self.inputs[0].shape[0]
        sizes, strides = collapsed([*(p.at(0) for p in self.inputs), self.output])
        if sizes and sizes[-1] >= 4 and strides[-1][-1] == 1:
            step = Map(self.name, self.formula, (self.output, *(p.at(0) for p in self.inputs)), (self.output,))
            places = [*step.inputs, self.output]
            name = row_function(source, step, [strides[-1][-1], *strides[-1]])
            loops = [[0, *(p.strides[0] for p in self.inputs), 0], *([s[-1], *s] for s in strides[:-1])]
            pointers = [p.pointer([s[k] for s in loops]) for k, p in enumerate(places)]  # type: ignore[union-attr]
            source.loop([count, *sizes[:-1]], [f"{name}({', '.join([*pointers, str(sizes[-1])])});"])
            return
        name = _fold_function(source, self)
        pointers = [p.pointer([s[k] for s in strides]) for k, p in enumerate([*self.inputs, self.output])]
        source.loop(sizes, [f"{name}({', '.join([*pointers, str(count)])});"])


@dataclass(frozen=True)
class Before:
    """output = x; at the steps before `until` a row of `start` (n, ...), or that number.

    first, every: of the clock that the rows of `start` are counted by, beginning below step 0.
    """

    x: Operand
    start: Operand
    output: Place
    until: int
    first: int
    every: int

    def run(self, memory: Memory) -> None:
        number = int(memory["number"])
        copy(self._started(number) if number < self.until else self.x, self.output).run(memory)

    def write(self, source: Source) -> None:
        for number in range(self.until):
            if number >= self.first and (number - self.first) % self.every == 0:
                source.lines.append(f"    if (s->number == {number}u) {{")
                copy(self._started(number), self.output).write(source)
                source.lines.append("    } else")
        source.lines.append("    {")
        copy(self.x, self.output).write(source)
        source.lines.append("    }")

    def _started(self, number: int) -> Operand:
        row = (number - self.first) // self.every
        return self.start.at(row) if isinstance(self.start, Place) else self.start


def copy(x: Operand, y: Place) -> Map:
    """y = x; of numbers of another kind, what torch makes of them."""
    return Map("copy", lambda v: v, (x,), (y,))


def fill(value: float, y: Place) -> Map:
    """y = value."""
    return Map("fill", lambda v: v, (value,), (y,))


def row_function(source: Source, step: Map, strides: Sequence[int]) -> str:
    """A C function of pointers and a count that does one row of `step`; strides: of its places along the row."""
    places = [*(p for p in step.inputs if isinstance(p, Place)), *step.outputs]
    read = len(places) - len(step.outputs)
    floats = all(p.dtype == "float" for p in places)
    wide = floats and all(s in (0, 1) for s in strides) and all(s == 1 for s in strides[read:])
    letters = [*"abcdefgh"[:read], *("yz"[: len(step.outputs)])]
    parameters = [f"{'const ' if k < read else ''}{C_TYPES[p.dtype]} *{letters[k]}" for k, p in enumerate(places)]
    body = ["    int i = 0;"]
    if wide:
        one, two = (_row(source, step, letters, strides, True, k) for k in (0, 1))
        body += ["#if $W > 1"]
        if any("_v(" in line for line in one):  # a long chain of operations: two of them fill each other's gaps
            body += ["    for (; i + 2 * $W <= n; i += 2 * $W) {"]
            body += [f"        {line}" for both in zip(one, two) for line in both]
            body += ["    }", "    if (n % (2 * $W) >= $W) {", *(f"        {line}" for line in one), "    }"]
            body += ["    i = n - n % $W;", "#endif"]
        else:
            body += ["    for (; i + $W <= n; i += $W) {", *(f"        {line}" for line in one), "    }", "#endif"]
    body += ["    for (; i < n; ++i) {", *(f"        {line}" for line in _row(source, step, letters, strides, False))]
    head = f"static $APART void $@({', '.join([*parameters, 'int n'])})"
    return source.function(step.name, "\n".join([head, "{", *body, "    }", "}", ""]))


def _row(
    source: Source, step: Map, letters: Sequence[str], strides: Sequence[int], vector: bool, number: int = 0
) -> list[str]:
    """The lines of one element, or of vector `number` of those from element i on."""
    trace = Trace(vector, "tu"[number])
    operands: list[Any] = []
    lines = []
    position = 0
    for value in step.inputs:
        if not isinstance(value, Place):
            operands.append(value)
            continue
        letter, stride, kind = letters[position], strides[position], _KINDS[value.dtype]
        operands.append(Term(trace, f"{letter}{number}", kind))
        lines.append(f"const {trace.type(kind)} {letter}{number} = {_loaded(letter, stride, vector, number)};")
        position += 1
    results = step.formula(*operands)
    results = results if isinstance(results, tuple) else (results,)
    lines += trace.lines
    for name in trace.called:
        source.formula(name)
    for place, result, letter, stride in zip(step.outputs, results, letters[position:], strides[position:]):
        lines.append(_stored(trace, place, result, letter, stride, number))
    return lines


def _loaded(letter: str, stride: int, vector: bool, number: int) -> str:
    if vector:
        return f"$LD({letter} + i{_FURTHER[number]})" if stride else f"$ALL({letter}[0])"
    return f"{letter}[{_index(stride)}]"


def _index(stride: int) -> str:
    return "0" if stride == 0 else "i" if stride == 1 else f"{stride} * i"


def _stored(trace: Trace, place: Place, result: Any, letter: str, stride: int, number: int) -> str:
    if trace.vector:
        return f"$ST({letter} + i{_FURTHER[number]}, {trace.spread(result, FLOATS)});"
    text = trace.spread(result, _KINDS[place.dtype])
    kind = result.kind if isinstance(result, Term) else _KINDS[place.dtype]
    if place.dtype == "bool":
        text = f"(uint8_t)({text} != 0)"
    elif kind != _KINDS[place.dtype]:
        text = f"({C_TYPES[place.dtype]})({text})"
    return f"{letter}[{_index(stride)}] = {text};"


def _fold_function(source: Source, step: Fold) -> str:
    """All of one output element, its inputs one after the other."""
    trace = Trace(False)
    letters = "abcdefgh"[: len(step.inputs)]
    terms = [Term(trace, f"{letter}0") for letter in letters]
    result = step.formula(Term(trace, "total"), *terms)
    for name in trace.called:
        source.formula(name)
    loads = [f"const float {c}0 = {c}[{_index(p.strides[0])}];" for c, p in zip(letters, step.inputs)]
    lines = [*loads, *trace.lines, f"total = {trace.spread(result, FLOATS)};"]
    parameters = ", ".join([*(f"const float *{c}" for c in letters), "float *y", "int n"])
    body = "\n".join(f"        {line}" for line in lines)
    text = (
        f"static void $@({parameters})\n{{\n    float total = *y;\n    for (int i = 0; i < n; ++i) {{\n{body}\n    }}\n"
    )
    return source.function(step.name, f"{text}    *y = total;\n}}\n")


def along(place: Place, axis: int) -> Place:
    """With `axis` in front."""
    n = len(place.shape)
    return place.moved([axis % n, *(k for k in range(n) if k != axis % n)])
