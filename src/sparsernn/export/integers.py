"""Matrices in int8: one scale a row, words of 16 rows and 4 columns, those that are zero left out where it pays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..structure.grids import LARGEST, integers
from .places import Place
from .products import STRIP, WORTH, Tables, gate_strips, strips
from .source import Source
from .terms import bits, literal

WORD = 4
GATHER = 0.75  # columns are gathered where that leaves at most this share of the bytes: it costs some time
MOST = 2**31 // LARGEST**2  # columns that int32 sums
_MIDDLE = np.float32(12582912.0)  # added, it rounds to a whole number, which stands in the last bits


@dataclass(frozen=True)
class Words:
    """weight: (rows, columns) int8; scales: of the rows; row: memory for a row of x in int8, gathered ones behind it.

    gates: 0 where all words are there; else each gate begins a strip of its own, and words that are zero are left out.
    gathered: a strip's words are of the columns that it has, four and four, wherever they are.
    limit: the number that is 127 in x, where batches have fixed it; `scales` are then those of rows and x together.
    """

    weight: np.ndarray
    scales: np.ndarray
    gates: int
    wide: bool  # columns in 16 bits
    multiply_adds: int
    tables: tuple[str, ...]
    row: Place
    gathered: bool = False
    limit: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape  # type: ignore[return-value]

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        numbers, scale = rounded(x, self.limit)
        sums = numbers.astype(np.int32) @ self.weight.astype(np.int32).T
        y += sums.astype(np.float32) * (self.scales * scale)

    def call(self, source: Source, x: str, y: str) -> list[str]:
        rows, columns = self.shape
        fixed = "" if self.limit is None else "fixed_"
        given = [*self.tables, x, self.row.pointer(), y, str(columns)]
        given += [] if self.limit is None else [literal(_inverse(self.limit))]
        if not self.gates:
            return [f"{source.kernel(f'{fixed}bytes')}({', '.join(given)}, {rows});"]
        kernel = source.kernel(f"{fixed}{'gathered' if self.gathered else 'words'}{16 if self.wide else 8}")
        return [f"{kernel}({', '.join(given)}, {rows // self.gates}, {self.gates});"]


def _inverse(limit: float) -> np.float32:
    return np.float32(LARGEST) / np.float32(limit)


def rounded(x: np.ndarray, limit: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of x (n, columns) in int8, and the scale (n, 1) of each: its largest number over 127; where `limit` fixes
    what 127 is, 1, or no number for a row with one that is not finite."""
    if limit is None:
        most = np.abs(x).max(1, keepdims=True)
        inverse = np.where(most > 1e-30, np.float32(LARGEST) / most, np.float32(0))
        scale = most / np.float32(LARGEST)
        raw = bits(x * inverse + _MIDDLE)
    else:
        scale = np.where(np.isfinite(x).all(1, keepdims=True), np.float32(1), np.float32(np.nan))
        middle = int(bits(_MIDDLE))
        raw = np.clip(bits(x * _inverse(limit) + _MIDDLE), middle - LARGEST, middle + LARGEST)
    return (raw & 255).astype(np.uint8).view(np.int8), scale


def pack_int8(weight: np.ndarray, gates: int, tables: Tables, row: Place, limit: float | None = None) -> Words:
    """The words of a matrix of floats. limit: of its inputs, where batches have fixed it."""
    weight = np.array(weight, np.float32)  # torch takes no memory that it may not write
    numbers, scales = (found.numpy() for found in integers(torch.from_numpy(weight)))
    columns = weight.shape[1]
    filled = np.zeros((len(weight), -(-columns // WORD) * WORD), np.int8)
    filled[:, :columns] = numbers
    cut = gate_strips(filled, gates)
    words = cut.reshape(len(cut), STRIP, -1, WORD).swapaxes(1, 2)  # (strips, words, 16, 4)
    there = np.asarray(np.any(words, axis=(2, 3)))
    scales = scales if limit is None else scales * (np.float32(limit) / np.float32(LARGEST))
    scale = tables.add(scales)
    used = [np.flatnonzero(strip.any(0)) for strip in cut]  # columns
    few = sum(-(-len(u) // WORD) for u in used) * WORD * (STRIP + 1)
    some = int(there.sum()) * (STRIP * WORD + 1)
    wide = columns > 255
    if columns <= 65535 and few <= GATHER * min(some, WORTH * filled.size):
        index, kept = _gathered(cut, used)
        names = (tables.add(kept), tables.add(index.astype(np.uint16 if wide else np.uint8)), scale)
        return Words(numbers, scales, gates, wide, kept.size, names, row, True, limit)
    if there.sum() * STRIP * WORD > WORTH * filled.size or there.shape[1] > 65535:
        whole = strips(filled)
        names = (tables.add(whole.reshape(len(whole), STRIP, -1, WORD).swapaxes(1, 2)), scale)
        return Words(numbers, scales, 0, False, weight.size, names, row, False, limit)
    wide = there.shape[1] > 255
    index = np.array([n for strip in there for n in (int(strip.sum()), *np.flatnonzero(strip))])
    kept = words[there] if there.any() else np.zeros(1, np.int8)
    names = (tables.add(kept), tables.add(index.astype(np.uint16 if wide else np.uint8)), scale)
    return Words(numbers, scales, gates, wide, int(there.sum()) * STRIP * WORD, names, row, False, limit)


def _gathered(cut: np.ndarray, used: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For each strip how many words, and their columns, filled up with 0; the words (16, 4), filled up with zeros."""
    index, kept = [], []
    for strip, columns in zip(cut, used):
        words = -(-len(columns) // WORD)
        filled = np.zeros((STRIP, words * WORD), np.int8)
        filled[:, : len(columns)] = strip[:, columns]
        index += [words, *columns, *[0] * (words * WORD - len(columns))]
        kept.append(filled.reshape(STRIP, words, WORD).swapaxes(0, 1).reshape(-1))
    whole = np.concatenate(kept)
    return np.array(index), whole if whole.size else np.zeros(1, np.int8)
