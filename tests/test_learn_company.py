"""Sparsifiers among others: saved states, several optimizers, other sparsifiers, exchanged layers, averaged weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import OPTIMIZERS, batches, loss_of, tagger, tokens, train
from learn_runs import EARLY, RUNS, bayes, each_run, early, lasso, shrink, start
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.paths.hard_concrete import HardConcrete
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Taylor
from sparsernn.learn.shrink import Shrink


def same(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a in (None, []) and b in (None, []):
        return True  # nothing was chosen yet
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def damaged(value: Any) -> Iterator[Any]:
    """Copies of a nested value in each of which one place is wrong."""
    yield from (None, "x", -1, math.nan, [1])
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: v for other, v in value.items() if other != key}
            for bad in damaged(inner):
                yield {**value, key: bad}
        yield {**value, "more": 1}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            for bad in damaged(inner):
                yield [*value[:number], bad, *value[number + 1 :]]
    elif isinstance(value, torch.Tensor):
        yield value[:-1]
        yield value[None]
        yield value.to(torch.int32)
        if value.is_floating_point():
            yield torch.full_like(value, math.nan)


@each_run
def test_a_damaged_state_is_refused_in_a_sentence_or_taken_whole(name):
    _, _, sparsifier = start(name)
    good = copy.deepcopy(sparsifier.state_dict())
    taken = 0
    for bad in damaged(good):
        before = copy.deepcopy(sparsifier.state_dict())
        try:
            sparsifier.load_state_dict(bad)
        except ValueError as error:
            assert len(str(error).splitlines()) <= 3
            assert same(sparsifier.state_dict(), before)
        else:
            assert same(sparsifier.state_dict(), bad)
            sparsifier.load_state_dict(good)
            taken += 1
    assert taken < 40  # where nothing may be there, and masks that say something else
    sparsifier.load_state_dict(good)


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(
    ("own", "saved", "words"),
    [
        (shrink(to=0.4), shrink(to=0.3), "0.3 for to, expected 0.4"),
        (
            shrink(to=0.4),
            shrink(to=0.4, path=Fade()),
            r"Fade\(begin=0.*\) for path, expected TopK",
        ),
        (shrink(to=0.4), shrink(to=0.4, path=HardConcrete()), r"HardConcrete\(.*\) for path"),
        (shrink(to=0.4), shrink(to=0.4, steps=25), "25 for steps, expected 24"),
        (shrink(to=0.4), shrink(to=0.4, cost="mult-adds"), "mult-adds for cost"),
        (shrink(to=0.4), shrink(to=0.4, score=Taylor()), r"Taylor\(decay=0.99\) for score"),
        (shrink(to=0.4), shrink(to=0.4, path=EARLY), "every=3.* for path"),
        (shrink(to=0.4), shrink(max_loss=0.1, validate=lambda: 1.0), "None for to"),
        (shrink(to=0.4), shrink(to=0.4, include="*hh*", level="weight"), "for shapes"),
        (
            shrink(to=0.4, path=Fold(batches())),
            shrink(to=0.4, path=Fold(batches(), at=0.5)),
            r"at=\(0\.5,\), ridge=0\.1, positions=40000\) for path",
        ),
        (lasso(level="weight"), lambda m: L1(m, strength=0.02), "that of L1"),
        (lambda m: L1(m, strength=0.1), lambda m: L1(m, strength=0.2), "0.2 for strength"),
        (lambda m: Prune(m, None, 0.5), lambda m: Prune(m, None, 0.6), "0.6 for sparsity"),
        (lambda m: Prune(m, None, 0.5), lambda m: Prune(m, None, 0.5, scope="model"), "model for scope"),
        (lambda m: Prune(m, None, 0.5), lambda m: Prune(m, None, 0.5, schedule=Gradual(end=9)), "for schedule"),
        (lambda m: Rewire(m, steps=9), lambda m: Rewire(m, steps=9, seed=1), "1 for seed, expected 0"),
        (bayes(9), bayes(8), "8 for train_size, expected 9"),
    ],
)
def test_the_state_of_another_goal_is_refused_by_name(own, saved, words):
    model = tagger(hidden=6)
    state = saved(model).state_dict()
    sparsifier = own(model)
    before = sparsifier.state_dict()
    with pytest.raises(ValueError, match=words):
        sparsifier.load_state_dict(state)
    assert same(before, sparsifier.state_dict())


@early
@each_run
def test_finish_once_more_changes_nothing(name):
    model, optimizer, sparsifier = start(name)
    sparsifier.finish()
    first = copy.deepcopy(model.state_dict())
    masks = sparsifier.masks
    for _ in range(2):
        assert sparsifier.finish() is model
        assert same(model.state_dict(), first) and same(masks, sparsifier.masks)
    # A run that goes on, and ends again, keeps what was decided.
    sparsifier.attach(optimizer)
    train(model, optimizer, 3, first=5)
    sparsifier.finish()
    again = copy.deepcopy(model.state_dict())
    sparsifier.finish()
    assert same(model.state_dict(), again)
    assert all(p.isfinite().all() for p in model.parameters())


@early
def test_gates_that_go_on_after_an_early_end_begin_at_what_the_model_computes():
    model, optimizer, sparsifier = start("hard concrete", 6)
    sparsifier.finish()
    output = model(tokens())
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    sparsifier.attach(optimizer)
    train(model, optimizer, 1)
    sparsifier.finish()
    # Gates that are open are 1 but for a few hundredths.
    torch.testing.assert_close(model(tokens()), output, rtol=0.1, atol=0.02)


@each_run
def test_weights_that_became_nan_end_in_a_sentence_and_the_hooks_go(name):
    model, optimizer, sparsifier = start(name)
    with torch.no_grad():
        model.rnn.weight_hh_l0.view(-1)[0] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0 is not finite"):
        sparsifier.finish()
    assert all(torch.equal(v.nan_to_num(7), model.state_dict()[k].nan_to_num(7)) for k, v in before.items())
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert not model._forward_pre_hooks and len(optimizer.param_groups) == 1


@early
@each_run
def test_a_layer_that_was_exchanged_is_named(name):
    model, optimizer, sparsifier = start(name, 1)
    model.rnn = nn.LSTM(9, 6, batch_first=True)
    optimizer.add_param_group({"params": list(model.rnn.parameters())})
    with pytest.warns(UserWarning, match=r"no longer the model's.*rnn\.weight_ih_l0"):
        sparsifier.finish()


def test_a_layer_that_was_exchanged_is_named_in_the_course_of_the_run():
    model, optimizer, _ = start("top-k", 1)
    model.head = nn.Linear(6, 11)
    optimizer.add_param_group({"params": list(model.head.parameters())})
    with pytest.warns(UserWarning, match=r"no longer the model's.*head\.weight"):
        train(model, optimizer, 101)


@pytest.mark.parametrize("name", ["prune units", "top-k", "fade", "fold", "loss", "proximal"])
@early
def test_two_optimizers_are_like_one_with_two_groups(name):
    units = {
        "prune units": lambda m: Prune(m, tokens(), 0.5, level="unit"),
        "proximal": lambda m: GroupLasso(m, tokens(), strength=0.3),
    }
    make = {**RUNS, **units}[name]
    results = []
    for split in (False, True):
        model = tagger(hidden=12)
        layer, rest = list(model.rnn.parameters()), [*model.head.parameters(), *model.embedding.parameters()]
        options = {"momentum": 0.9, "weight_decay": 0.01}
        if split:
            both = [torch.optim.SGD(layer, 0.1, **options), torch.optim.SGD(rest, 0.05, **options)]
        else:
            groups = [{"params": layer}, {"params": rest, "lr": 0.05}]
            both = [torch.optim.SGD(groups, 0.1, **options)]
        sparsifier = make(model).attach(*both)
        for number in range(24):
            model.zero_grad()
            loss_of(model, tokens(number)).backward()
            for optimizer in both:
                optimizer.step()
        assert sparsifier.steps_done == 24
        sparsifier.finish()
        assert not any(o._optimizer_step_pre_hooks or o._optimizer_step_post_hooks for o in both)
        results.append(model)
    assert results[0].head.weight.eq(0).all(0).any()
    for a, b in zip(results[0].parameters(), results[1].parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["prune units by taylor", "hard concrete", "subgradient", "bayes", "rewire by gradient"]
)
@pytest.mark.filterwarnings("ignore:Adam divides")
def test_what_needs_all_gradients_at_once_asks_for_one_optimizer(name):
    model = tagger(hidden=6)
    layer = torch.optim.SGD(model.rnn.parameters(), 0.1)
    rest = torch.optim.Adam([*model.head.parameters(), *model.embedding.parameters()])
    with pytest.raises(ValueError, match=r"takes one optimizer here, since .*got SGD and Adam"):
        RUNS[name](model).attach(layer, rest)
    assert not layer._optimizer_step_pre_hooks


def test_a_matrix_optimizer_beside_another_one():
    """Muon for matrices and AdamW for the rest: a size needs no metric, a penalty names what it does not know."""
    model = tagger(hidden=12)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    both = torch.optim.Muon(matrices, 0.01), torch.optim.AdamW([p for p in model.parameters() if p.dim() != 2])
    with pytest.raises(ValueError, match="step of Muon"):
        GroupLasso(model, tokens(), strength=0.1).attach(*both)
    sparsifier = Shrink(model, tokens(), to=0.4, steps=24, path=EARLY).attach(*both)
    for number in range(24):
        model.zero_grad()
        loss_of(model, tokens(number)).backward()
        for optimizer in both:
            optimizer.step()
    assert sparsifier.density() <= 0.4
    sparsifier.finish()


def test_one_bayes_at_a_time():
    model = tagger(hidden=6, num_layers=2)
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    first = Bayes(model, train_size=100, level="weight", include="*_l0").attach(optimizer)
    second = Bayes(model, train_size=100, level="weight", include="*_l1")
    for other in (optimizer, OPTIMIZERS["sgd with momentum"](model)):
        groups = len(other.param_groups)
        with pytest.raises(ValueError, match="Another Bayes is attached"):
            second.attach(other)
        assert len(other.param_groups) == groups
    first.finish()
    second.attach(optimizer)
    train(model, optimizer, 2)
    second.finish()


@pytest.mark.parametrize("gates_first", [True, False])
def test_gates_keep_their_weights_to_themselves(gates_first):
    model = tagger(hidden=6)
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    pair = [RUNS["hard concrete"](model), Prune(model, None, 0.5)]
    first, second = pair if gates_first else pair[::-1]
    first.attach(optimizer)
    with pytest.raises(ValueError, match=r"changes rnn\.weight_.*call finish\(\)|changes rnn\.weight_.*\n.*finish\(\)"):
        second.attach(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1


@early
@each_run
def test_an_average_of_the_weights_gets_the_zeros(name):
    if name == "rewire stored":
        pytest.skip("torch averages parameters of one shape, and these are their values")
    model, optimizer, sparsifier = start(name, 1)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for number in range(1, 24):
        train(model, optimizer, 1, first=number)
        averaged.update_parameters(model)
    sparsifier.finish()
    assert sparsifier.apply_to(averaged) is averaged
    for key, value in model.named_parameters():
        if "rnn.weight" in key:
            assert not averaged.module.get_parameter(key)[value == 0].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert srn.compact(averaged.module, tokens()).rnn.hidden_size == srn.compact(model, tokens()).rnn.hidden_size
    with pytest.raises(ValueError, match=r"Linear has no rnn\.weight_ih_l0"):
        sparsifier.apply_to(nn.Linear(2, 2))
