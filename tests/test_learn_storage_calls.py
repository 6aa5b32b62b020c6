"""Sparse storage in `Rewire`: calls that end otherwise than they should, or are of two threads, and weights loaded."""

from __future__ import annotations

import copy
import gc
import threading

import pytest
import torch
from torch import Tensor, nn

from learn_models import loss_of, tokens, train
from storage_runs import assert_equal, begun, written


def test_weights_that_are_loaded_in_between_hold_until_the_next_step():
    found = []
    for storage in ("dense", "sparse"):
        model, optimizer, _ = begun(storage)
        train(model, optimizer, 4)
        best = copy.deepcopy(model.state_dict())
        train(model, optimizer, 7, first=4)  # which moves weights
        model.load_state_dict(best)
        assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())
        outputs = model(tokens())
        train(model, optimizer, 3, first=11)
        found.append((outputs, model))
    assert torch.equal(found[0][0], found[1][0])
    assert_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("learning", [True, False])
def test_ctrl_c_in_a_forward_leaves_nothing_behind(learning: bool):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    runs = [begun(make=written, include="all") for _ in range(2)]
    for number, (model, optimizer, _) in enumerate(runs):
        train(model, optimizer, 2)
        if number:
            for part in (model.cell, model.head):
                hook = part.register_forward_pre_hook(stop)
                with pytest.raises(KeyboardInterrupt), torch.set_grad_enabled(learning):
                    model(tokens())
                hook.remove()
        train(model, optimizer, 4, first=2)
        assert all(
            isinstance(p, nn.Parameter) for m in model.modules() for p in m._parameters.values() if p is not None
        )
    assert_equal(runs[0][0], runs[1][0])
    runs[1][2].finish()
    assert_equal(copy.deepcopy(runs[1][0]), runs[0][2].finish())


def test_two_threads_in_one_forward_are_refused_and_the_training_goes_on():
    model, optimizer, _ = begun()
    train(model, optimizer, 2)
    entered, leave, said = threading.Event(), threading.Event(), []

    def wait(*_: object) -> None:
        entered.set()
        assert leave.wait(60)

    hook = model.rnn.register_forward_pre_hook(wait)
    first = threading.Thread(target=model, args=(tokens(),))
    first.start()
    assert entered.wait(60)
    hook.remove()
    try:
        model(tokens())
    except RuntimeError as error:
        said.append(str(error))
    leave.set()
    first.join()
    assert len(said) == 1 and "two threads call LSTM at once" in said[0] and "deepcopy" in said[0]
    other, built, _ = begun()
    train(other, built, 2)
    for each, own in ((model, optimizer), (other, built)):
        train(each, own, 4, first=2)
    assert_equal(model, other)


def test_forwards_without_a_backward_hold_nothing():
    model, optimizer, _ = begun()
    train(model, optimizer, 2)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(each, Tensor) for each in gc.get_objects())

    loss_of(model, tokens()).backward(retain_graph=True)
    before = tensors()
    for _ in range(3):
        model(tokens())
        loss_of(model, tokens()).backward(retain_graph=True)
    assert tensors() <= before
