"""Where numbers lie: a strided window on an array of the state, on a table or on an argument of the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

C_TYPES = {"float": "float", "int": "int32_t", "bool": "uint8_t"}
NUMPY_TYPES = {"float": np.float32, "int": np.int32, "bool": np.bool_}
Memory = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Element (i, j, ...) of `array` lies at offset + i strides[0] + j strides[1] + ..., in elements.

    dtype: "float", "int" or "bool".
    """

    array: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    dtype: str = "float"

    @property
    def size(self) -> int:
        return prod(self.shape)

    def of(self, memory: Memory) -> np.ndarray:
        """This window on the array of `memory`."""
        array = memory[self.array]
        strides = tuple(s * array.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(array[self.offset :], self.shape, strides)

    def at(self, *index: int) -> Place:
        """The window at these numbers of its first axes."""
        offset = self.offset + sum(i * s for i, s in zip(index, self.strides))
        return replace(self, shape=self.shape[len(index) :], strides=self.strides[len(index) :], offset=offset)

    def spread(self, *sizes: int) -> Place:
        """With leading axes of these sizes, behind which the same numbers stand again and again."""
        return replace(self, shape=(*sizes, *self.shape), strides=(*[0] * len(sizes), *self.strides))

    def moved(self, order: Sequence[int]) -> Place:
        """With its axes in this order."""
        return replace(self, shape=tuple(self.shape[k] for k in order), strides=tuple(self.strides[k] for k in order))

    def cut(self, axis: int, start: int, length: int, step: int = 1) -> Place:
        """Of one axis the elements start, start + step, ..., `length` of them."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = length, strides[axis] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def pointer(self, loops: Sequence[int] = ()) -> str:
        """C: its address; `loops`: the stride of each surrounding loop, whose counters are i0, i1, ..."""
        terms = [f"{'' if s == 1 else f'{s} * '}i{k}" for k, s in enumerate(loops) if s]
        return " + ".join([self.array, *([str(self.offset)] if self.offset else []), *terms])


def row_major(array: str, shape: Sequence[int], offset: int = 0, dtype: str = "float") -> Place:
    """The place of a tensor whose elements follow each other."""
    strides = [prod(shape[k + 1 :]) for k in range(len(shape))]
    return Place(array, tuple(shape), tuple(strides), offset, dtype)


def collapsed(places: Sequence[Place]) -> tuple[list[int], list[list[int]]]:
    """The loops that walk through all `places`, of one shape, at once: sizes, and for each the strides of the places.

    Axes of size 1 are gone, those that follow each other in every place are one, the innermost has the smallest stride
    in the last of the places.
    """
    axes = [(n, [p.strides[k] for p in places]) for k, n in enumerate(places[0].shape) if n != 1]
    axes.sort(key=lambda axis: -axis[1][-1])
    merged: list[tuple[int, list[int]]] = []
    for size, strides in axes:
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1], strides)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    return [size for size, _ in merged], [strides for _, strides in merged]
