"""Removing inputs of matrices so that the rest makes up for them: greedy choice and exact solution by least squares.

A matrix R reads inputs x with bias b. With C = mean [x; 1][x; 1]^T over many positions, the mean squared change of
R x + b by leaving input k out, the other inputs' weights and the bias being free, is |R_k|^2 / (C^-1)_kk: the optimal
brain surgeon (Hassibi and Stork, NeurIPS 1992) for one layer's outputs, a whole column at a time. With each
removal C^-1 and R^T R change by rank one and two.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

SLACK = 0.85  # matrices are cut to the inputs that are left once fewer than this share are
FAINT, FAINTEST = 0.01, 1e-6  # of the mean power: below the first the ridge is less, in proportion, down to the second
PENDING = 64  # removals at most before the matrices are brought up to date, in one pass


class Reader:
    """One reading matrix in the course of removal, float64.

    `rows_RI`: the matrix; where it has a bias that may take up the constant, the bias is its last column. `moment_II`:
    the mean of [x; 1][x; 1]^T, without the constant where there is no such bias. `groups_I`: the group of each input,
    -1: none. `ridge`: added to the diagonal, in shares of `power` (None: of its mean), the constant's place apart.
    """

    def __init__(
        self,
        rows_RI: Tensor,
        moment_II: Tensor,
        groups_I: Tensor,
        ridge: float,
        *,
        bias: bool,
        power: float | None = None,
    ) -> None:
        moment_II = with_ridge(moment_II, ridge, len(moment_II) - bias, power)
        self.moment_II, self.groups_I = moment_II, groups_I
        narrow = rows_RI.float()  # half the memory, where nothing is lost by it
        self._rows_RI = narrow if torch.equal(narrow.double(), rows_RI) else rows_RI.clone()
        may_go = torch.nonzero(groups_I >= 0)[:, 0]
        self.groups = groups_I[may_go]
        inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(moment_II))
        self._inverse = inverse_II[may_go][:, may_go].contiguous()
        own = rows_RI[:, may_go]
        self._gram = own.T @ own
        self._left = torch.ones(len(may_go), dtype=torch.bool)
        self._begin()

    def _begin(self) -> None:
        """Nothing is pending: `_inverse` and `_gram` are C^-1 and R^T R of what is left."""
        self._diagonal, self._squares = self._inverse.diagonal().clone(), self._gram.diagonal().clone()
        self._columns, self._shares, self._halves = (self._inverse.new_zeros(PENDING, len(self._left)) for _ in "cua")
        self._pending = 0

    def copied(self) -> Reader:
        """The same, to go on from here apart."""
        other = copy.copy(self)
        for name in ("_inverse", "_gram", "_left", "_diagonal", "_squares", "_columns", "_shares", "_halves"):
            setattr(other, name, getattr(self, name).clone())
        return other

    def errors(self, count: int) -> Tensor:
        """Mean squared change (count,) of the outputs, summed over rows, by leaving each group out; 0: not read."""
        groups = self.groups[self._left]
        found = torch.zeros(count, dtype=torch.float64)
        members = torch.bincount(groups, minlength=count)
        single = members[groups] == 1
        found[groups[single]] = (self._squares / self._diagonal)[self._left][single]
        for group in torch.unique(groups[~single]).tolist():
            found[group] = self._error(torch.nonzero((self.groups == group) & self._left)[:, 0])
        return found

    def _error(self, at: Tensor) -> float:
        inverse, gram = self._rows(at)
        return float(torch.linalg.solve(inverse[:, at], gram[:, at]).diagonal().sum())

    def _rows(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of C^-1 and R^T R, what is pending taken in."""
        columns, shares, halves = (each[: self._pending] for each in (self._columns, self._shares, self._halves))
        inverse = self._inverse[at] - columns[:, at].T @ shares
        gram = self._gram[at] - shares[:, at].T @ halves - halves[:, at].T @ shares
        return inverse, gram

    def remove(self, group: int) -> None:
        """Take the group's inputs out, one after the other."""
        if self._pending >= PENDING // 2:
            self._settle()
            self._cut()
        for at in torch.nonzero((self.groups == group) & self._left):
            if self._pending == PENDING:
                self._settle()
            k = int(at)
            column, row = (rows[0] for rows in self._rows(at))
            u = column / column[k]
            a = row - 0.5 * row[k] * u
            self._columns[self._pending], self._shares[self._pending], self._halves[self._pending] = column, u, a
            self._diagonal.addcmul_(column, u, value=-1)
            self._squares.addcmul_(u, a, value=-2)
            self._left[k] = False
            self._pending += 1

    def _settle(self) -> None:
        """Bring the matrices up to date: what is pending is zero beyond its number."""
        self._inverse -= self._columns.T @ self._shares
        both, turned = torch.cat([self._shares, self._halves]), torch.cat([self._halves, self._shares])
        self._gram -= both.T @ turned
        self._begin()

    def _cut(self) -> None:
        """Cut the matrices to what is left once that is much less; nothing is pending."""
        if int(self._left.sum()) < SLACK * len(self._left):
            keep = self._left
            self._inverse = self._inverse[keep][:, keep].contiguous()
            self._gram = self._gram[keep][:, keep].contiguous()
            self.groups = self.groups[keep]
            self._left = torch.ones(len(self.groups), dtype=torch.bool)
            self._begin()

    def solved(self, gone: Tensor) -> Tensor:
        """The matrix whose remaining inputs make up best for those of the groups in `gone`, bool, which are zero."""
        out_I = torch.cat([gone, gone.new_zeros(1)])[self.groups_I]
        stay, out = torch.nonzero(~out_I)[:, 0], torch.nonzero(out_I)[:, 0]
        factor = torch.linalg.cholesky(self.moment_II[stay][:, stay])
        # What each input that goes is by the ones that stay: fewer right sides than there are rows.
        by = torch.cholesky_solve(self.moment_II[stay][:, out], factor)
        spread = by.new_zeros(len(out), len(out_I))
        spread[:, stay] = by.T
        result = self._rows_RI.to(torch.float64, copy=True)
        lost = result[:, out]
        result[:, out] = 0
        return result.addmm_(lost, spread)

    def change(self, result_RI: Tensor) -> float:
        """Mean squared change of the outputs, summed over rows, if the matrix were `result_RI`."""
        difference = result_RI - self._rows_RI
        return float(((difference @ self.moment_II) * difference).sum())


def with_ridge(moment_II: Tensor, ridge: float, inputs: int, power: float | None = None) -> Tensor:
    """`moment_II` with `ridge` times `power`, or the mean power of the first `inputs` inputs, on their diagonal.

    Less where an input has next to no power itself: what is always zero costs nothing to leave out, however large its
    weights are.
    """
    moment_II = moment_II.clone()
    diagonal = moment_II.diagonal()[:inputs]
    mean = float(diagonal.mean()) if power is None else power
    # Where nothing ever came in (states before a first and only step) any weights do: let them be.
    diagonal.add_(ridge * (diagonal / FAINT).clamp(FAINTEST * mean, mean) if mean else 1.0)
    return moment_II


class Sizes:
    """How many governed weights the groups hold, at the widths of the moment.

    `members`: parameter -> for each of its two axes the group of each index, -1: none; `other`: of further axes.
    """

    def __init__(self, members: Mapping[str, tuple[Tensor, Tensor]], count: int) -> None:
        self._hits = [tuple(_counted(axis, count) for axis in axes) for axes in members.values()]
        self._alive = [[len(axis) for axis in axes] for axes in members.values()]
        self.total = self.left = sum(a * b for a, b in self._alive)

    def freed(self) -> Tensor:
        """Weights that would go with each group, float64 (count,)."""
        parts = [r * cols + q * rows - r * q for (r, q), (rows, cols) in zip(self._hits, self._alive)]
        return torch.stack(parts).sum(0).double()

    def remove(self, group: int) -> None:
        """Take the group out."""
        for (r, q), alive in zip(self._hits, self._alive):
            alive[0] -= int(r[group])
            alive[1] -= int(q[group])
        self.left = sum(a * b for a, b in self._alive)


def _counted(groups: Tensor, count: int) -> Tensor:
    return torch.bincount(groups[groups >= 0], minlength=count)
