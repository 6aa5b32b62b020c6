"""Sizes bounded by a loss: the smallest net within it comes back."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from learn_models import tagger, tokens, train, widths_left
from sparsernn.learn.shrink import Shrink


@pytest.mark.parametrize("stop", [None, 25])
def test_the_loss_bounds_the_size_and_the_last_good_net_comes_back(stop):
    """A loss that rises with what is gone: the last stage that keeps within it is found, and its weights."""

    def make():
        model = tagger(hidden=30)
        optimizer = torch.optim.SGD(model.parameters(), 0.0)

        def validate() -> float:
            return 1.0 + 0.01 * int((model.head.weight == 0).all(0).sum())

        sparsifier = Shrink(model, tokens(), max_loss=0.1, validate=validate, steps=100).attach(optimizer)
        return model, optimizer, sparsifier

    model, optimizer, sparsifier = make()
    train(model, optimizer, stop or 100)
    if stop:
        kept = copy.deepcopy((model.state_dict(), sparsifier.state_dict()))
        model, optimizer, sparsifier = make()
        model.load_state_dict(kept[0])
        sparsifier.load_state_dict(kept[1])
        train(model, optimizer, 100 - stop, first=stop)
    sparsifier.finish()
    assert 7 <= 30 - widths_left(model)["rnn.l0"] <= 10
    alive = ~(model.head.weight == 0).all(0)
    first = tagger(hidden=30)
    assert torch.equal(model.head.weight[:, alive], first.head.weight[:, alive])


def test_a_loss_that_never_rises_leaves_little_and_one_that_rises_at_once_leaves_all():
    for validate, low, high in ((lambda: 1.0, 0.0, 0.06), (iter([1.0, 2.0]).__next__, 1.0, 1.0)):
        model = tagger(hidden=30)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        sparsifier = Shrink(model, tokens(), max_loss=0.01, validate=validate, steps=100).attach(optimizer)
        train(model, optimizer, 100)
        sparsifier.finish()
        assert low <= sparsifier.density() <= high


@pytest.mark.parametrize("start", [-20.0, -0.5, 0.5, 20.0])
def test_a_negative_loss_may_rise_by_its_share_too(start):
    """Log densities and negated signal-to-noise ratios: less is better, and the bound lies above the first value."""
    model = tagger(hidden=30)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)

    def validate() -> float:
        return start + 0.01 * abs(start) * int((model.head.weight == 0).all(0).sum())

    sparsifier = Shrink(model, tokens(), max_loss=0.101, validate=validate, steps=100).attach(optimizer)
    train(model, optimizer, 100)
    sparsifier.finish()
    assert 7 <= 30 - widths_left(model)["rnn.l0"] <= 10


@pytest.mark.parametrize("least", [0.5, 0.05])
def test_the_smallest_share_that_a_loss_allows_is_an_option(least):
    model = tagger(hidden=30)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = Shrink(model, tokens(), max_loss=0.1, validate=lambda: 1.0, least=least, steps=60).attach(optimizer)
    train(model, optimizer, 60)
    assert 0.5 * least < sparsifier.density() <= least


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_first_loss_that_bounds_nothing_is_named(value):
    model = tagger(hidden=30)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    Shrink(model, tokens(), max_loss=0.1, validate=lambda: value, steps=60).attach(optimizer)
    with pytest.raises(ValueError, match=r"validate\(\) gave (0|nan|inf) before anything went"):
        train(model, optimizer, 1)
