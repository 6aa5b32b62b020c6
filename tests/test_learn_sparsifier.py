"""The contract of all sparsifiers: the model looks as before, masks hold, runs resume to the bit, misuse is named."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from learn_models import OPTIMIZERS, batches, loss_of, tagger, tokens, train
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Movement, Taylor
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier

EARLY = TopK(0.0, 0.3, 0.5, every=3)
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
}


def start(make, optimizer="sgd with momentum"):
    model = tagger(num_layers=2)
    built = OPTIMIZERS[optimizer](model)
    return model, built, make(model).attach(built)


@pytest.mark.parametrize("name", list(RUNS))
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
        assert all(m.dtype == torch.bool and m.shape == model.get_parameter(n).shape for n, m in masks.items())
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


def test_inside_data_parallel_and_compiled_models():
    model = tagger()
    wrapped = nn.DataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.1)
    sparsifier = Prune(wrapped, tokens(), 0.5, level="unit").attach(optimizer)
    train(wrapped, optimizer, 2)
    assert "rnn.weight_hh_l0" in sparsifier.masks
    assert sparsifier.finish() is wrapped
    compiled = torch.compile(tagger(), backend="eager")
    assert set(Prune(compiled, None, 0.5).masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_the_wrapper_of_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = tagger()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    Prune(model, None, 0.9).attach(optimizer)
    for number in range(5):
        optimizer.zero_grad()
        accelerator.backward(loss_of(model, tokens(number)))
        optimizer.step()
    assert int((model.rnn.weight_hh_l0 == 0).sum()) == round(0.9 * model.rnn.weight_hh_l0.numel())


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


def _rank(rank: int, file: str, results: str, name: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(tagger(hidden=12, num_layers=2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(rank)  # what is drawn must not depend on a rank's own random state
    sparsifier = RANKS[name](model).attach(optimizer)
    for number in range(12):
        optimizer.zero_grad()
        loss_of(model, tokens(100 * rank + number)).backward()  # each rank has its own batches
        optimizer.step()
    sparsifier.finish()
    torch.save(model.module.state_dict(), f"{results}/{rank}")
    torch.distributed.destroy_process_group()


RANKS = {
    "top-k": lambda m: Shrink(m, tokens(), to=0.3, steps=12, path=EARLY),
    "rewire": lambda m: Rewire(m, None, 0.8, steps=12, every=2),
    "rewire by gradient": lambda m: Rewire(m, None, 0.8, steps=12, every=2, grow="gradient"),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(RANKS))
def test_two_processes_stay_equal(tmp_path, name):
    """The traced copy is the module inside DistributedDataParallel, and both ranks end with the same weights."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "rendezvous"), str(tmp_path), name), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    if name == "top-k":
        assert (first["head.weight"] == 0).all(0).any()
    else:
        assert int((first["rnn.weight_hh_l0"] == 0).sum()) == round(0.8 * first["rnn.weight_hh_l0"].numel())


def test_ranks_decide_alike():
    """Equal weights give equal decisions, whatever a rank's random state: nothing is drawn."""
    decisions = []
    for seed in (1, 2):
        model = tagger(hidden=12, num_layers=2)
        torch.manual_seed(seed)
        optimizer = OPTIMIZERS["adam with weight decay"](model)
        sparsifier = Shrink(model, tokens(), to=0.3, steps=20).attach(optimizer)
        train(model, optimizer, 20)
        decisions.append(sparsifier.masks)
    assert all(torch.equal(decisions[0][name], decisions[1][name]) for name in decisions[0])


class FullyShardedDataParallel(nn.Module):
    """Stands for torch's class of this name, which cannot be built without a process group."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def no_change(model, call, error, *words):
    """`call` raises `error` with a sentence of at most three lines, and the model is as before."""
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) <= 3 and all(word in text for word in words), text
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_misuse_of_attach():
    model = tagger()
    other = torch.optim.SGD(tagger().parameters(), 0.1)
    part = torch.optim.SGD(model.head.parameters(), 0.1)
    whole = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Prune(model, None, 0.5)
    no_change(model, lambda: sparsifier.attach(other), ValueError, "SGD lacks", "rnn.weight_ih_l0")
    no_change(model, lambda: sparsifier.attach(part), ValueError, "rnn.weight_hh_l0")
    no_change(model, lambda: sparsifier.attach("adam"), TypeError, "got str")
    assert not part._optimizer_step_post_hooks and not other._optimizer_step_post_hooks
    sparsifier.attach(whole)
    no_change(model, lambda: sparsifier.attach(whole), RuntimeError, "already attached to SGD", "finish()")
    no_change(model, sparsifier.step, RuntimeError, "already does")
    assert len(whole._optimizer_step_post_hooks) == 1


def test_readers_in_another_optimizer_are_missed():
    model = tagger()
    recurrent = torch.optim.SGD(model.rnn.parameters(), 0.1)
    Prune(model, None, 0.5).attach(recurrent)
    units = Prune(model, tokens(), 0.5, level="unit")
    no_change(model, lambda: units.attach(recurrent), ValueError, "head.weight")
    model.head.weight.requires_grad_(False)  # what is not trained cannot come back
    units.attach(recurrent)


def test_misuse_of_the_model():
    linear = nn.Linear(3, 3)
    no_change(linear, lambda: Prune(linear, None, 0.5), ValueError, "Linear has no recurrent layers", 'include="all"')
    model = tagger()
    no_change(model, lambda: Prune(model, None, 0.5, include="lstm.*"), ValueError, "matches no weight matrix")
    no_change(model, lambda: Prune(model, None, 0.5, include=3), TypeError)
    no_change(model, lambda: Prune("model", None, 0.5), TypeError, "got str".capitalize())
    sharded = FullyShardedDataParallel(model)
    no_change(model, lambda: Prune(sharded, None, 0.5), ValueError, "sharded by FSDP", "DistributedDataParallel")
    no_change(model, lambda: Prune(model, None, 0.5, level="unit"), ValueError, "give example_inputs")
    normed = nn.ModuleDict({"rnn": nn.LSTM(3, 4)})
    nn.utils.parametrizations.weight_norm(normed["rnn"], "weight_hh_l0")
    with pytest.raises(ValueError, match="not plain parameters"):
        Prune(normed, None, 0.5)


def test_misuse_of_options():
    model = tagger()
    cases = [
        (lambda: Prune(model, None, 1.2), ValueError, ["sparsity is 1.2", "between 0 and 1"]),
        (lambda: Prune(model, None, -0.1), ValueError, ["sparsity is -0.1"]),
        (lambda: Prune(model, None, "90%"), ValueError, ["'90%'"]),
        (lambda: Prune(model, None, 0.5, level="neuron"), ValueError, ["'neuron'", '"unit"']),
        (lambda: Prune(model, None, 0.5, scope="global"), ValueError, ["'global'", '"model"']),
        (lambda: Prune(model, None, 0.5, score="magnitude"), TypeError, ["Magnitude()"]),
        (lambda: Prune(model, None, 0.5, schedule="gradual"), TypeError, ["Gradual(...)"]),
        (lambda: Prune(model, None, 0.5, level="gate", keep_diagonal=True), ValueError, ["keep_diagonal"]),
        (lambda: Gradual(end=5, begin=10), ValueError, ["end is 5"]),
        (lambda: Gradual(end=5, initial=2), ValueError, ["initial is 2"]),
        (lambda: Taylor(decay=1.0), ValueError, ["decay is 1.0"]),
        (lambda: GroupLasso(model, tokens()), TypeError, ["strength"]),
        (lambda: Shrink(model, tokens(), to=0.5), ValueError, ["needs steps="]),
        (lambda: Shrink(model, tokens(), to=0.5, steps=0), ValueError, ["steps is 0"]),
        (lambda: Shrink(model, tokens(), to=0.5, steps=10.5), ValueError, ["steps is 10.5"]),
        (lambda: Shrink(model, tokens(), to=1.5, steps=9), ValueError, ["to is 1.5"]),
        (lambda: Shrink(model, tokens(), to=1e-4, steps=9), ValueError, ["cannot be reached"]),
        (lambda: GroupLasso(model, tokens(), strength=-1.0), ValueError, ["strength is -1.0"]),
        (lambda: GroupLasso(model, tokens(), strength=float("nan")), ValueError, ["strength is nan"]),
        (lambda: GroupLasso(model, tokens(), strength={"gate": 1.0}), ValueError, ["expected one for each of"]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, level=()), ValueError, ["level is ()"]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, level=("unit", "unit")), ValueError, ["different"]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, level="neurons"), ValueError, ["'neurons'"]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, update="prox"), ValueError, ["'prox'", '"proximal"']),
        (lambda: GroupLasso(model, tokens(), strength=1.0, threshold=1e-3), ValueError, ["threshold="]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, groups="half"), ValueError, ["'half'"]),
        (lambda: GroupLasso(model, tokens(), strength=1.0, self_weights="thrice"), ValueError, ["'thrice'"]),
        (lambda: TopK(begin=0.5, end=0.2), ValueError, ["begin=0.5"]),
        (lambda: TopK(every=0), ValueError, ["every is 0"]),
        (lambda: L1(model, strength=1.0).step(), RuntimeError, ["attach it first"]),
    ]
    for call, error, words in cases:
        no_change(model, call, error, *words)


def test_foreign_states():
    model = tagger()
    sparsifier: Sparsifier = Prune(model, None, 0.5)
    good = sparsifier.state_dict()
    wide = Prune(tagger(hidden=24), None, 0.5)
    wide.finish()
    cases = [
        ({}, ["not the state of a sparsifier"]),
        ({"param_groups": []}, ["not the state of a sparsifier"]),
        ([], ["not the state of a sparsifier"]),
        ({**good, "format": 99}, ["format 99"]),
        (L1(model, strength=1.0).state_dict(), ["that of L1", "expected one of Prune"]),
        (wide.state_dict(), ["[96, 9] for rnn.weight_ih_l0", "expected [80, 9]", "the same model"]),
        (Prune(model, None, 0.5, level="gate").state_dict(), ["gate for level", "expected weight"]),
        ({**good, "masks": {"rnn.weight_ih_l0": torch.ones(80, 9)}}, ["float32 tensor", "masks rnn.weight_ih_l0"]),
        ({**good, "masks": {"lstm.weight": torch.ones(2, 2, dtype=torch.bool)}}, ["the unknown lstm.weight"]),
    ]
    for state, words in cases:
        no_change(model, lambda state=state: sparsifier.load_state_dict(state), ValueError, *words)
        assert sparsifier.steps_done == 0 and not sparsifier.state_dict()["masks"]
    shrink = Shrink(model, tokens(), to=0.5, steps=10)
    penalised = GroupLasso(model, tokens(), strength=1.0).state_dict()
    no_change(model, lambda: shrink.load_state_dict(penalised), ValueError, "that of GroupLasso", "one of Shrink")
