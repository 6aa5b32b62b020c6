"""Gaussian posteriors under a log-uniform prior: their KL divergence, its value and its gradient.

With q = N(mean, sigma^2) and p(|w|) ~ 1 / |w| the divergence depends on alpha = sigma^2 / mean^2 alone, so it does not
change when mean and sigma are scaled together. It has no closed form; the approximation is that of Lobacheva et al.
(arXiv 1911.05585, section 2; after Molchanov et al., arXiv 1701.05369)

    KL = log(1 + 1/alpha) / 2 - 0.03 - 0.64 sigmoid(1.5 (log alpha + 1.3)) + constant,

with log alpha clipped to [-8, 8]: beyond it nothing pulls any more.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOWEST, HIGHEST = -8.0, 8.0  # of log alpha
_SHIFT = math.exp(-1.95)
_CHUNK = 2**16  # elements: the temporaries of a pass then stay in the processor's cache


def log_alpha(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log(sigma^2 / mean^2), clipped to [-8, 8]."""
    return (2 * (log_sigma - mean.abs().log())).clamp(LOWEST, HIGHEST)


def kl(log_alpha: Tensor) -> Tensor:
    """The divergence of each element, up to a constant; it tends to -0.67 for large alpha."""
    return 0.5 * torch.nn.functional.softplus(-log_alpha) - 0.03 - 0.64 * torch.sigmoid(1.5 * (log_alpha + 1.3))


def divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Sum of the divergences of all elements, a scalar, differentiable in both."""
    return _Divergence.apply(mean, log_sigma)  # type: ignore[return-value]


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(mean: Tensor, log_sigma: Tensor) -> Tensor:
        return kl(log_alpha(mean, log_sigma)).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        mean, log_sigma = ctx.saved_tensors
        by_mean, by_sigma = torch.zeros_like(mean), torch.zeros_like(log_sigma)
        add_slopes(mean, log_sigma, grad, by_mean, by_sigma)
        return by_mean, by_sigma


def add_slopes(mean: Tensor, log_sigma: Tensor, scale: Tensor | float, by_mean: Tensor, by_sigma: Tensor) -> None:
    """Add `scale` times the gradient of the divergence to `by_mean` and `by_sigma`, in place.

    In terms of q = |mean| / sigma = alpha^(-1/2) the two sigmoids are 1 / (1 + q^2) and 1 / (1 + exp(-1.95) q^3), so
    that one exponential and no logarithm is all it takes; beyond the range of log alpha the slope is zero.
    """
    scale, one = float(scale), mean.new_ones(())
    chunks = (t.reshape(-1).split(_CHUNK) if t.is_contiguous() else (t,) for t in (mean, log_sigma, by_mean, by_sigma))
    for m, s, to_mean, to_sigma in zip(*chunks):
        inverse = s.neg().exp_().clamp_(max=1e12)  # without noise: far beyond the range
        ratio = torch.nn.functional.hardshrink(m * inverse, math.exp(-HIGHEST / 2))
        q, square = ratio.abs(), ratio * ratio
        high = torch.addcmul(one, q, square, value=_SHIFT).reciprocal_()
        part = (square + 1).reciprocal_().addcmul_(q * high, high, value=1.92 * _SHIFT)
        part.masked_fill_(q >= math.exp(-LOWEST / 2), 0)
        to_sigma.addcmul_(square, part, value=-scale)
        to_mean.addcmul_(part.mul_(ratio), inverse, value=scale)
