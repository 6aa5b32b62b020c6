"""Bayesian sparsification: a model that looks as before, resumes to the bit and forgets noise; clipping, misuse."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from bayes_models import CELLS, LEVELS, bayes
from learn_models import OPTIMIZERS, SYMBOLS, loss_of, tagger, tokens, train
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.bayes.variational import log_alpha


@pytest.mark.parametrize("level", list(LEVELS))
def test_the_model_holds_the_means(level):
    model = tagger(num_layers=2)
    keys, kind = list(model.state_dict()), type(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, level=LEVELS[level]).attach(optimizer)
    train(model, optimizer, 3)
    assert type(model) is kind and list(model.state_dict()) == keys
    assert not torch.equal(model(tokens()), model(tokens()))
    shown = model.eval()(tokens())
    assert torch.equal(shown, model(tokens()))
    twin, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    fresh = tagger(seed=9, num_layers=2)
    fresh.load_state_dict(model.state_dict())
    for other in (twin.train(), again.train(), fresh.train()):
        torch.testing.assert_close(other(tokens()), shown, rtol=0, atol=0)
        assert torch.equal(other(tokens()), other(tokens()))
    copy.deepcopy(optimizer)
    model.train()
    assert sparsifier.finish() is model


@pytest.mark.smoke
@pytest.mark.parametrize("level", list(LEVELS))
@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum"])
def test_killed_and_resumed_is_equal_to_the_bit(level, optimizer):
    def start(seed):
        model = tagger(seed=seed, num_layers=2)
        built = OPTIMIZERS[optimizer](model)
        return model, built, bayes(model, level=LEVELS[level], sigma_rate=5.0).attach(built)

    model, built, sparsifier = start(0)
    train(model, built, 5)
    saved = io.BytesIO()
    torch.save([model.state_dict(), built.state_dict(), sparsifier.state_dict()], saved)
    train(model, built, 6, first=5)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    resumed, second, again = start(5)
    resumed.load_state_dict(state[0])
    second.load_state_dict(state[1])
    again.load_state_dict(state[2])
    train(resumed, second, 6, first=5)
    for (key, a), b in zip(model.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), key
    assert sparsifier.density() == again.density() and again.steps_done == 11
    assert sparsifier.penalty().item() == again.penalty().item()


def test_a_penalty_in_the_loss_is_not_added_twice():
    added, hooked = tagger(), tagger()
    for model, by_user in ((added, True), (hooked, False)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        torch.manual_seed(7)
        sparsifier = bayes(model).attach(optimizer)
        for number in range(4):
            optimizer.zero_grad()
            loss = loss_of(model, tokens(number))
            (loss + sparsifier.penalty() if by_user else loss).backward()
            optimizer.step()
    for a, b in zip(added.parameters(), hooked.parameters()):
        torch.testing.assert_close(a, b)


def test_gradients_reach_every_part_of_the_posterior():
    model = tagger(num_layers=2)
    sparsifier = bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    loss_of(model, tokens()).backward()
    for parameter in sparsifier._posterior.parameters:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", CELLS)
def test_finish_leaves_no_trace(kind):
    model = tagger(kind=kind, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(0)
    sparsifier = bayes(model, sigma_rate=15.0).attach(optimizer)
    assert len(optimizer.param_groups) == 3
    train(model, optimizer, 40)
    masks, density = sparsifier.masks, sparsifier.density()
    assert 0 < density < 0.9
    assert sparsifier.finish() is model
    assert len(optimizer.param_groups) == 1 and not optimizer._optimizer_step_pre_hooks
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert all("forward" not in vars(m) and not m._forward_pre_hooks for m in model.modules())
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())
    assert len(optimizer.state) == len(list(model.parameters()))
    assert sparsifier.density() == density
    for name, mask in masks.items():
        assert not model.get_parameter(name)[~mask].any(), name
    small = srn.compact(model.double(), tokens(), gates=True)
    torch.testing.assert_close(small(tokens(5)), model(tokens(5)), rtol=0, atol=1e-10)
    train(model.float(), optimizer, 1)


def test_what_does_not_matter_is_lost_in_noise():
    """Of six inputs two decide the class: theirs are the multipliers that bear no noise, and the net is right."""
    torch.manual_seed(0)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(6, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    def batch(seed, size=32):
        x = torch.randn(4, size, 6, generator=torch.Generator().manual_seed(seed))
        return x, (x[..., 0].sum(0) + x[..., 3].sum(0) > 0).long()

    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, batch(0)[0], train_size=600, sigma_rate=10.0, mean_rate=10.0).attach(optimizer)
    for number in range(250):
        x, y = batch(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    inputs = sparsifier._posterior.kinds["input"]
    noise = log_alpha(inputs.mean, inputs.log_sigma)
    assert noise[[0, 3]].max() + 3 < noise[[1, 2, 4, 5]].min()
    sparsifier.finish()
    x, y = batch(10_000, 500)
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.88
    assert sparsifier.density() < 0.2


def test_a_scheduler_built_after_attach_scales_all_rates():
    model = tagger()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, sigma_rate=10.0, mean_rate=2.0).attach(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, 1)
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-3, 5e-2, 1e-2])
    sparsifier.finish()
    train(model, optimizer, 1)
    schedule.step()


def test_a_forward_that_raises_leaves_the_weights_in_place():
    model = tagger()
    bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(IndexError):
        model(torch.tensor([[SYMBOLS + 1]]))
    assert all(isinstance(p, nn.Parameter) for p in model.parameters()) and "forward" not in vars(model.rnn)


def test_the_backward_pass_of_a_noisy_lstm_runs_once():
    model = tagger()
    bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    loss = loss_of(model, tokens())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can't run twice"):
        loss.backward()


def no_change(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) <= 3 and all(word in text for word in words), text


def test_misuse():
    model = tagger()
    good = bayes(model)
    wide = bayes(tagger(hidden=24)).state_dict()
    plain = bayes(model, level="weight").state_dict()
    adam = torch.optim.Adam(model.parameters())
    torch.optim.lr_scheduler.StepLR(adam, 1)
    lbfgs = torch.optim.LBFGS(model.parameters())
    frozen = tagger()
    frozen.rnn.weight_hh_l0.requires_grad_(False)
    part = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], 0.1)
    cases = [
        (lambda: Bayes(model, tokens(), train_size=0), ValueError, ["train_size is 0", "training examples"]),
        (lambda: Bayes(model, tokens(), train_size=1e4), ValueError, ["train_size is 10000.0"]),
        (lambda: Bayes(model, None, train_size=9), ValueError, ['level="unit"', "give example_inputs"]),
        (lambda: Bayes(model, tokens(), train_size=9, level="block"), ValueError, ["'block'", "weight, gate, unit"]),
        (lambda: Bayes(model, tokens(), train_size=9, level=()), ValueError, ["level is ()"]),
        (lambda: Bayes(model, tokens(), train_size=9, level=("unit", "unit")), ValueError, ["different"]),
        (lambda: Bayes(model, tokens(), train_size=9, sigma_rate=-1.0), ValueError, ["sigma_rate is -1.0"]),
        (lambda: Bayes(model, tokens(), train_size=9, log_sigma="small"), ValueError, ["log_sigma is 'small'"]),
        (
            lambda: Bayes(nn.Linear(3, 3), None, train_size=9, include="all", level="gate"),
            ValueError,
            ["recurrent layer"],
        ),
        (lambda: good.attach(lbfgs), ValueError, ["LBFGS", "use SGD, Adam"]),
        (lambda: good.attach(adam), ValueError, ["Attach Bayes first"]),
        (lambda: bayes(frozen).attach(part), ValueError, ["does not train rnn.weight_hh_l0"]),
        (lambda: good.load_state_dict(wide), ValueError, ["expected [80, 9]", "build the same sparsifier"]),
        (lambda: good.load_state_dict(plain), ValueError, ["Bayes"]),
        (lambda: good.load_state_dict(srn.Prune(model, None, 0.5).state_dict()), ValueError, ["Prune"]),
    ]
    before = {name: p.clone() for name, p in model.state_dict().items()}
    for call, error, words in cases:
        no_change(call, error, *words)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert len(adam.param_groups) == 1 and len(part.param_groups) == 1 and not model._forward_pre_hooks


# Clipped gradients


def step_with(max_norm: float | None, clip: float | None) -> tuple[Bayes, torch.optim.Optimizer, dict[int, Tensor]]:
    """Gradients as the optimizer sees them: of the model's and of the posterior's parameters, by place."""
    model = tagger().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = bayes(model, train_size=20, max_norm=max_norm).attach(optimizer)
    sparsifier._generator.manual_seed(5)
    found: dict[int, Tensor] = {}

    def look(optimizer, args, kwargs) -> None:
        own = [p for group in optimizer.param_groups for p in group["params"]]
        found.update({n: p.grad.clone() for n, p in enumerate(own) if p.grad is not None})

    optimizer.register_step_pre_hook(look)
    loss_of(model, tokens()).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return sparsifier, optimizer, found


@pytest.mark.parametrize("size", [0.03, 1e6])
def test_likelihood_divergence_and_log_sigmas_are_clipped_together(size):
    _, _, whole = step_with(None, None)
    _, _, cut = step_with(size, None)
    norm = torch.nn.utils.get_total_norm(list(whole.values()))
    share = min(1.0, size / float(norm))
    assert (share < 1) == (size < 1) and set(cut) == set(whole)
    for number, gradient in whole.items():
        torch.testing.assert_close(cut[number], share * gradient, rtol=1e-4, atol=0)


def test_clipping_before_the_step_is_warned_of_once_with_the_norm():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = bayes(model).attach(optimizer)
    heard = []
    for number in range(60):
        optimizer.zero_grad()
        loss_of(model, tokens(number)).backward()
        if number >= 30:  # not at the first look
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            optimizer.step()
        heard += said
    assert len(heard) == 1 and "Give max_norm=0.02 to Bayes" in str(heard[0].message)
    sparsifier.finish()


def test_a_norm_of_zero_is_refused():
    with pytest.raises(ValueError, match="max_norm is 0"):
        bayes(tagger(), max_norm=0)
