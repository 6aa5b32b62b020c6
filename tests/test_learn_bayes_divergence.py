"""The divergence of Bayesian sparsification and its slopes, against numerical integration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsernn.learn.bayes.variational import add_slopes, divergence, kl, log_alpha


def exact(alpha_log: Tensor) -> Tensor:
    """KL of N(1, alpha) from the log-uniform prior up to a constant, by numerical integration."""
    edges = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = torch.exp(-(middle**2) / 2)
    density /= density.sum()
    values = [(density * (1 + torch.exp(a / 2) * middle).abs().log()).sum() for a in alpha_log]
    return torch.stack(values) - alpha_log / 2


@pytest.mark.smoke
def test_the_divergence_and_its_slope_against_numerical_integration():
    a = torch.linspace(-7.9, 7.9, 80, dtype=torch.float64, requires_grad=True)
    value = kl(a)
    off = value.detach() - exact(a.detach())
    assert (off - (off.max() + off.min()) / 2).abs().max() < 0.012
    (slope,) = torch.autograd.grad(value.sum(), a)
    step = 1e-2
    numeric = (exact(a.detach() + step) - exact(a.detach() - step)) / (2 * step)
    assert (slope - numeric).abs().max() < 0.02


def test_the_gradient_in_closed_form_is_that_of_the_divergence():
    torch.manual_seed(0)
    a = torch.linspace(-9, 9, 61, dtype=torch.float64)
    mean = (torch.randn(61).double().sign() * (0.1 + torch.rand(61).double())).requires_grad_()
    sigma = (a / 2 + mean.detach().abs().log()).requires_grad_()
    kl(log_alpha(mean, sigma)).sum().backward()
    found = [torch.zeros_like(mean), torch.zeros_like(mean)]
    add_slopes(mean.detach(), sigma.detach(), 1.0, *found)
    again = torch.autograd.grad(divergence(mean, sigma), (mean, sigma))
    for expected, one, other in zip((mean.grad, sigma.grad), found, again):
        torch.testing.assert_close(one, expected)
        torch.testing.assert_close(other, expected)
    outside = a.abs() > 8
    assert not found[1][outside].any()


def test_dead_and_infinite_values_give_finite_gradients():
    mean = torch.tensor([0.0, 1e-30, 1.0, -2.0])
    sigma = torch.tensor([-3.0, -3.0, -torch.inf, 30.0])
    found = [torch.zeros(4), torch.zeros(4)]
    add_slopes(mean, sigma, 1.0, *found)
    assert all(bool(part.isfinite().all()) for part in found)
    assert divergence(mean, sigma).isfinite()
