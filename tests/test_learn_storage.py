"""Sparse storage in `Rewire`: the run of dense storage to the bit, in the bytes of the weights that are there."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from learn_models import OPTIMIZERS, double_tagger, loss_of, tagger, tokens, train
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.sparse_storage import SparseStorage
from sparsernn.learn.stored_matrix import Matrix
from storage_runs import ELEMENTWISE, METHODS, SETTINGS, assert_equal, begun, written


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
            runs.append(copy.deepcopy(model.state_dict()))
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
