"""Scores that pruning goes by: magnitude, deviation, movement, Taylor's, random ones, and one of one's own."""

from __future__ import annotations

import math

import torch

from learn_models import tagger, train
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual, OneShot
from sparsernn.learn.scores import Magnitude, Movement, Random, Score, StandardDeviation, Taylor


def test_magnitude_removes_the_smallest():
    model = tagger()
    before = model.rnn.weight_ih_l0.detach().abs().clone()
    Prune(model, None, 0.6).finish()
    gone = model.rnn.weight_ih_l0 == 0
    assert before[gone].max() <= before[~gone].min()


def test_wang_class_variants():
    """Class-blind is one threshold for |w|, class-distribution one for |w| / std of its matrix."""
    for score, scale in ((Magnitude(), lambda w: w.abs()), (StandardDeviation(), lambda w: w.abs() / w.std())):
        model = tagger(num_layers=2)
        with torch.no_grad():
            model.head.weight.mul_(7)  # so that the variants differ
        before = {n: scale(p.detach().clone()) for n, p in model.named_parameters() if p.dim() == 2}
        Prune(model, None, 0.5, score=score, scope="model", include="all").finish()
        gone = torch.cat([before[n][model.get_parameter(n) == 0] for n in before])
        kept = torch.cat([before[n][model.get_parameter(n) != 0] for n in before])
        assert gone.max() <= kept.min()
        assert len(gone) == round(0.5 * (len(gone) + len(kept)))


def test_random_is_repeatable_and_differs_by_seed():
    def gone(seed):
        model = tagger()
        Prune(model, None, 0.5, score=Random(seed)).finish()
        return model.rnn.weight_hh_l0 == 0

    assert torch.equal(gone(3), gone(3))
    assert not torch.equal(gone(3), gone(4))


def test_movement_removes_what_training_moves_to_zero():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    score = Movement()
    sparsifier = Prune(model, None, 0.5, score=score, schedule=OneShot(at=6), include="rnn.weight_hh_l0")
    sparsifier.attach(optimizer)
    expected = torch.zeros_like(model.rnn.weight_hh_l0)
    weight = model.rnn.weight_hh_l0

    def add(*_):
        expected.sub_((weight * weight.grad).detach())

    optimizer.register_step_pre_hook(add)
    train(model, optimizer, 6)
    torch.testing.assert_close(score.memory["rnn.weight_hh_l0"], expected)
    gone = weight == 0
    assert expected[gone].max() <= expected[~gone].min()


def test_movement_brings_back_what_training_wants_back():
    """Scores go on at masked places with the value that was there (arXiv 2005.07683, equations 3 and 4)."""
    model = tagger().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    schedule = Gradual(end=30, every=3)
    pruning = Prune(model, None, 0.6, score=Movement(), schedule=schedule, include="rnn.weight_hh_l0").attach(optimizer)
    weight = model.rnn.weight_hh_l0
    whole, score = weight.detach().clone(), torch.zeros_like(weight)

    def before(*_):
        score.sub_(whole * weight.grad)

    def after(*_):
        whole[weight != 0] = weight.detach()[weight != 0]

    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    handles = optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
    for each, handle in zip(hooks, handles):
        each.move_to_end(handle.id, last=False)  # before anything is masked
    came_back = 0
    for step in range(32):
        mask = weight != 0
        train(model, optimizer, 1, first=step)
        now = weight != 0
        came_back += int((now & ~mask).sum())
        torch.testing.assert_close(weight[now].detach(), whole[now])
        torch.testing.assert_close(pruning.score.memory["rnn.weight_hh_l0"], score)
        share = schedule.sparsity(step + 1, 0.6)
        if share is not None:
            number = round(share * weight.numel())
            assert int((~now).sum()) == number
            assert number == 0 or score[~now].max() <= score[now].min()
    assert came_back > 10


def test_the_deviation_is_that_of_the_weights_that_are_left():
    torch.manual_seed(0)
    dense = torch.randn(40, 30)
    sparse = dense * (torch.rand(40, 30) < 0.2)
    wanted = sparse[sparse != 0].abs() / sparse[sparse != 0].std()
    torch.testing.assert_close(StandardDeviation().elements("w", sparse)[sparse != 0], wanted)
    for few in (torch.zeros(3, 3), torch.eye(3)[:1]):
        assert StandardDeviation().elements("w", few).isfinite().all()


def test_taylor_is_the_running_mean_of_the_first_order_change():
    score = Taylor(decay=0.5)
    weight, gradient = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])
    score.watch("w", weight, gradient)
    score.watch("w", weight, gradient)
    expected = (weight * gradient).abs() * math.sqrt(0.75)
    torch.testing.assert_close(score.elements("w", weight), expected)


def test_a_score_of_ones_own():
    class Largest(Score):
        def elements(self, name, weight):
            return -weight.abs()

    model = tagger()
    before = model.rnn.weight_hh_l0.detach().abs().clone()
    Prune(model, None, 0.5, score=Largest()).finish()
    gone = model.rnn.weight_hh_l0 == 0
    assert before[gone].min() >= before[~gone].max()
