"""Misuse of a sparsifier is named in a sentence, and the model is as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learn_models import tagger, tokens
from sparsernn.learn.factorise import factorise
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Taylor
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier


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
    thin = factorise(model, [tokens() for _ in range(8)], to=0.5).model
    no_change(thin, lambda: Prune(thin, None, 0.5), ValueError, "Matrices of rnn are products", 'include="rnn.*"')
    Prune(thin, None, 0.5, include="rnn.*")
    alone = thin.rnn
    no_change(alone, lambda: Prune(alone, None, 0.5), ValueError, "products of two factors", 'include="*"')
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
