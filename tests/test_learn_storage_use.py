"""Sparse storage in `Rewire` beside all that is done with a model in the course of a training, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from learn_models import double_tagger, loss_of, tagger, tokens, train
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from storage_runs import MATRIX, Written, assert_equal, begun


def test_a_plain_model_is_in_checkpoints_copies_and_files(tmp_path):
    model, optimizer, sparsifier = begun()
    keys, shapes = list(double_tagger().state_dict()), [v.shape for v in double_tagger().state_dict().values()]
    train(model, optimizer, 5)
    assert list(model.state_dict()) == keys and [v.shape for v in model.state_dict().values()] == shapes
    fresh = double_tagger(seed=4)
    fresh.load_state_dict(model.state_dict())
    srn.save(model, tmp_path / "m")
    others = [fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), srn.load(double_tagger(), tmp_path / "m")]
    wanted = model(tokens())
    for other in others:
        assert [p.shape for p in other.parameters()] == shapes
        assert torch.equal(other(tokens()), wanted)
        assert type(other) is type(model)
        train(other, torch.optim.SGD(other.parameters(), 0.1), 1)  # and it trains by itself
    srn.trace(others[1], tokens())
    assert model.get_parameter(MATRIX).dim() == 1  # all the time
    before = model.state_dict()
    plain = sparsifier.finish()
    assert plain is model and type(model) is type(double_tagger())
    assert [(name, p.shape) for name, p in model.named_parameters()] == list(zip(keys, shapes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    modules = list(model.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks or m._state_dict_hooks for m in modules)
    assert not any(m._load_state_dict_pre_hooks or "forward" in vars(m) for m in modules)
    assert torch.equal(model(tokens()), wanted) and sparsifier.finish() is model


def test_evaluation_between_steps_changes_nothing():
    runs = [begun(grow="gradient") for _ in range(2)]
    for number, (model, built, _) in enumerate(runs):
        for step in range(8):
            train(model, built, 1, first=step)
            if number:
                model.eval()
                with torch.no_grad():
                    model(tokens())
                with torch.inference_mode():
                    model(tokens())
                model.train()
    assert_equal(runs[0][0], runs[1][0])


def test_a_forward_that_raises_leaves_the_model_as_it_was():
    model, optimizer, _ = begun()
    with pytest.raises(ValueError, match="got 4D"):
        model.rnn(torch.zeros(1, 2, 3, 4).double())
    assert model.get_parameter(MATRIX).dim() == 1
    train(model, optimizer, 1)


def test_clipping_counts_the_weights_that_are_there():
    model, _, sparsifier = begun()
    plain = copy.deepcopy(model)
    for each in (model, plain):
        loss_of(each, tokens()).backward()
    for name, mask in sparsifier.masks.items():
        plain.get_parameter(name).grad.mul_(mask)
    a, b = (nn.utils.clip_grad_norm_(each.parameters(), 1.0) for each in (model, plain))
    torch.testing.assert_close(a, b)


def test_second_derivatives_recomputed_layers_and_other_weights():
    model, _, sparsifier = begun()
    plain, mask = copy.deepcopy(model), sparsifier.masks[MATRIX]
    second = []
    for each in (model, plain):
        weight = each.get_parameter(MATRIX)
        gradient = torch.autograd.grad(loss_of(each, tokens()), weight, create_graph=True)[0]
        own = gradient if each is model else gradient[mask]
        second.append(torch.autograd.grad(own.square().sum(), weight)[0])
    torch.testing.assert_close(second[0], second[1][mask])

    found = []
    for forward in (model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        forward(tokens()).square().sum().backward()
        found.append(model.get_parameter(MATRIX).grad)
    assert torch.equal(*found)

    halves = {name: p.detach() / 2 for name, p in plain.named_parameters()}
    calls = [torch.func.functional_call(each, halves, (tokens(),)) for each in (model, plain)]
    assert torch.equal(*calls)
    torch.func.grad(lambda values: torch.func.functional_call(model, values, (tokens(),)).sum())(halves)
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda bias: (model(tokens()) * bias).sum())(torch.ones((), dtype=torch.float64))
    assert model.get_parameter(MATRIX).dim() == 1 and torch.equal(model(tokens()), plain(tokens()))


def test_half_precision_and_a_scaler():
    torch.manual_seed(0)
    model = Written()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = Rewire(model, None, 0.8, steps=12, every=2, storage="sparse", grow="gradient").attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for number in range(8):
        for overflow in (True, False):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model, tokens(number))
            scaler.scale(loss * (float("inf") if overflow else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
            assert sparsifier.steps_done == number + (not overflow)
    assert sparsifier.density() == pytest.approx(0.2, abs=1e-3)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_graphs_that_outlive_a_move():
    """Losses that the loop keeps do not hold the sizes of before; a backward pass through them is refused."""
    model, optimizer, _ = begun(scope="model", every=1)
    losses = []
    for number in range(6):
        optimizer.zero_grad()
        losses.append(loss_of(model, tokens(number)))
        losses[-1].backward(retain_graph=True)
        optimizer.step()
    with pytest.raises(RuntimeError):
        losses[0].backward()


class Multiplies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, 9, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight)


def test_what_changes_between_forward_and_backward_is_noticed():
    model = Multiplies()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Rewire(model, None, 0.5, steps=9, every=1, include="all", storage="sparse").attach(optimizer)
    x = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="changed in place after the forward"):
        model(x).mul_(2).sum().backward()
    optimizer.zero_grad()
    loss = model(x).sum()
    loss.backward(retain_graph=True)
    optimizer.step()  # values change, and places
    with pytest.raises(RuntimeError, match="before the optimizer's step"):
        loss.backward()
    sparsifier.finish()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.other = nn.RNN(4, 4), nn.RNN(4, 4)
        self.other.weight_hh_l0 = self.rnn.weight_hh_l0

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.rnn(x)[0])[0]


REFUSED = {
    "wrapped": (lambda: nn.DataParallel(tagger()), torch.optim.SGD, {}, "inside a DataParallel"),
    "tied": (Tied, torch.optim.SGD, {}, "are one weight"),
    "read elsewhere": (lambda: nn.TransformerEncoderLayer(4, 1), torch.optim.SGD, {"include": "linear1*"}, "outside"),
    "of attention": (
        lambda: nn.Sequential(nn.MultiheadAttention(4, 1)),
        torch.optim.SGD,
        {"include": "all"},
        "outside",
    ),
    "max_norm": (lambda: nn.Embedding(9, 4, max_norm=1.0), torch.optim.SGD, {"include": "all"}, "max_norm"),
    "lbfgs": (tagger, torch.optim.LBFGS, {}, "LBFGS looks at whole matrices"),
    "adafactor": (tagger, torch.optim.Adafactor, {}, "Adafactor looks at whole matrices"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_not_for_it_is_refused_before_anything_changes(name):
    make, optimizer, options, sentence = REFUSED[name]
    model = make()
    built = optimizer(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    sparsifier = Rewire(model, None, 0.5, steps=9, storage="sparse", **options)
    with pytest.raises(ValueError, match=f"storage=.sparse.*{sentence}(.|\n)*storage=.dense"):
        sparsifier.attach(built)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not built._optimizer_step_post_hooks
    Rewire(model, None, 0.5, steps=9, **options).attach(built)


def test_other_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match=r"torch\.distributed is running"):
        begun()


def test_other_refusals():
    with pytest.raises(ValueError, match="storage is 'csr', expected one of 'dense', 'sparse'"):
        begun("csr")
    with pytest.raises(RuntimeError, match="attach it first"):
        Rewire(tagger(), None, 0.8, steps=9, storage="sparse").step()
    model, optimizer, sparsifier = begun()
    with pytest.raises(ValueError, match="Call finish\\(\\) first, or give a copy"):
        srn.compact(model, tokens())
    with pytest.raises(ValueError, match="is training this model"):
        Prune(model, None, 0.5)
    with pytest.raises(RuntimeError, match="already attached"):
        sparsifier.attach(optimizer)
    plain = double_tagger()
    built = torch.optim.SGD(plain.parameters(), 0.1)
    Prune(plain, None, 0.5).attach(built)
    with pytest.raises(ValueError, match="keeps weights beside"):
        Rewire(plain, None, 0.8, steps=9, storage="sparse").attach(built)
    assert plain.get_parameter(MATRIX).dim() == 2


def test_weights_that_are_not_finite_end_in_a_sentence_and_a_plain_model():
    model, _, sparsifier = begun()
    with torch.no_grad():
        model.get_parameter(MATRIX)[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        sparsifier.finish()
    assert model.get_parameter(MATRIX).dim() == 2


def test_it_may_be_attached_again():
    model, optimizer, sparsifier = begun()
    train(model, optimizer, 4)
    sparsifier.finish()
    kept = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    sparsifier.attach(optimizer)
    assert all(torch.equal(mask, kept[name]) for name, mask in sparsifier.masks.items())
    train(model, optimizer, 4, first=4)
    straight, second, _ = begun()
    train(straight, second, 8)
    assert_equal(model, straight)
