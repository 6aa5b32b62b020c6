"""Small models, data and hand-made groups for the tests of the sparsifiers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsernn.structure.groups import Member, SliceGroups
from sparsernn.structure.trace import trace

SYMBOLS = 11


class Tagger(nn.Module):
    """Embedding, recurrent layers, linear head on every step."""

    def __init__(self, kind: str = "LSTM", hidden: int = 20, embedding: int = 9, **options: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, embedding)
        self.rnn = getattr(nn, kind)(embedding, hidden, batch_first=True, **options)
        width = self.rnn.proj_size or hidden
        self.head = nn.Linear(width * (2 if self.rnn.bidirectional else 1), SYMBOLS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


def tagger(seed: int = 0, kind: str = "LSTM", hidden: int = 20, **options: object) -> Tagger:
    torch.manual_seed(seed)
    return Tagger(kind, hidden, **options)


HIDDEN = 6


def double_tagger(**options: object) -> Tagger:
    return tagger(hidden=HIDDEN, num_layers=2, **options).double()


def tokens(seed: int = 1, batch: int = 4, time: int = 7) -> Tensor:
    return torch.randint(0, SYMBOLS, (batch, time), generator=torch.Generator().manual_seed(seed))


def batches(number: int = 8) -> list[Tensor]:
    """224 positions in all: as many as `Fold` wants for twenty units."""
    return [tokens(100 + seed) for seed in range(number)]


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    scores = model(x)
    return nn.functional.cross_entropy(scores.reshape(-1, SYMBOLS), x.roll(1, 1).reshape(-1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Plain loop; step t sees the batch of seed t, so that a resumed run sees the same data."""
    for number in range(first, first + steps):
        x = tokens(number)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adam with weight decay": lambda m: torch.optim.Adam(m.parameters(), 1e-2, weight_decay=1e-2),
    "fused adam": lambda m: torch.optim.Adam(m.parameters(), 1e-2, weight_decay=1e-2, fused=True),
    "adamw amsgrad": lambda m: torch.optim.AdamW(m.parameters(), 1e-2, weight_decay=0.1, amsgrad=True),
    "sgd with momentum": lambda m: torch.optim.SGD(m.parameters(), 0.3, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), 1e-3, momentum=0.5, weight_decay=1e-3, centered=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), 1e-2),
    "lbfgs": lambda m: torch.optim.LBFGS(m.parameters(), 0.5, max_iter=4, line_search_fn="strong_wolfe"),
}


def state_values(optimizer: torch.optim.Optimizer, parameter: Tensor) -> list[Tensor]:
    """The optimizer's tensors shaped like the parameter: momentum, exp_avg, exp_avg_sq ..."""
    values = optimizer.state.get(parameter, {}).values()
    return [v for v in values if isinstance(v, Tensor) and v.shape == parameter.shape]


def lstm_unit_groups(hidden: int, layers: int) -> SliceGroups:
    """Unit groups of `Tagger("LSTM", num_layers=layers)`, written down by hand from the definition (Wen, 3)."""
    members, scopes, units = [], [], {}
    for layer in range(layers):
        own = layer * hidden + torch.arange(hidden)
        gates = own.repeat(4)
        units[f"rnn.l{layer}"] = own
        scopes += [f"rnn.l{layer}"] * hidden
        for matrix in ("ih", "hh"):
            members.append(Member(f"rnn.weight_{matrix}_l{layer}", 0, gates, "incoming"))
            members.append(Member(f"rnn.bias_{matrix}_l{layer}", 0, gates, "bias"))
        members.append(Member(f"rnn.weight_hh_l{layer}", 1, own, "outgoing"))
        reader = "head.weight" if layer == layers - 1 else f"rnn.weight_ih_l{layer + 1}"
        members.append(Member(reader, 1, own, "outgoing"))
    return SliceGroups("unit", layers * hidden, tuple(members), tuple(scopes), units)


class Recall(nn.Module):
    """At each step it names the symbol of two steps before."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(6, 12), nn.LSTM(12, 32), nn.Linear(32, 6)

    def forward(self, x_TB):
        return self.head(self.rnn(self.embedding(x_TB))[0])


def inputs_of_recall(number: int, seed: int = 1) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randint(6, (16, 32), generator=source) for _ in range(number)]


@functools.cache
def trained_recall() -> Recall:
    """It makes no errors. Not to be changed."""
    torch.manual_seed(0)
    model = Recall()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for x in inputs_of_recall(250):
        loss = nn.functional.cross_entropy(model(x)[2:].flatten(0, 1), x[:-2].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def loss_of_recall(model: nn.Module) -> float:
    x = torch.cat(inputs_of_recall(10, seed=3), 1)
    return float(nn.functional.cross_entropy(model(x)[2:].flatten(0, 1), x[:-2].flatten()))


def widths_left(model: nn.Module) -> dict[str, int]:
    """Units that are not dead, by layer and direction."""
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))
    return {name: int((~gone).sum()) for name, gone in dead.items()}


def lstm_weights(inputs: int, units: int) -> int:
    return 4 * units * (inputs + units)
