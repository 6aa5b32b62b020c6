"""Matrices as products of two thinner ones: the best of each rank on the inputs that are seen, and ranks by one budget.

For a matrix W and the second moments C of its inputs the matrix of rank r with the least mean squared change of its
outputs, tr((W - W') C (W - W')^T), is U_r U_r^T W, U_r the first r left singular vectors of W C^(1/2) (Eckart and
Young, 1936, in the norm of C; DRONE, Chen et al., NeurIPS 2021). Where W has a bias, C is taken about the mean, and the
bias takes up what the change does to the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..structure.sites import Site
from .least_squares import with_ridge

NOTHING = 1e-24  # a share of all energy that is rounding


@dataclass(frozen=True)
class Step:
    """What a matrix may be given next: `gain` in mean square for `cost` weights. It has `rank` then; 0: it is whole."""

    gain: float
    cost: int
    rank: int


class Spectrum:
    """One matrix (rows, columns), float64, and its best approximations of every rank."""

    def __init__(self, site: Site, weight: Tensor, ridge: float) -> None:
        self.site, self.rows_RI = site, site.rows(weight)
        total = site.moments.total / site.moments.count
        self.moment_II, self.mean_I = total[:-1, :-1], total[:-1, -1]
        if site.bias is not None:
            self.moment_II = self.moment_II - torch.outer(self.mean_I, self.mean_I)
        powers, vectors = torch.linalg.eigh(with_ridge(self.moment_II, ridge, len(self.moment_II)))
        seen_RI = (self.rows_RI @ vectors) * powers.clamp(min=0).sqrt()
        self.left_RK, self.values, _ = torch.linalg.svd(seen_RI, full_matrices=False)
        rows, columns = self.rows_RI.shape
        self.whole, self.each = rows * columns, rows + columns

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """(rows, rank) and (rank, columns), each component's share of both equally large."""
        out = self.left_RK[:, :rank]
        inner = out.T @ self.rows_RI
        balance = inner.norm(dim=1).clamp(min=1e-150).sqrt()
        return out * balance, inner / balance[:, None]

    def low(self, rank: int) -> Tensor:
        """The matrix of this rank; rank 0: itself."""
        return self.rows_RI if rank == 0 else torch.mm(*self.factors(rank))

    def moved(self, rank: int) -> Tensor:
        """What the bias takes up, (rows,)."""
        return (self.rows_RI - self.low(rank)) @ self.mean_I

    def change(self, rank: int) -> float:
        """Mean squared change of what the matrix gives, summed over rows."""
        difference = self.rows_RI - self.low(rank)
        return float(((difference @ self.moment_II) * difference).sum())

    def steps(self, scale: float) -> list[Step]:
        """From nothing to the whole matrix, in an order in which each step gains at most as much a weight as the one
        before; the first is the least that the matrix can have."""
        energy = [float(v) * scale for v in self.values.square()]
        floor = sum(energy) * NOTHING
        most = (self.whole - 1) // self.each  # more components than that are no fewer weights
        found = [Step(e, self.each, n + 1) for n, e in enumerate(energy[:most]) if n == 0 or e > floor]
        rest = sum(energy[len(found) :])
        if rest > floor or not found:
            found.append(Step(rest, self.whole - self.each * len(found), 0))
        pooled: list[Step] = found[:1]
        for step in found[1:]:
            while len(pooled) > 1 and pooled[-1].gain * step.cost < step.gain * pooled[-1].cost:
                last = pooled.pop()
                step = Step(last.gain + step.gain, last.cost + step.cost, step.rank)
            pooled.append(step)
        return pooled


def ranks_by(spectra: Sequence[Spectrum], scales: Sequence[float], budget: float) -> tuple[list[int], int]:
    """The rank of each matrix (0: whole), and the weights that they take together; at most `budget` of them.

    What gains most for each weight comes first. Raises ValueError, with the least share, where even rank 1 is too much.
    """
    ladders = [s.steps(scale) for s, scale in zip(spectra, scales)]
    ranks, used = [ladder[0].rank for ladder in ladders], sum(ladder[0].cost for ladder in ladders)
    if used > budget:
        raise ValueError(f"at least {used / sum(s.whole for s in spectra):.3f}, with every matrix of rank 1")
    offers = [
        (-step.gain / step.cost, n, place, step)
        for n, ladder in enumerate(ladders)
        for place, step in enumerate(ladder[1:])
    ]
    full: set[int] = set()
    for _, n, _, step in sorted(offers, key=lambda offer: offer[:3]):
        if n in full or used + step.cost > budget + 1e-6:
            full.add(n)  # nothing beyond what did not fit
            continue
        ranks[n], used = step.rank, used + step.cost
    return ranks, used


def finite_or_one(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else 1.0
