"""What all sparsifiers keep: the model looks as before, masks hold, runs resume to the bit, many optimizers serve."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from learn_models import OPTIMIZERS, batches, loss_of, tagger, tokens, train
from learn_runs import EARLY
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Movement, Taylor
from sparsernn.learn.shrink import Shrink

RUNS = {
    "prune at once": lambda m: Prune(m, None, 0.9),
    "prune units": lambda m: Prune(m, tokens(), 0.5, level="unit"),
    "gradual movement": lambda m: Prune(m, None, 0.8, score=Movement(), schedule=Gradual(end=14, every=3)),
    "top-k": lambda m: Shrink(m, tokens(), to=0.4, steps=24, path=EARLY),
    "top-k by taylor": lambda m: Shrink(m, tokens(), to=0.4, steps=24, path=EARLY, score=Taylor()),
    "top-k on all levels": lambda m: Shrink(
        m, tokens(), to=0.2, steps=24, path=EARLY, level=("weight", "gate", "unit")
    ),
    "top-k of weights": lambda m: Shrink(m, None, level="weight", to=0.2, steps=24, path=EARLY),
    "fade": lambda m: Shrink(m, tokens(), to=0.4, steps=24, path=Fade(0.0, 0.3, 0.5)),
    "fold": lambda m: Shrink(m, tokens(), to=0.4, steps=24, path=Fold(batches(), at=(0.2, 0.5))),
    "proximal": lambda m: GroupLasso(m, tokens(), strength=0.02),
    "proximal l1": lambda m: L1(m, strength=0.002),
    "subgradient": lambda m: GroupLasso(m, tokens(), strength=0.02, update="subgradient", threshold=1e-3),
    "prune words": lambda m: Prune(m, None, 0.6, level="word", schedule=Gradual(end=14, every=3)),
    "rewire words": lambda m: Rewire(m, None, 0.6, steps=24, every=3, level="word", grow="gradient"),
    "rewire": lambda m: Rewire(m, None, 0.8, steps=24, every=3, scope="layer"),
    "rewire by gradient": lambda m: Rewire(m, None, 0.8, steps=24, every=3, grow="gradient", scope="model"),
    "rewire blocks": lambda m: Rewire(m, None, 0.7, steps=24, every=3, level="block", initial="erdos-renyi"),
    "rewire stored": lambda m: Rewire(m, None, 0.8, steps=24, every=3, storage="sparse"),
    "rewire stored by gradient": lambda m: Rewire(
        m, None, 0.8, steps=24, every=3, scope="model", grow="gradient", storage="sparse"
    ),
}
PLAIN = [name for name in RUNS if "stored" not in name]  # whose parameters are matrices while they are attached


def start(make, optimizer="sgd with momentum"):
    model = tagger(num_layers=2)
    built = OPTIMIZERS[optimizer](model)
    return model, built, make(model).attach(built)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.filterwarnings("ignore:.*finish")  # these runs end early
def test_the_model_looks_as_before(name):
    model = tagger(num_layers=2)
    keys, kind = list(model.state_dict()), type(model)
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    sparsifier = RUNS[name](model).attach(optimizer)
    train(model, optimizer, 3)
    assert type(model) is kind and list(model.state_dict()) == keys
    assert not model._forward_hooks and not model.rnn._forward_pre_hooks
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = tagger(seed=9, num_layers=2)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (twin, again, fresh):
        torch.testing.assert_close(other(tokens()), model(tokens()), rtol=0, atol=0)
    copy.deepcopy(optimizer)
    assert sparsifier.finish() is model


@pytest.mark.smoke
@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum", "lbfgs"])
@pytest.mark.parametrize("name", list(RUNS))
@pytest.mark.filterwarnings("ignore:Adam divides")
def test_killed_and_resumed_is_equal_to_the_bit(name, optimizer):
    if optimizer == "lbfgs" and name.startswith("proximal"):
        pytest.skip("a line search has no metric")
    if optimizer == "lbfgs" and name not in PLAIN:
        pytest.skip("a line search is refused")
    model, built, sparsifier = start(RUNS[name], optimizer)
    train(model, built, 7)
    saved = io.BytesIO()
    torch.save([model.state_dict(), built.state_dict(), sparsifier.state_dict()], saved)
    train(model, built, 15, first=7)

    saved.seek(0)
    state = torch.load(saved, weights_only=True)  # tensors and plain values only
    resumed = tagger(seed=5, num_layers=2)
    resumed.load_state_dict(state[0])
    second = OPTIMIZERS[optimizer](resumed)
    again = RUNS[name](resumed).attach(second)
    second.load_state_dict(state[1])
    again.load_state_dict(state[2])
    train(resumed, second, 15, first=7)
    for (key, a), b in zip(model.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), key
    assert sparsifier.density() == again.density()
    assert again.steps_done == 22


@pytest.mark.parametrize("name", list(RUNS))
def test_masks_and_density_agree(name):
    model, optimizer, sparsifier = start(RUNS[name])
    for _ in range(4):
        train(model, optimizer, 6, first=sparsifier.steps_done)
        masks = {n: m for n, m in sparsifier.masks.items() if "rnn.weight" in n}
        assert all(m.dtype == torch.bool and m.shape == model.state_dict()[n].shape for n, m in masks.items())
        kept = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        assert sparsifier.density() == pytest.approx(kept)
    sparsifier.finish()
    for key, mask in sparsifier.masks.items():
        assert not model.get_parameter(key)[~mask].any()


def test_after_finish_the_optimizer_is_its_own_again():
    model, optimizer, sparsifier = start(RUNS["prune at once"])
    train(model, optimizer, 2)
    sparsifier.finish()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    train(model, optimizer, 2)
    assert model.rnn.weight_hh_l0.all()


def test_several_sparsifiers_compose():
    model = tagger(num_layers=2)
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    units = Prune(model, tokens(), 0.5, level="unit").attach(optimizer)
    weights = Prune(model, None, 0.8).attach(optimizer)
    train(model, optimizer, 12)
    for name in weights.masks:
        weight = model.get_parameter(name)
        gone = ~(weights.masks[name] & units.masks[name])
        assert torch.equal(weight == 0, gone)
    assert int((model.rnn.weight_hh_l0 == 0).sum()) == round(0.8 * model.rnn.weight_hh_l0.numel())


def test_by_hand_without_an_optimizer():
    model = tagger()
    sparsifier = Prune(model, None, 0.7)
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.01 * torch.randn_like(p))
        sparsifier.step()
    assert int((model.rnn.weight_hh_l0 == 0).sum()) == round(0.7 * model.rnn.weight_hh_l0.numel())


def test_closures_of_optimizers_that_do_not_need_them():
    """Lightning gives every optimizer a closure that zeroes the gradients itself."""
    plain, wrapped = tagger(), tagger()
    for model, closure in ((plain, False), (wrapped, True)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        GroupLasso(model, tokens(), strength=0.05, update="subgradient", threshold=0.0).attach(optimizer)
        for number in range(5):

            def compute(model=model, optimizer=optimizer, number=number):
                optimizer.zero_grad()
                loss = loss_of(model, tokens(number))
                loss.backward()
                return loss

            if closure:
                assert torch.isfinite(optimizer.step(closure=compute))
            else:
                compute()
                optimizer.step()
    for a, b in zip(plain.parameters(), wrapped.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_grad_scaler_with_a_fused_optimizer():
    """Fused steps see scaled gradients, unscale them inside and skip the step on overflow."""
    plain, scaled = tagger(), tagger()
    first = torch.optim.SGD(plain.parameters(), 0.1)
    second = torch.optim.SGD(scaled.parameters(), 0.1, fused=True)
    made = [GroupLasso(m, tokens(), strength=0.05, update="subgradient") for m in (plain, scaled)]
    made[0].attach(first)
    made[1].attach(second)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in range(4):
        train(plain, first, 1, first=number)
        for overflow in (True, False):
            second.zero_grad()
            loss = loss_of(scaled, tokens(number)) * (float("inf") if overflow else 1)
            scaler.scale(loss).backward()
            scaler.step(second)
            scaler.update()
            assert made[1].steps_done == number + (not overflow)
    for a, b in zip(plain.parameters(), scaled.parameters()):
        torch.testing.assert_close(a, b)


def test_a_penalty_in_the_loss_is_not_added_twice():
    added, hooked = tagger(), tagger()
    for model, by_user in ((added, True), (hooked, False)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparsifier = GroupLasso(model, tokens(), strength=0.05, update="subgradient").attach(optimizer)
        for number in range(5):
            optimizer.zero_grad()
            loss = loss_of(model, tokens(number))
            shown = sparsifier.penalty()  # reading it changes nothing
            (loss + sparsifier.penalty() if by_user else loss).backward()
            optimizer.step()
            assert shown.item() > 0
    for a, b in zip(added.parameters(), hooked.parameters()):
        torch.testing.assert_close(a, b)


def test_gradient_accumulation():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Prune(model, None, 0.5, schedule=Gradual(end=4, every=1)).attach(optimizer)
    for number in range(8):
        (loss_of(model, tokens(number)) / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert sparsifier.steps_done == 4
    assert int((model.rnn.weight_hh_l0 == 0).sum()) == round(0.5 * model.rnn.weight_hh_l0.numel())


@pytest.mark.parametrize("name", list(RUNS))
@pytest.mark.filterwarnings("ignore:.*finish")
def test_pure_bfloat16(name):
    model = tagger(num_layers=2).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparsifier = RUNS[name](model).attach(optimizer)
    train(model, optimizer, 24)
    sparsifier.finish()
    assert all(p.dtype == torch.bfloat16 and torch.isfinite(p).all() for p in model.parameters())
    kept = sum(int((model.get_parameter(n) != 0).sum()) for n in sparsifier.masks if "rnn.weight" in n)
    whole = sum(p.numel() for n, p in model.named_parameters() if "rnn.weight" in n)
    assert kept / whole == pytest.approx(sparsifier.density(), abs=0.01)
