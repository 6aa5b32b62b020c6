"""Code that tracing can't follow: what it looks at stays in its place. Thirty of the models of `untraceable`."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import sparsernn as srn

from .untraceable import changed


@pytest.mark.parametrize("number", [*range(27), 34, 73, 79])
def test_models_that_look_at_units_keep_their_function(number):
    assert changed(number) == ""


class Sign(nn.Module):
    def __init__(self, look) -> None:
        super().__init__()
        self.rnn, self.head, self.look = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 3), look

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y if float(self.look(y)) > 0 else -y)


def compacted(look) -> nn.Module:
    torch.manual_seed(0)
    model = Sign(look).double().eval()
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0, model.head.weight):
            weight[:, [0, 4, 6]] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return srn.compact(model, torch.randn(2, 4, 5, dtype=torch.float64))


def test_units_after_the_one_that_python_reads_go_plainly():
    """Unit 0 stands before unit 1, so that adapters keep its place; the rest alone would go without them."""
    for look, hooks in ((lambda y: y[..., 1].sum(), True), (lambda y: y.detach()[0, 0, -1] * 0 + 1, False)):
        small = compacted(look)
        assert small.rnn.hidden_size == 5
        assert bool(small.rnn._forward_hooks) == hooks


class Branches(nn.Module):
    """The branch that no example takes reads all units."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head, self.other = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 3), other

    def forward(self, x):
        y, _ = self.rnn(x)
        if float(y[..., 1].sum() * 0.001 + x.mean()) > 0:
            return self.head(y)
        return self.other(y.transpose(1, 2)) if isinstance(self.other, nn.Conv1d) else self.other(y)


@pytest.mark.parametrize("other", [lambda: nn.Linear(8, 3), lambda: nn.GRU(8, 3), lambda: nn.Conv1d(8, 3, 1)])
def test_a_branch_that_no_example_took_is_refused_behind_adapters_too(other):
    torch.manual_seed(0)
    model = Branches(other()).eval()
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0, model.head.weight):
            weight[:, [0, 4, 6]] = 0.0
    x = torch.rand(2, 4, 3) + 0.1
    with pytest.warns(UserWarning, match="no example reached other"):
        small = srn.compact(model, x)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-5)
        assert small.rnn.hidden_size == 5
        with pytest.raises(RuntimeError, match="other reads units that were cut: no example reached this branch"):
            small(-x)
