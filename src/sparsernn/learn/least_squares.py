"""Removing inputs of matrices so that the rest makes up for them: greedy choice and exact solution by least squares.

A matrix R reads inputs x with bias b. With C = mean [x; 1][x; 1]^T over many positions, the mean squared change of
R x + b by leaving input k out, the other inputs' weights and the bias being free, is |R_k|^2 / (C^-1)_kk: the optimal
brain surgeon (Hassibi and Stork, NeurIPS 1992) for one layer's outputs, a whole column at a time. After each removal
C^-1 and R^T R are brought up to date by rank one and two.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

SLACK = 0.85  # matrices are cut to the inputs that are left once fewer than this share are


class Reader:
    """One reading matrix in the course of removal, float64.

    `rows_RI`: the matrix; where it has a bias that may take up the constant, the bias is its last column. `moment_II`:
    the mean of [x; 1][x; 1]^T, without the constant where there is no such bias. `groups_I`: the group of each input,
    -1: none. `ridge`: added to the diagonal, in shares of its mean, the constant's place apart.
    """

    def __init__(self, rows_RI: Tensor, moment_II: Tensor, groups_I: Tensor, ridge: float, *, bias: bool) -> None:
        moment_II = with_ridge(moment_II, ridge, len(moment_II) - bias)
        self.moment_II, self.rows_RI, self.groups_I = moment_II, rows_RI, groups_I
        may_go = torch.nonzero(groups_I >= 0)[:, 0]
        self.groups = groups_I[may_go]
        inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(moment_II))
        self._inverse = inverse_II[may_go][:, may_go].contiguous()
        own = rows_RI[:, may_go]
        self._gram = own.T @ own
        self._left = torch.ones(len(may_go), dtype=torch.bool)

    def copied(self) -> Reader:
        """The same, to go on from here apart."""
        other = copy.copy(self)
        other._inverse, other._gram, other._left = self._inverse.clone(), self._gram.clone(), self._left.clone()
        return other

    def errors(self, count: int) -> Tensor:
        """Mean squared change (count,) of the outputs, summed over rows, by leaving each group out; 0: not read."""
        groups = self.groups[self._left]
        diagonal = (self._gram.diagonal() / self._inverse.diagonal())[self._left]
        found = torch.zeros(count, dtype=torch.float64)
        members = torch.bincount(groups, minlength=count)
        single = members[groups] == 1
        found[groups[single]] = diagonal[single]
        for group in torch.unique(groups[~single]).tolist():
            found[group] = self._error(torch.nonzero((self.groups == group) & self._left)[:, 0])
        return found

    def _error(self, at: Tensor) -> float:
        inverse, gram = self._inverse[at][:, at], self._gram[at][:, at]
        return float(torch.linalg.solve(inverse, gram).diagonal().sum())

    def remove(self, group: int) -> None:
        """Take the group's inputs out, one after the other."""
        for k in torch.nonzero((self.groups == group) & self._left)[:, 0].tolist():
            pivot = self._inverse[k, k].clone()
            column = self._inverse[k].clone()
            u = column / pivot
            a = self._gram[k] - 0.5 * self._gram[k, k] * u
            self._gram.addr_(u, a, alpha=-1).addr_(a, u, alpha=-1)
            self._inverse.addr_(column, u, alpha=-1)
            self._left[k] = False
        if int(self._left.sum()) < SLACK * len(self._left):
            keep = self._left
            self._inverse = self._inverse[keep][:, keep].contiguous()
            self._gram = self._gram[keep][:, keep].contiguous()
            self.groups = self.groups[keep]
            self._left = torch.ones(len(self.groups), dtype=torch.bool)

    def solved(self, gone: Tensor) -> Tensor:
        """The matrix whose remaining inputs make up best for those of the groups in `gone`, bool, which are zero."""
        stay = torch.nonzero(~torch.cat([gone, gone.new_zeros(1)])[self.groups_I])[:, 0]
        right = self.rows_RI @ self.moment_II[:, stay]
        factor = torch.linalg.cholesky(self.moment_II[stay][:, stay])
        result = torch.zeros_like(self.rows_RI)
        result[:, stay] = torch.cholesky_solve(right.T, factor).T
        return result

    def change(self, result_RI: Tensor) -> float:
        """Mean squared change of the outputs, summed over rows, if the matrix were `result_RI`."""
        difference = result_RI - self.rows_RI
        return float(((difference @ self.moment_II) * difference).sum())


def with_ridge(moment_II: Tensor, ridge: float, inputs: int) -> Tensor:
    """`moment_II` with `ridge` times the mean power of the first `inputs` inputs on their diagonal."""
    moment_II = moment_II.clone()
    diagonal = moment_II.diagonal()[:inputs]
    # Where nothing ever came in (states before a first and only step) any weights do: let them be.
    diagonal.add_(ridge * float(diagonal.mean()) or float(not diagonal.any()))
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
        for (r, q), alive in zip(self._hits, self._alive):
            alive[0] -= int(r[group])
            alive[1] -= int(q[group])
        self.left = sum(a * b for a, b in self._alive)


def _counted(groups: Tensor, count: int) -> Tensor:
    return torch.bincount(groups[groups >= 0], minlength=count)
