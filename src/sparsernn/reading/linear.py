"""Sums of products as data: which values a node's result is a linear function of, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .builder import Builder
from .graph import Node

MAX_DEPTH = 12


class Term(NamedTuple):
    name: str
    weight: np.ndarray  # (rows, size)
    source: str  # the constant that it is, or is a part of


@dataclass(frozen=True)
class Part:
    """Numbers `begin` to `end`, or of `count` equal parts the one numbered `begin`."""

    begin: int
    end: int
    count: int = 0

    def of(self, rows: int) -> tuple[int, int]:
        if self.count:
            size = -(-rows // self.count)
            return self.begin * size, min(rows, (self.begin + 1) * size)
        return slice(self.begin, self.end).indices(rows)[:2]


@dataclass(frozen=True)
class Linear:
    """The sum of `weight @ name` over the terms, and of the biases. rows: how many numbers come out; None where only
    biases are known."""

    rows: int | None
    terms: tuple[Term, ...] = ()
    biases: tuple[np.ndarray, ...] = ()  # one number, or one for each row

    @classmethod
    def nothing(cls, rows: int | None) -> Linear:
        return cls(rows)

    def plus(self, other: Linear) -> Linear | None:
        rows = self.rows if other.rows is None else other.rows
        if self.rows is not None and other.rows is not None and self.rows != other.rows:
            return None
        biases = self.biases + other.biases
        if rows is not None and any(bias.size not in (1, rows) for bias in biases):
            return None
        return Linear(rows, self.terms + other.terms, biases)

    def cut(self, part: Part) -> Linear | None:
        if self.rows is None:
            return None
        begin, end = part.of(self.rows)
        biases = tuple(bias if bias.size == 1 else bias[begin:end] for bias in self.biases)
        return Linear(end - begin, tuple(t._replace(weight=t.weight[begin:end]) for t in self.terms), biases)

    def operands(self) -> set[str]:
        return {term.name for term in self.terms}

    def sizes(self) -> dict[str, int]:
        return {term.name: term.weight.shape[1] for term in self.terms}

    def matrix(self, name: str, size: int) -> np.ndarray:
        found = np.zeros((self.rows or 0, size), dtype=self.terms[0].weight.dtype if self.terms else np.float32)
        for term in self.terms:
            if term.name == name:
                found = found + term.weight
        return found

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """The first bias, and the sum of the others: as torch's cells have two, nothing is rounded."""
        dtype, none = self.terms[0].weight.dtype, np.zeros(1)
        first, *more = self.biases or (none,)
        spread = (np.broadcast_to(bias, (self.rows or 1,)).astype(dtype) for bias in (first, sum(more, none)))
        return next(spread), next(spread)


def linear(b: Builder, name: str, depth: int = 0) -> Linear | None:
    """What `name` is a linear function of; None for what is none."""
    if name in b.constants:
        array = b.constants[name]
        flat = array.size == (array.shape[-1] if array.ndim else 1)
        return Linear(None, (), (array.reshape(-1),)) if flat and array.dtype.kind == "f" else None
    maker = b.makers.get(name)
    if maker is None or depth > MAX_DEPTH:
        return None
    if maker.op == "Add":
        one, other = (linear(b, part, depth + 1) for part in maker.inputs)
        return None if one is None or other is None else one.plus(other)
    if maker.op == "MatMul":
        return _product(b, maker, b.constants.get(maker.inputs[1]))
    if maker.op == "Gemm" and not maker.get("transA", 0) and maker.get("alpha", 1.0) == maker.get("beta", 1.0) == 1:
        weight = b.constants.get(maker.inputs[1])
        turned = weight if weight is None or not maker.get("transB", 0) else weight.T
        found = _product(b, maker, turned)
        bias = linear(b, maker.input(2)) if maker.input(2) else Linear(None)
        return None if found is None or bias is None else found.plus(bias)
    part = part_of(b, maker, name)
    whole = None if part is None else linear(b, maker.inputs[0], depth + 1)
    return None if whole is None or part is None else whole.cut(part)


def _product(b: Builder, node: Node, weight: np.ndarray | None) -> Linear | None:
    """x times a matrix (size, rows); what is joined along its last axis has a part of the matrix each."""
    x, source = node.inputs[:2]
    if weight is None or weight.ndim != 2 or x in b.constants:
        return None
    size, rows = weight.shape
    maker = b.makers.get(x)
    if maker is None or maker.op != "Concat" or maker.get("axis") not in (-1, 1) or len(maker.inputs) != 2:
        return Linear(rows, (Term(x, weight.T, source),))
    one, other = maker.inputs
    width = b.widths.get(one, size - b.widths.get(other, size))
    if not 0 < width < size:
        return None
    return Linear(rows, (Term(one, weight[:width].T, source), Term(other, weight[width:].T, source)))


def part_of(b: Builder, maker: Node, name: str) -> Part | None:
    """Which part of the last axis of its input a Split or Slice gives as `name`."""
    if maker.op == "Split":
        given = maker.input(1)
        sizes = b.constants.get(given) if given else maker.get("split")
        if (given and sizes is None) or maker.get("axis", 0) not in (-1, 1):
            return None
        place = maker.outputs.index(name)
        if sizes is None:
            return Part(place, place + 1, len(maker.outputs))
        ends = [0, *np.cumsum(np.asarray(sizes).reshape(-1)).tolist()]
        return Part(ends[place], ends[place + 1])
    if maker.op == "Slice" and len(maker.inputs) >= 4:
        found = [b.constants.get(n) for n in maker.inputs[1:]]
        if any(array is None or array.size != 1 for array in found):
            return None
        begin, end, axis, *strides = (int(array.reshape(-1)[0]) for array in found if array is not None)
        return Part(begin, end) if axis in (-1, 1) and strides in ([], [1]) else None
    return None
