"""Where a product meets a weight: which plane of which parameter each row of a matrix of weight elements is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .shadow import SUMMED, Weight, expand_constant


@dataclass(frozen=True)
class Line:
    """Positions of one axis of a matrix of weight elements that are planes of a parameter: one index each."""

    parameter: int
    axis: int
    positions: np.ndarray
    index: np.ndarray


def lines(weight: Weight, shapes: Sequence[tuple[int, ...]], *, first: bool = False) -> list[Line] | None:
    """Which plane each row of a (rows, columns) matrix of weight elements lies in; None if rows aren't planes.

    `weight` is (number, i0, i1, ...), each (rows, columns); `shapes` the shape of each parameter by number. Where a
    matrix of one element leaves the axis open, it is the last one, with `first` the first.
    """
    number, *parts = (expand_constant(w) for w in weight)
    if _axis_free(number, 0) and _axis_free(number, 1):
        return (
            _block_lines(int(number[0, 0]), parts, np.arange(number.shape[0]), shapes, first) if number.numel() else []
        )
    if _axis_free(number, 1):  # different parameters in different rows
        found: list[Line] = []
        rows = number[:, 0]
        for value in torch.unique(rows).tolist():
            at = torch.nonzero(rows == value)[:, 0]
            block = _block_lines(value, [p.index_select(0, at) for p in parts], at.numpy(), shapes, first)
            if block is None:
                return None
            found += block
        return found
    if _axis_free(number, 0):  # different parameters in different columns: each row lies in one plane of each
        found = []
        columns = number[0]
        for value in torch.unique(columns).tolist():
            at = torch.nonzero(columns == value)[:, 0]
            block = _block_lines(
                value, [p.index_select(1, at) for p in parts], np.arange(number.shape[0]), shapes, first
            )
            if block is None:
                return None
            found += block
        return found
    return None


def _axis_free(index: Tensor, axis: int) -> bool:
    return index.shape[axis] <= 1 or index.stride(axis) == 0


def _summed(index: Tensor) -> bool:
    return index.numel() > 0 and int(index.flatten()[0]) == SUMMED


def _block_lines(
    parameter: int, parts: Sequence[Tensor], positions: np.ndarray, shapes: Sequence[tuple[int, ...]], first: bool
) -> list[Line] | None:
    if parameter < 0:  # computed in a way that is not followed
        return None
    if parameter == 0 or not shapes[parameter]:
        return []
    parts = [expand_constant(p) for p in parts[: len(shapes[parameter])]]
    along_rows = [a for a, p in enumerate(parts) if not _axis_free(p, 0)]
    along_columns = [a for a, p in enumerate(parts) if not _axis_free(p, 1)]
    if set(along_rows) & set(along_columns) or len(along_rows) > 1:
        return None
    if along_rows:
        axis = along_rows[0]
    elif parts and parts[0].shape[0] > 1:
        return []  # every row is made of the same elements: no plane of its own
    else:  # one row only: the plane's axis is one that the columns leave alone
        candidates = [a for a in range(len(parts)) if a not in along_columns and not _summed(parts[a])]
        wide = [a for a in candidates if shapes[parameter][a] > 1]
        if not candidates:
            return [] if any(map(_summed, parts)) else None
        axis = (wide or candidates)[0 if first else -1]
    index = parts[axis][:, 0].numpy() if parts[axis].shape[1] else np.zeros(0, dtype=np.int64)
    return [Line(parameter, axis, positions[: len(index)], np.ascontiguousarray(index))]
