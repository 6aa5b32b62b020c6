"""Rewind: the same bits as a run that began there with the masks of now, for every sparsifier."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from learn_models import OPTIMIZERS, batches, state_values, tagger, tokens, train
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.paths.hard_concrete import HardConcrete
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewind import Rewind
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual, OneShot
from sparsernn.learn.scores import Movement
from sparsernn.learn.shrink import Shrink

EARLY = TopK(0.0, 0.3, 0.5, every=3)
RUNS = {
    "prune": lambda m: Prune(m, None, 0.8, schedule=OneShot(at=12)),
    "prune units": lambda m: Prune(m, tokens(), 0.5, level="unit", schedule=OneShot(at=12)),
    "movement": lambda m: Prune(m, None, 0.8, score=Movement(), schedule=Gradual(end=12, every=3)),
    "top-k": lambda m: Shrink(m, tokens(), to=0.4, steps=20, path=EARLY),
    "fade": lambda m: Shrink(m, tokens(), to=0.4, steps=20, path=Fade(0.0, 0.3, 0.5)),
    "fold": lambda m: Shrink(m, tokens(), to=0.4, steps=20, path=Fold(batches(), at=(0.2, 0.5))),
    "subgradient": lambda m: GroupLasso(m, tokens(), strength=0.02, update="subgradient", threshold=1e-3),
    "l1": lambda m: L1(m, strength=0.01),
    "rewire": lambda m: Rewire(m, None, 0.8, steps=16, every=2),
}


def begun(optimizer="sgd with momentum"):
    model = tagger(num_layers=2)
    built = OPTIMIZERS[optimizer](model)
    return model, built, torch.optim.lr_scheduler.ExponentialLR(built, 0.9)


def run(model, optimizer, scheduler, steps, first=0):
    for number in range(first, first + steps):
        train(model, optimizer, 1, first=number)
        scheduler.step()


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum", "lbfgs"])
def test_the_run_from_there_on_is_the_same_to_the_bit_as_often_as_wanted(optimizer):
    model, built, scheduler = begun(optimizer)
    run(model, built, scheduler, 3)
    point = Rewind(model, built, scheduler)
    run(model, built, scheduler, 4, first=3)
    wanted, rate = values(model), scheduler.get_last_lr()
    for more in (0, 3):
        run(model, built, scheduler, more, first=7)
        point.rewind()
        assert scheduler.last_epoch == 3
        run(model, built, scheduler, 4, first=3)
        assert equal(wanted, values(model)) and scheduler.get_last_lr() == rate


@pytest.mark.parametrize("name", list(RUNS))
def test_with_a_sparsifier_it_is_the_run_of_the_masked_net(name):
    """The reference: a net that is loaded with the weights and momentum of that step, masked, and trained by itself."""
    model, built, scheduler = begun()
    sparsifier = RUNS[name](model).attach(built)
    run(model, built, scheduler, 3)
    point = Rewind(model, built, scheduler)
    saved = copy.deepcopy([model.state_dict(), built.state_dict()])
    run(model, built, scheduler, 13, first=3)
    masks = sparsifier.masks
    assert not all(mask.all() for mask in masks.values())
    point.rewind(sparsifier)
    assert sparsifier.steps_done == 16
    for key, mask in masks.items():
        assert torch.equal(model.get_parameter(key), saved[0][key] * mask)
        assert all(not value[~mask].any() for value in state_values(built, model.get_parameter(key)))
    assert scheduler.last_epoch == 3 and built.param_groups[0]["lr"] == saved[1]["param_groups"][0]["lr"]
    if name in ("subgradient", "l1", "movement"):  # penalties go on, what regrows may come back
        run(model, built, scheduler, 2, first=3)
        return
    run(model, built, scheduler, 5, first=3)

    other, second, rates = begun()
    other.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    rates.last_epoch = 3
    held = {other.get_parameter(key): mask for key, mask in masks.items()}

    def hold(*_):
        for parameter, mask in held.items():
            parameter.data.mul_(mask)
            for value in state_values(second, parameter):
                value.mul_(mask)

    hold()
    second.register_step_post_hook(hold)
    run(other, second, rates, 5, first=3)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=0, atol=0)


def test_what_regrows_comes_back_with_the_weight_of_the_earlier_step():
    model, built, scheduler = begun()
    early = values(model)
    point = Rewind(model, built, scheduler)
    pruning = Prune(model, None, 0.8, score=Movement(), schedule=Gradual(end=6, every=3)).attach(built)
    run(model, built, scheduler, 6)
    point.rewind(pruning)
    for name, mask in pruning.masks.items():
        whole = pruning._whole(name)
        assert torch.equal(whole, early[name]) and torch.equal(model.get_parameter(name), early[name] * mask)


def test_rates_alone():
    model, built, scheduler = begun("adam with weight decay")
    run(model, built, scheduler, 2)
    point, rate = Rewind(model, built, scheduler), built.param_groups[0]["lr"]
    run(model, built, scheduler, 5, first=2)
    weights, memory = values(model), copy.deepcopy(built.state_dict()["state"])
    point.rewind(weights=False)
    assert equal(weights, values(model)) and built.param_groups[0]["lr"] == rate and scheduler.last_epoch == 2
    now = built.state_dict()["state"]
    assert all(torch.equal(now[p]["exp_avg"], state["exp_avg"]) for p, state in memory.items())
    run(model, built, scheduler, 1)
    assert built.param_groups[0]["lr"] == pytest.approx(rate * 0.9)


def test_a_resumed_run_goes_back_to_the_same_moment():
    model, built, scheduler = begun()
    run(model, built, scheduler, 3)
    early = values(model)
    saved = io.BytesIO()
    torch.save(Rewind(model, built, scheduler).state_dict(), saved)
    saved.seek(0)
    again, second, rates = begun()
    point = Rewind(again, second, rates)
    point.load_state_dict(torch.load(saved, weights_only=True))
    point.rewind()
    assert equal(early, values(again)) and rates.last_epoch == 3
    with pytest.raises(ValueError, match="another model, or of other"):
        Rewind(again, second).load_state_dict(point.state_dict())
    with pytest.raises(ValueError, match="not the state of a Rewind"):
        point.load_state_dict({})


@pytest.mark.parametrize(
    "make",
    [
        lambda m: Shrink(m, tokens(), to=0.4, steps=20, path=HardConcrete(0.0, 0.3, 0.5)),
        lambda m: Bayes(m, train_size=100, level="weight"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*finish")  # the run ends early
def test_weights_beside_those_of_the_model_are_asked_to_finish_first(make):
    model = tagger(num_layers=2)
    built = OPTIMIZERS["sgd with momentum"](model)
    early = values(model)
    point = Rewind(model, built)
    sparsifier = make(model).attach(built)
    train(model, built, 3)
    before = values(model)
    with pytest.raises(ValueError, match=r"call its finish\(\) first"):
        point.rewind(sparsifier)
    assert equal(before, values(model))
    sparsifier.finish()
    masks = sparsifier.masks
    point.rewind(sparsifier)
    assert all(torch.equal(model.get_parameter(n), early[n] * mask) for n, mask in masks.items())


def test_what_has_no_state_is_named():
    model, built, _ = begun()
    with pytest.raises(TypeError, match="got float"):
        Rewind(model, built, 0.1)
