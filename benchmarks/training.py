"""What learning what can go costs: a training step with a sparsifier attached against the same step without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import sparsernn as srn

from .measure import Ceiling, Engine, Row, versus

VOCABULARY, UNITS, LAYERS, TIME, BATCH = 10_000, 650, 2, 35, 20
TINY = 1e-12  # learning rate and strength: all steps go on computing the same


class LanguageModel(nn.Module):
    """Embedding, a stack of recurrent layers and a softmax: with LSTMs Zaremba's medium net (arXiv 1409.2329) without
    its dropout."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, UNITS)
        self.rnn = cell(UNITS, UNITS, LAYERS)
        self.head = nn.Linear(UNITS, VOCABULARY)

    def forward(self, tokens_TB: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens_TB))[0])


def _adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), TINY)


def _sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), TINY)


Make = Callable[[nn.Module, Tensor], Any]
WORKS: dict[str, tuple[Make, Callable[[nn.Module], Optimizer], float]] = {
    "GroupLasso, proximal, Adam": (lambda m, x: srn.GroupLasso(m, x, strength=TINY), _adam, 1.02),
    "GroupLasso, proximal, SGD": (lambda m, x: srn.GroupLasso(m, x, strength=TINY), _sgd, 1.02),
    "GroupLasso, subgradient, SGD": (
        lambda m, x: srn.GroupLasso(m, x, strength=TINY, update="subgradient", threshold=1e-4), _sgd, 1.02,
    ),
    "Shrink, Adam": (lambda m, x: srn.Shrink(m, x, to=0.5, steps=10**6), _adam, 1.02),
    "L1, proximal, Adam": (lambda m, x: srn.L1(m, strength=TINY), _adam, 1.02),
    "L1, subgradient, SGD": (lambda m, x: srn.L1(m, strength=TINY, update="subgradient"), _sgd, 1.02),
    "Prune, 90% of the weights, Adam": (lambda m, x: srn.Prune(m, x, 0.9), _adam, 1.01),
    "Prune, 90% of the blocks, Adam": (lambda m, x: srn.Prune(m, x, 0.9, level="block"), _adam, 1.01),
}  # fmt: skip


def training(ceiling: Ceiling, rounds: int) -> list[Row]:
    """a training step of a 2 x 650 LSTM language model with a sparsifier attached against the same step without"""
    torch.manual_seed(0)
    tokens_TB = torch.randint(VOCABULARY, (TIME, BATCH))
    rows: list[Row] = []
    for name, (make, make_optimizer, most) in WORKS.items():
        # One net for both, from whose optimizer the sparsifier's hooks come off and on again: two nets lie in different
        # places of the memory, which alone makes several percent.
        model = LanguageModel()
        weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n)
        optimizer = make_optimizer(model)
        bare = _hooks(optimizer)
        make(model, tokens_TB).attach(optimizer)
        attached = _hooks(optimizer)
        step, plain = (_step(model, optimizer, hooks, tokens_TB) for hooks in (attached, bare))
        step()  # Prune prunes after its first step, and Adam makes its state
        loss = torch.zeros(1)  # there is no error to speak of
        rows += versus(
            f"training step with {name}",
            Engine(step, lambda loss=loss: loss),
            {"the same step without": Engine(plain, lambda: torch.zeros(0), 1 / most)},
            ceiling.ideal(6.0 * weights * TIME * BATCH, 4 * weights, 3),
            rounds,
        )
    for cell in (nn.LSTM, nn.GRU):
        rows += _noisy(cell, tokens_TB, ceiling, rounds)
    return rows


def _noisy(cell: type[nn.LSTM] | type[nn.GRU], tokens_TB: Tensor, ceiling: Ceiling, rounds: int) -> list[Row]:
    """A step with `Bayes`, which changes the forward, so that there is another net beside it."""
    model, own = LanguageModel(cell), LanguageModel(cell)
    bare, optimizer = _adam(model), _adam(own)
    plain = _step(model, bare, _hooks(bare), tokens_TB)
    bayes = srn.Bayes(own, tokens_TB, train_size=10**6).attach(optimizer)
    step = _step(own, optimizer, _hooks(optimizer), tokens_TB, bayes.penalty)
    weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n)
    nothing = torch.zeros(1)
    return versus(
        f"training step with Bayes on weights, gates and units, {cell.__name__}, Adam",
        Engine(step, lambda: nothing),
        {"the same step without": Engine(plain, lambda: torch.zeros(0), 1 / 1.6)},
        ceiling.ideal(6.0 * weights * TIME * BATCH, 4 * weights, 3),
        rounds,
    )


Hooks = tuple[dict[int, Any], dict[int, Any]]


def _hooks(optimizer: Optimizer) -> Hooks:
    return dict(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_post_hooks)


def _step(
    model: nn.Module,
    optimizer: Optimizer,
    hooks: Hooks,
    tokens_TB: Tensor,
    penalty: Callable[[], Tensor | float] = lambda: 0.0,
) -> Callable[[], None]:
    """A step with only those hooks on the optimizer, and `penalty()` in the loss."""

    def step() -> None:
        for place, mine in zip((optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks), hooks):
            place.clear()
            place.update(mine)
        with torch.enable_grad():
            optimizer.zero_grad()
            scores = model(tokens_TB)
            loss = F.cross_entropy(scores.flatten(0, 1), tokens_TB.flatten()) + penalty()
            loss.backward()
            optimizer.step()

    return step
