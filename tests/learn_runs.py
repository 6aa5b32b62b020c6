"""Sparsifiers at work, one of each kind, on a small model that has taken a few steps."""

from __future__ import annotations

import pytest
import torch

import sparsernn as srn
from learn_models import OPTIMIZERS, batches, tagger, tokens, train
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.paths.hard_concrete import HardConcrete
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Taylor
from sparsernn.learn.shrink import Shrink

EARLY = TopK(0.0, 0.3, 0.5, every=3)


def shrink(**options):
    return lambda m: Shrink(m, tokens(), **{"steps": 24, **options})


def lasso(**options):
    return lambda m: GroupLasso(m, tokens(), strength=0.02, **options)


def bayes(size):
    return lambda m: Bayes(m, train_size=size, level="weight")


RUNS = {
    "prune": lambda m: Prune(m, None, 0.8, schedule=Gradual(end=14, every=3)),
    "prune units by taylor": lambda m: Prune(m, tokens(), 0.5, level="unit", score=Taylor()),
    "top-k": shrink(to=0.4, path=EARLY),
    "fade": shrink(to=0.4, path=Fade(0.0, 0.3, 0.5)),
    "hard concrete": shrink(to=0.4, path=HardConcrete(0.0, 0.3, 0.5)),
    "fold": shrink(to=0.4, path=Fold(batches(), at=(0.1, 0.3, 0.5))),
    "loss": shrink(max_loss=10.0, validate=lambda: 1.0),
    "proximal": lasso(),
    "subgradient": lasso(update="subgradient", threshold=1e-3),
    "l1": lambda m: L1(m, strength=0.002),
    "bayes": lambda m: Bayes(m, tokens(), train_size=1000),
    "rewire": lambda m: Rewire(m, None, 0.8, steps=24, every=2),
    "rewire by gradient": lambda m: Rewire(m, None, 0.8, steps=24, every=2, grow="gradient"),
    "rewire stored": lambda m: Rewire(m, None, 0.8, steps=24, every=2, storage="sparse"),
    "quantise": lambda m: srn.quantise_aware(m, tokens()),
}
each_run = pytest.mark.parametrize("name", list(RUNS))
early = pytest.mark.filterwarnings("ignore:.*finish")  # these runs end early


def start(name: str, steps: int = 5):
    torch.manual_seed(0)
    model = tagger(hidden=6)
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    sparsifier = RUNS[name](model).attach(optimizer)
    train(model, optimizer, steps)
    return model, optimizer, sparsifier
