"""Sparse storage in `Rewire`: the run of dense storage to the bit, in the bytes of the weights that are there."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from learn_models import OPTIMIZERS, double_tagger, loss_of, tagger, tokens, train
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.sparse_storage import SparseStorage
from sparsernn.learn.stored_matrix import Matrix

METHODS = {
    "SET": {"decay": "constant", "end": 1.0},
    "RigL": {"grow": "gradient", "share": 0.3},
    "Selfish-RNN": {"share": 0.5},
}
SETTINGS = {
    "weights of each matrix": {},
    "weights of a layer": {"scope": "layer"},
    "weights of the model": {"scope": "model", "initial": "erdos-renyi"},
    "blocks": {"level": "block"},
    "words of the model": {"level": "word", "scope": "model"},
    "all matrices": {"include": "all"},
}
ELEMENTWISE = [name for name in OPTIMIZERS if name not in ("lbfgs", "fused adam")]
MATRIX = "rnn.weight_hh_l0"


class Written(nn.Module):
    """A loop over a cell, and a matrix that the model itself multiplies with: many uses of each in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.head = nn.Embedding(11, 9), nn.LSTMCell(9, 20), nn.Linear(20, 11)
        self.own = nn.Parameter(torch.randn(20, 9) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        e_BTI, state, found = self.embedding(x), None, []
        for t in range(x.shape[1]):
            h, c = self.cell(e_BTI[:, t], state)
            h = torch.tanh(h + e_BTI[:, t] @ self.own.t())
            state = h, c
            found.append(h)
        return self.head(torch.stack(found, 1))


def written() -> nn.Module:
    torch.manual_seed(0)
    return Written().double()


def begun(storage="sparse", make=double_tagger, optimizer="adam with weight decay", **options):
    model = make()
    built = OPTIMIZERS[optimizer](model)
    settings = {"steps": 16, "every": 3, "storage": storage, **options}
    return model, built, Rewire(model, None, 0.8, **settings).attach(built)


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.mark.smoke
@pytest.mark.parametrize("optimizer", ELEMENTWISE)
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_a_run_is_that_of_dense_storage_to_the_bit(method, setting, optimizer):
    """Weights, gradients, the optimizer's whole state and masks, in the course of the run and after it."""
    runs = [begun(s, optimizer=optimizer, **METHODS[method], **SETTINGS[setting]) for s in ("dense", "sparse")]
    (dense, first, one), (sparse, second, other) = runs
    for part in range(2):
        for model, built, _ in runs:
            train(model, built, 8, first=8 * part)
        assert_equal(dense, sparse)
        assert one.density() == other.density()
        assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert one.finish() is dense and other.finish() is sparse
    assert_equal(dense, sparse)
    for a, b in zip(dense.parameters(), sparse.parameters()):
        assert torch.equal(a.grad, b.grad)
        assert first.state[a].keys() == second.state[b].keys()
        for key, value in first.state[a].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second.state[b][key])), key
    train(dense, first, 2), train(sparse, second, 2)  # the optimizer goes on with the plain model
    assert_equal(dense, sparse)


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("make", [written, double_tagger])
def test_accumulated_gradients_and_many_uses_of_a_matrix(make, grow):
    runs = [begun(s, make, grow=grow, include="all", every=2) for s in ("dense", "sparse")]
    for model, built, _ in runs:
        loss_of(model, tokens(99)).backward()  # which the loop does not use
        for number in range(8):
            built.zero_grad(set_to_none=number % 2 == 0)
            for part in range(3):
                loss_of(model, tokens(3 * number + part)).backward()
            built.step()
    assert_equal(runs[0][0], runs[1][0])


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_fused_layers_of_torch_in_both_directions_with_dropout(kind):
    runs = [
        begun(s, lambda: tagger(kind=kind, bidirectional=True, num_layers=2, dropout=0.3)) for s in ("dense", "sparse")
    ]
    for model, built, _ in runs:
        torch.manual_seed(0)
        train(model, built, 10)
    for a, b in zip(runs[0][0].state_dict().values(), runs[1][0].state_dict().values()):
        torch.testing.assert_close(a, b)  # float32, as oneDNN has it


def test_a_layer_of_this_package():
    def made():
        model = double_tagger()
        model.rnn = srn.nn.RHN(9, 6, depth=2).double()
        return model

    runs = [begun(s, made, include="all") for s in ("dense", "sparse")]
    for model, built, _ in runs:
        for number in range(8):
            built.zero_grad()
            model.head(model.rnn(model.embedding(tokens(number)).transpose(0, 1))[0]).square().mean().backward()
            built.step()
    assert_equal(runs[0][0], runs[1][0])


def test_averages_of_weights_that_come_and_go():
    runs = []
    for storage in ("dense", "sparse"):
        model = double_tagger()
        optimizer = srn.SNTASGD(model.parameters(), 0.5, patience=1)
        sparsifier = Rewire(model, None, 0.8, steps=16, every=2, storage=storage).attach(optimizer)
        for loss in (1.0, 2.0, 3.0, 4.0):
            train(model, optimizer, 4, first=sparsifier.steps_done)
            optimizer.look(loss)
        with optimizer.averaged():
            runs.append(model.state_dict())
    assert optimizer.averaging
    for a, b in zip(runs[0].values(), runs[1].values()):
        assert torch.equal(a, b)


def held_by(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters, gradients and the optimizer's state."""
    found = [t for p in model.parameters() for t in (p, p.grad, *optimizer.state[p].values())]
    return sum(t.numel() * t.element_size() for t in found if isinstance(t, Tensor))


def test_what_is_held_is_what_is_there():
    model, optimizer, sparsifier = begun(include="rnn.weight_*")
    train(model, optimizer, 4)
    matrices = [p for name, p in model.named_parameters() if "rnn.weight" in name]
    there = [round(0.2 * n) for n in (24 * 9, 24 * 6, 24 * 6, 24 * 6)]
    assert [p.shape for p in matrices] == [(n,) for n in there]
    rest = sum(p.numel() for name, p in model.named_parameters() if "rnn.weight" not in name)
    steps = 4 * len(list(model.parameters()))  # a float32 each
    assert held_by(model, optimizer) == 4 * 8 * (sum(there) + rest) + steps  # weight, gradient, two moments
    own = [value for value in _tensors(sparsifier) if value.numel() > 1]
    assert sorted(value.numel() * value.element_size() for value in own) == sorted(4 * n for n in there)


def _tensors(sparsifier: Rewire) -> list[Tensor]:
    """All that the sparsifier keeps beside the model's parameters."""
    storage = sparsifier._stored
    assert isinstance(storage, SparseStorage)
    holders = [vars(sparsifier), *(vars(matrix) for matrix in storage.matrices.values())]
    values = [
        v
        for holder in holders
        for value in holder.values()
        for v in (value.values() if isinstance(value, dict) else [value])
    ]
    return [v for v in values if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)]


@pytest.mark.parametrize("make", [written, double_tagger])
def test_no_matrix_is_kept_between_forward_and_backward_or_after(make, monkeypatch):
    """A weak reference to a storage lives for as long as autograd keeps any view of it."""
    made, spread = [], Matrix.spread

    def recorded(self: Matrix, values: Tensor) -> Tensor:
        matrix = spread(self, values)
        made.append(weakref.ref(matrix.untyped_storage()))
        return matrix

    model, optimizer, _ = begun(make=make, include="all")
    train(model, optimizer, 1)
    monkeypatch.setattr(Matrix, "spread", recorded)
    loss = loss_of(model, tokens())
    gc.collect()
    forward = len(made)
    assert forward >= 4 and not any(storage() is not None for storage in made)
    loss.backward()
    gc.collect()
    assert len(made) > forward and not any(storage() is not None for storage in made)
    if make is double_tagger:  # torch asks for it at each step
        assert len(made) <= 2 * forward


@pytest.mark.parametrize("order", ["model first", "attached first", "sparsifier before attach"])
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("setting", ["weights of each matrix", "weights of the model", "blocks"])
def test_killed_and_resumed_is_equal_to_the_bit(setting, method, order):
    options = {**METHODS[method], **SETTINGS[setting]}
    model, optimizer, sparsifier = begun(**options)
    train(model, optimizer, 7)
    saved = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()], saved)
    train(model, optimizer, 9, first=7)

    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    again = double_tagger(seed=3)
    second = OPTIMIZERS["adam with weight decay"](again)
    resumed = Rewire(again, None, 0.8, steps=16, every=3, storage="sparse", **options)
    if order == "attached first":
        resumed.attach(second)
    again.load_state_dict(state[0])
    if order == "sparsifier before attach":
        resumed.load_state_dict(state[2])
    if order != "attached first":
        resumed.attach(second)
    second.load_state_dict(state[1])
    if order != "sparsifier before attach":
        resumed.load_state_dict(state[2])
    train(again, second, 9, first=7)
    assert_equal(model, again)
    assert sparsifier.density() == resumed.density() and resumed.steps_done == 16


def test_states_of_both_storages_are_told_apart():
    states = {storage: begun(storage)[2].state_dict() for storage in ("dense", "sparse")}
    for storage, other in (("dense", "sparse"), ("sparse", "dense")):
        with pytest.raises(ValueError, match="storage"):
            begun(storage)[2].load_state_dict(states[other])


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
    with pytest.raises(RuntimeError, match="hooks"):
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
