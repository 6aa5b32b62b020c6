"""The ways to a small net: what each begins with, and what is attached to its training.

What goes is chosen over all matrices together, but for Selfish-RNN, which is published with a choice in each; all else
is each way's own default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.learn.scores import Score
from sparsernn.learn.sparsifier import Sparsifier

Level = Literal["weight", "block", "word", "unit", "rank", "int8", "int4", ""]
Begin = Literal["dense", "chance", "folded", "factorised", "early", "smaller"]
ZEROS: tuple[Level, ...] = ("weight", "block", "word")  # levels where matrices keep their shape and have zeros
GRADUAL = 0.6  # share of the steps after which a gradual way has its size


@dataclass(frozen=True)
class Given:
    """What a way is given: the net it begins with, the level, the share left, the steps that it has; `batches` with
    labels and the `loss` of one, `seen` without; the matrices of the trained dense net, for ways that look at it."""

    model: nn.Module
    example: Any
    level: Any
    left: float
    steps: int
    batches: list[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    seen: list[Any]
    trained: Mapping[str, Tensor] = field(default_factory=dict)
    strength: float = 0.0


@dataclass(frozen=True)
class Way:
    """`said`: in tables. `levels`: what it makes small. `begin`: with the trained dense net or what was made of it, or
    from chance, for as many steps as dense and further training have together. `attach`: what governs the training;
    nothing does where a net has become small already."""

    said: str
    levels: tuple[Level, ...]
    begin: Begin
    attach: Callable[[Given], Sparsifier] | None = None
    by_strength: bool = False


class _Trained(Score):
    """The magnitude that each weight had in a trained net, whatever it is now."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def elements(self, name: str, weight: Tensor) -> Tensor:
        return self.weights[name].abs().to(weight)


def _now(sparsifier: Sparsifier, rounds: int = 1) -> Sparsifier:
    """The same after its choice is made, so that the first step of the training is sparse."""
    for _ in range(rounds):
        sparsifier.step()
    return sparsifier


def _gradual(g: Given, score: Score | None = None) -> Sparsifier:
    end = max(2, round(GRADUAL * g.steps))
    schedule = srn.Gradual(end=end, every=max(1, end // 20))
    return srn.Prune(g.model, None, 1 - g.left, level=g.level, score=score, scope="model", schedule=schedule)


def _at_once(g: Given, score: Score, rounds: int = 1) -> Sparsifier:
    schedule = srn.OneShot() if rounds == 1 else srn.Iterative(rounds, every=1)
    return _now(
        srn.Prune(g.model, g.example, 1 - g.left, level=g.level, score=score, scope="model", schedule=schedule), rounds
    )


def _holding(g: Given) -> Sparsifier:
    """Keeps the zeros of a folded net."""
    weights = [p for name, p in g.model.named_parameters() if name in g.trained]
    share = sum(int(p.count_nonzero()) for p in weights) / sum(p.numel() for p in weights)
    return _now(srn.Prune(g.model, None, 1 - share, level="weight", scope="model"))


def _rewire(g: Given, **options: Any) -> Sparsifier:
    every = max(1, min(100, g.steps // 20))
    options = {"scope": "model", **options}
    return srn.Rewire(g.model, None, 1 - g.left, steps=g.steps, level=g.level, every=every, **options)


def _shrink(path: Callable[[Given], Any]) -> Callable[[Given], Sparsifier]:
    return lambda g: srn.Shrink(g.model, g.example, to=g.left, steps=g.steps, path=path(g))


WAYS: dict[str, Way] = {
    "prune": Way("gradual magnitude", ZEROS, "dense", _gradual),
    "movement": Way("movement", ("weight",), "dense", lambda g: _gradual(g, srn.Movement())),
    "fold": Way("fold, trained on", (*ZEROS, "unit"), "folded", _holding),
    "rewind": Way("rewound", ("weight",), "early", lambda g: _at_once(g, _Trained(g.trained))),
    "set": Way("SET", ("weight",), "chance", lambda g: _rewire(g, decay="constant", end=1.0)),
    "selfish": Way("Selfish-RNN", ("weight",), "chance", lambda g: _rewire(g, scope="matrix")),
    "rigl": Way("RigL", ZEROS, "chance", lambda g: _rewire(g, grow="gradient")),
    "snip": Way("SNIP", ("weight",), "chance", lambda g: _at_once(g, srn.SNIP(g.batches, g.loss))),
    "grasp": Way("GraSP", ("weight",), "chance", lambda g: _at_once(g, srn.GraSP(g.batches, g.loss))),
    "synflow": Way("SynFlow", ("weight",), "chance", lambda g: _at_once(g, srn.SynFlow(), 100)),
    "shrink": Way("Shrink, TopK", ("unit",), "dense", _shrink(lambda g: srn.TopK())),
    "fade": Way("Shrink, Fade", ("unit",), "dense", _shrink(lambda g: srn.Fade())),
    "gates": Way("Shrink, HardConcrete", ("unit",), "dense", _shrink(lambda g: srn.HardConcrete())),
    "folding": Way("Shrink, Fold", ("unit",), "dense", _shrink(lambda g: srn.Fold(g.seen))),
    "direct": Way("dense of that size, as many steps", ("unit",), "smaller"),
    "direct-longer": Way("dense of that size, as much compute", ("unit",), "smaller"),
    "factorise": Way("factorise, trained on", ("rank",), "factorised"),
    "lasso": Way(
        "group lasso", ("unit",), "dense", lambda g: srn.GroupLasso(g.model, g.example, strength=g.strength), True
    ),
    "l1": Way("L1", ("weight",), "dense", lambda g: srn.L1(g.model, g.example, strength=g.strength), True),
    "aware": Way(
        "trained as rounded",
        ("int8", "int4"),
        "dense",
        lambda g: srn.quantise_aware(g.model, g.example, bits=8 if g.level == "int8" else 4),
    ),
}


def begun(way: str, level: Level, left: float, dense: nn.Module, seen: list[Any], example: Any) -> nn.Module:
    """What `way` makes of the trained net before any further step."""
    with torch.no_grad():
        if WAYS[way].begin == "folded":
            folded = srn.fold(dense, seen, to=left, level=level)  # type: ignore[arg-type]
            return srn.compact(folded.model, example) if level == "unit" else folded.model
        if WAYS[way].begin == "factorised":
            return srn.factorise(dense, seen, to=left, include="recurrent").model
    return dense
