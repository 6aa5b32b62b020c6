"""A matrix of which each row, or each group of rows, reads some inputs alone: which those are, and the weights there.

A row that reads the inputs of A alone and is to give what W x + b gave is, by least squares over the inputs that were
seen, W C_:A C_AA^-1 with C = mean [x; 1][x; 1]^T. Without a further input j it errs by w_j^2 / (C_AA^-1)_jj more
(optimal brain surgeon, Hassibi and Stork, NeurIPS 1992).
"""

from __future__ import annotations

import torch
from torch import Tensor


def solved_on(rows_RI: Tensor, moment_II: Tensor, support_GI: Tensor, group_R: Tensor) -> Tensor:
    """Each row solved anew on the inputs that its group has in `support_GI`, bool; zero at the others.

    `moment_II`: C of the inputs, float64, positive definite; the constant, where there is one, is the last input.
    """
    right_RI = rows_RI @ moment_II
    result_RI = rows_RI.clone()
    for group, there in enumerate(support_GI):
        if bool(there.all()):
            continue
        mine = torch.nonzero(group_R == group)[:, 0]
        at = torch.nonzero(there)[:, 0]
        result_RI[mine] = 0
        factor = torch.linalg.cholesky(moment_II[at][:, at])
        result_RI[mine[:, None], at] = torch.cholesky_solve(right_RI[mine][:, at].T, factor).T
    return result_RI


def least_lost(
    rows_RI: Tensor, moment_II: Tensor, support_GI: Tensor, group_R: Tensor, inputs: int, width: int
) -> Tensor:
    """By how much more the rows err without each block, the rest making up for it: (groups, words of `width` inputs).

    `rows_RI` solves on `support_GI`; what is out already has 0. Only the first `inputs` columns are of blocks.
    """
    groups, columns = support_GI.shape
    found = rows_RI.new_zeros(groups, -(-inputs // width))
    whole: Tensor | None = None
    for group, there in enumerate(support_GI):
        at = torch.nonzero(there)[:, 0]
        if len(at) == columns and whole is not None:
            inverse = whole
        else:
            # Of what is out the inverse is the unit matrix: its weights are zero, and so is what they lose.
            inverse = torch.eye(columns, dtype=rows_RI.dtype)
            inverse[at[:, None], at] = torch.cholesky_inverse(torch.linalg.cholesky(moment_II[at][:, at]))
            whole = inverse if len(at) == columns else whole
        mine_RI = rows_RI[group_R == group, :inputs]
        inverse = inverse[:inputs, :inputs]
        if width == 1:
            found[group] = mine_RI.square().sum(0) / inverse.diagonal()
            continue
        more = -inputs % width
        padded = torch.eye(inputs + more, dtype=rows_RI.dtype)
        padded[:inputs, :inputs] = inverse
        index = torch.arange(inputs + more).view(-1, width)
        own_WII = padded[index[:, :, None], index[:, None, :]]
        words_WIR = torch.nn.functional.pad(mine_RI, (0, more)).T.unflatten(0, (-1, width))
        found[group] = (torch.linalg.solve(own_WII, words_WIR) * words_WIR).sum((1, 2))
    return found
