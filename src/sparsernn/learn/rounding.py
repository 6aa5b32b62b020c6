"""Rounding a matrix to few bits so that later inputs make up for what earlier ones lost (GPTQ, arXiv 2210.17323).

Each row has one scale. Inputs are taken in the order of their power; the error of rounding one goes, by least squares
over the inputs that were seen, into the weights that are not yet rounded, and into the bias last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structure.grids import with_digits
from .least_squares import with_ridge
from .recording import Recording

LARGEST = {8: 127, 4: 7}  # steps on either side of zero
CLIPS = tuple(1 - 0.05 * n for n in range(11))  # shares of a row's largest weight at which the grid may end
BLOCK = 128  # inputs whose errors are carried on together, as GPTQ does


def round_matrices(model: nn.Module, recording: Recording, weights: Sequence[str], ridge: float, bits: int) -> None:
    """Put the matrices `weights` of `model` whose operands were recorded on grids of `bits` bits, in place.

    Zeros stay; scales have few enough digits that every weight is exact in the parameter's type.
    """
    parameters = dict(model.named_parameters())
    for name in weights:
        site = recording.site(name)
        if isinstance(site, str):
            continue
        parameter = parameters[name]
        rows_RI, moment_II = site.rows(parameter), site.moments.total / site.moments.count
        inputs = rows_RI.shape[1]
        if site.bias is None:
            moment_II = moment_II[:-1, :-1]
        else:
            bias = parameters[site.bias].detach()
            rows_RI = torch.cat([rows_RI, bias.to("cpu", torch.float64)[:, None]], dim=1)
        digits = 1 - round(math.log2(torch.finfo(parameter.dtype).eps)) - (bits - 1)
        result = rounded(rows_RI, with_ridge(moment_II, ridge, inputs), inputs, bits, min(16, digits))
        if site.bias is not None:
            bias = parameters[site.bias].detach()
            bias.copy_(result[:, -1].to(bias))
        site.put(parameter, result[:, :inputs])


def rounded(rows_RI: Tensor, moment_II: Tensor, inputs: int, bits: int, digits: int = 16) -> Tensor:
    """The rows with their first `inputs` weights on one grid a row, float64; what is left of the columns is free.

    `moment_II`: mean of x x^T, positive definite; `digits`: binary digits of a scale.
    """
    largest = LARGEST[bits]
    alive = torch.nonzero((rows_RI[:, :inputs] != 0).any(0))[:, 0]
    if not len(alive):
        return rows_RI.clone()
    order = alive[moment_II.diagonal()[alive].argsort(descending=True, stable=True)]
    at = torch.cat([order, torch.arange(inputs, rows_RI.shape[1])])
    left_RA = rows_RI[:, at].clone()
    scale_R = _scales(left_RA[:, : len(order)], moment_II.diagonal()[order], largest, digits)
    there_RA = left_RA != 0
    inverse_AA = torch.cholesky_inverse(torch.linalg.cholesky(moment_II[at][:, at]))
    carry_AA = torch.linalg.cholesky(inverse_AA, upper=True)
    for begin in range(0, len(order), BLOCK):
        end = min(begin + BLOCK, len(order))
        errors = left_RA.new_zeros(len(left_RA), end - begin)
        for j in range(begin, end):
            value_R = (left_RA[:, j] / scale_R).round().clamp(-largest, largest) * scale_R * there_RA[:, j]
            errors[:, j - begin] = (left_RA[:, j] - value_R) / carry_AA[j, j]
            left_RA[:, j] = value_R
            left_RA[:, j + 1 : end].addr_(errors[:, j - begin], carry_AA[j, j + 1 : end], alpha=-1)
        left_RA[:, end:] -= errors @ carry_AA[begin:end, end:]
    result_RI = torch.zeros_like(rows_RI)
    result_RI[:, at] = left_RA
    return result_RI


def _scales(rows_RA: Tensor, power_A: Tensor, largest: int, digits: int) -> Tensor:
    """The scale of each row that loses least, by the power of the inputs: a few large weights may be clipped."""
    most_R = rows_RA.abs().amax(1)
    best_R = lost_R = None
    for clip in CLIPS:
        scale_R = with_digits(torch.where(most_R > 0, most_R * clip / largest, 1.0), digits)
        grid_RA = (rows_RA / scale_R[:, None]).round().clamp(-largest, largest) * scale_R[:, None]
        own_R = (rows_RA - grid_RA).square() @ power_A
        if best_R is None or lost_R is None:
            best_R, lost_R = scale_R, own_R
        else:
            best_R, lost_R = torch.where(own_R < lost_R, scale_R, best_R), torch.minimum(own_R, lost_R)
    assert best_R is not None
    return best_R
