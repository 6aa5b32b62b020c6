"""Re-sorting units: similar ones side by side, so that blocks of rows are full or empty.

The order of a layer's units is free: nobody outside sees it if states and output are brought back. A block of WIDTH
rows costs the same whether one of its rows has a weight in a column or all have, so rows of one pattern belong
together. The pattern of a unit is that of all its rows: every gate, input and recurrent matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .processor import processor

WIDTH = processor().width
PANEL = 2 if WIDTH == 8 else 4  # blocks side by side in a dense panel: see layouts/panel.py
TABLE = 2 * WIDTH  # columns whose numbers of one input two registers hold: see layouts/permuted.py
MOST_WORK = 1 << 32  # 64-bit words compared, about four seconds; larger layers keep their order


def patterns(weights: Sequence[Tensor], hidden: int, columns: int = 1) -> np.ndarray:
    """bool (hidden, features): where a unit has weights, in steps of `columns` columns, gate by gate and matrix by
    matrix. weights: matrices of stacked gates, (gates x hidden, any)."""
    parts = []
    for weight in weights:
        full = torch.nn.functional.pad(weight != 0, (0, -weight.shape[1] % columns))
        full = full.view(-1, hidden, full.shape[1] // columns, columns).any(-1)
        parts.append(full.transpose(0, 1).reshape(hidden, -1))
    return torch.cat(parts, 1).numpy()


def blocks(pattern: np.ndarray, order: np.ndarray) -> int:
    """Blocks of WIDTH units x 1 feature with anything in them, units in the given order (-1: nothing)."""
    padded = np.concatenate([pattern, np.zeros((1, pattern.shape[1]), dtype=bool)])
    return int(padded[order].reshape(-1, WIDTH, pattern.shape[1]).any(1).sum())


def plain_order(hidden: int) -> np.ndarray:
    """0, 1, ..., hidden - 1, then -1 up to a multiple of WIDTH."""
    order = np.full(-(-hidden // WIDTH) * WIDTH, -1)
    order[:hidden] = np.arange(hidden)
    return order


def similar_order(pattern: np.ndarray) -> np.ndarray | None:
    """An order of units with fewer blocks than the present one, or None; int64 (blocks x WIDTH,), -1 for padding.

    Greedy: a block starts with the unit of most features, and then takes, one by one, the unit that shares most with
    those it has (each shared feature is a block saved). Ties go to the lower number, so the order is always the same.
    """
    hidden, features = pattern.shape
    if hidden <= WIDTH or not pattern.any() or hidden * hidden // 2 * -(-features // 64) > MOST_WORK:
        return None
    bits = np.packbits(np.pad(pattern, ((0, 0), (0, -features % 64))), axis=1).view(np.uint64)
    # The last block of a layer may be short; where its units went to, only padding leaves it as it was.
    tries = [_greedy(bits, patient) for patient in ((False, True) if hidden % WIDTH else (False,))]
    best = min(tries, key=lambda order: blocks(pattern, order))
    return best if blocks(pattern, best) < blocks(pattern, plain_order(hidden)) else None


def _greedy(bits: np.ndarray, patient: bool) -> np.ndarray:
    """The order; `patient`: rather padding than a unit that brings more new features than it shares."""
    hidden = len(bits)
    padding = -hidden % WIDTH
    sizes = np.bitwise_count(bits).sum(1, dtype=np.int64)
    most = int(sizes.max()) + 1
    left = np.arange(hidden)
    order = np.full(hidden + padding, -1)
    for first in range(0, len(order), WIDTH):
        rows, size = bits[left], sizes[left]
        chosen = [int(size.argmax())]
        union = rows[chosen[0]].copy()
        taken = np.zeros(len(left), dtype=bool)
        taken[chosen[0]] = True
        while len(chosen) < min(WIDTH, len(left)):
            shared = np.bitwise_count(rows & union).sum(1, dtype=np.int64)
            # Of those that share as much, the one with the fewest features of its own.
            score = np.where(taken, -1, shared * most + most - 1 - size)
            best = int(score.argmax())
            room = WIDTH - len(chosen)
            if patient and room <= padding and 2 * int(shared[best]) < int(size[best]):
                padding -= room
                break
            chosen.append(best)
            taken[best] = True
            union |= rows[best]
        order[first : first + len(chosen)] = left[chosen]
        left = left[~taken]
        if not len(left):
            break
    return order
