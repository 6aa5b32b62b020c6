"""Which groups are gone at the start of a sparse training, and how many of each matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .levels import Level
from .select import lowest

Initial = Literal["uniform", "erdos-renyi"]


def uniform(counts: Sequence[int], sparsity: float) -> list[int]:
    """The same share of each matrix of `counts` groups, round(sparsity n) of all n together."""
    return apportioned([sparsity * count for count in counts], round(sparsity * sum(counts)), counts)


def erdos_renyi(shapes: Sequence[Sequence[int]], counts: Sequence[int], sparsity: float) -> list[int]:
    """Densities proportional to (rows + columns) / (rows columns), at most 1, as in Mocanu et al. (2018, equation 1)
    and Evci et al. (arXiv 1911.11134): small matrices stay denser. round(sparsity n) of all n groups together are gone.
    """
    total = sum(counts)
    kept = total - round(sparsity * total)
    raw = [sum(shape) / (shape[0] * shape[1]) for shape in shapes]
    full: set[int] = set()
    while True:
        rest = [m for m in range(len(counts)) if m not in full]
        weight = sum(raw[m] * counts[m] for m in rest)
        scale = (kept - sum(counts[m] for m in full)) / weight if rest else 0.0
        over = {m for m in rest if scale * raw[m] > 1}
        if not over:
            break
        full |= over
    wanted = [float(counts[m]) if m in full else scale * raw[m] * counts[m] for m in range(len(counts))]
    return [count - own for count, own in zip(counts, apportioned(wanted, kept, counts))]


def apportioned(wanted: Sequence[float], total: int, most: Sequence[int]) -> list[int]:
    """Whole numbers near `wanted`, at most `most`, with the sum `total`: those of the largest remainders go up."""
    found = [min(int(value), limit) for value, limit in zip(wanted, most)]
    order = sorted(range(len(wanted)), key=lambda m: found[m] - wanted[m])
    for m in order[: total - sum(found)]:
        found[m] += 1
    return found


def drawn(
    level: Level,
    scopes: Sequence[slice | Tensor],
    shapes: Sequence[tuple[int, ...]],
    initial: Initial,
    sparsity: float,
    draw: Tensor,
) -> Tensor:
    """The groups, bool (count,), with the lowest of `draw`: as many of each matrix as `initial` says."""
    matrices = [scope for scope in level.scopes("matrix") if isinstance(scope, slice)]
    if initial == "uniform":
        sets = []
        for scope in scopes:
            inside = torch.zeros(level.count, dtype=torch.bool)
            inside[scope] = True
            sets.append([matrix for matrix in matrices if bool(inside[matrix.start])])
    else:
        sets = [matrices]
    gone = torch.zeros(level.count, dtype=torch.bool)
    for own in sets:
        counts = [matrix.stop - matrix.start for matrix in own]
        numbers = uniform(counts, sparsity) if initial == "uniform" else erdos_renyi(shapes, counts, sparsity)
        for matrix, number in zip(own, numbers):
            gone[matrix] = lowest(draw[matrix], number)
    return gone
