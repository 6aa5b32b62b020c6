"""Classifiers for many graphs trained at once: a disjoint union of graphs is a graph, too.

The nets share each fused call and nothing else: weights, gradients, clipping and Adam's steps of each are what they
would be if it were trained alone on the same batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor, nn

from sparsernn.nn.graph import GraphGRU, GraphLSTM, GraphRNN
from sparsernn.nn.layering import Inputs, directed

from ..loop import Loop, Sparsify
from ..train import Objective, Training

GraphCell = Literal["tanh", "relu", "lstm", "gru"]
CELLS: dict[str, tuple[type[Any], dict[str, str]]] = {
    "lstm": (GraphLSTM, {}),
    "gru": (GraphGRU, {}),
    "tanh": (GraphRNN, {"nonlinearity": "tanh"}),
    "relu": (GraphRNN, {"nonlinearity": "relu"}),
}


class GraphClassifier(nn.Module):
    """Two classes of a padded sequence by the nets of K graphs: (x_TB, lengths_B) -> logits_BKC (one graph: BC).

    Each symbol enters as a vector of its own (one-hot), so that every graph's sources, or all its nodes (`inputs`), see
    the same input. The sinks at each sequence's last step are read by a linear layer for each graph.
    """

    graph: Any
    mask: Tensor | None

    def __init__(
        self, cell: str, graphs: Sequence[nx.Graph], symbols: int, seed: int = 0, inputs: Inputs = "sources"
    ) -> None:
        super().__init__()
        kind, options = CELLS[cell]
        dags = [directed(graph) for graph in graphs]
        starts = [0, *itertools.accumulate(len(dag) for dag in dags)]
        union = nx.DiGraph()
        own = nx.DiGraph()  # units feed back within their layer and graph
        for dag, start in zip(dags, starts):
            number = {node: start + n for n, node in enumerate(dag)}
            union.add_nodes_from(number.values())
            union.add_edges_from((number[u], number[v]) for u, v in dag.edges())
            own.add_edges_from((u, v) for u in number.values() for v in number.values())
        self.symbols, self.count = symbols, len(graphs)
        self.graph = kind(symbols, union, inputs=inputs, recurrent=own, **options)
        owner = torch.tensor([n for n, dag in enumerate(dags) for _ in dag])
        self.owners = [owner[list(nodes)] for nodes in self.graph.nodes]
        read = torch.cat([who[list(units)] for who, units in zip(self.owners, self.graph.layering.readout)])
        self.head = nn.Linear(len(read), 2 * self.count)
        mask = (read == torch.arange(self.count).unsqueeze(1)).repeat_interleave(2, 0)
        self.register_buffer("mask", None if self.count == 1 else mask)
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """Every graph's weights uniform in ±1/sqrt(its own nodes in the layer), as if it were alone."""
        source = torch.Generator().manual_seed(seed)
        for owners, layer in zip(self.owners, itertools.count()):
            bound = torch.bincount(owners, minlength=self.count)[owners].rsqrt().repeat(self.graph.gates)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                p = getattr(self.graph, f"{name}_l{layer}")
                drawn = torch.rand(p.shape, generator=source) * 2 - 1
                p.copy_(drawn * (bound.unsqueeze(1) if p.dim() == 2 else bound))
        self.graph.clear_absent()
        fan_in = torch.tensor([len(self.head.weight[0])]) if self.mask is None else self.mask.sum(1)
        bound = fan_in.rsqrt()
        self.head.weight.copy_((torch.rand(self.head.weight.shape, generator=source) * 2 - 1) * bound.unsqueeze(1))
        self.head.bias.copy_((torch.rand(self.head.bias.shape, generator=source) * 2 - 1) * bound)
        if self.mask is not None:
            self.head.weight.mul_(self.mask)

    def forward(self, x_TB: Tensor, lengths_B: Tensor) -> Tensor:
        x_TBS = nn.functional.one_hot(x_TB, self.symbols).to(self.head.weight.dtype)
        # Padding lies behind each sequence's end, which no unit has seen by then: no need to pack.
        y_TBH, _ = self.graph(x_TBS)
        last_BH = y_TBH[lengths_B - 1, torch.arange(len(lengths_B), device=y_TBH.device)]
        weight = self.head.weight if self.mask is None else self.head.weight * self.mask
        logits = nn.functional.linear(last_BH, weight, self.head.bias)
        return logits if self.count == 1 else logits.unflatten(1, (self.count, 2))

    def rows(self) -> dict[str, Tensor]:
        """The graph that owns each row of each parameter: parameter name -> (rows,)."""
        found = {"head.weight": torch.arange(self.count).repeat_interleave(2)}
        found["head.bias"] = found["head.weight"]
        for layer, owners in enumerate(self.owners):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                found[f"graph.{name}_l{layer}"] = owners.repeat(self.graph.gates)
        return found

    def weights_of_each(self) -> list[int]:
        """For each graph how many weights of its recurrent matrices belong to an edge, the input or feedback."""
        found = torch.zeros(self.count, dtype=torch.long)
        for name, owners in self.rows().items():
            p = self.get_parameter(name)
            if p.dim() == 2 and name.startswith("graph."):
                mask = self.graph._mask(name.removeprefix("graph."))
                each = torch.full((len(p),), p.shape[1]) if mask is None else mask.sum(1)
                found.index_add_(0, owners, each)
        return found.tolist()


def clip_each(model: GraphClassifier, rows: dict[str, Tensor], most: float) -> None:
    """Scale each graph's gradients so that their norm is at most `most`, as torch's clip_grad_norm_ does for one."""
    squares = torch.zeros(model.count)
    gradients = [(p.grad, rows[name]) for name, p in model.named_parameters() if p.grad is not None]
    for gradient, owners in gradients:
        squares.index_add_(0, owners, gradient.square().reshape(len(owners), -1).sum(1).to(squares.dtype))
    scale = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient, owners in gradients:
        gradient.mul_(scale[owners].reshape(-1, *[1] * (gradient.dim() - 1)).to(gradient.dtype))


class Population(Loop):
    """All nets of a classifier at once: Adam, linear warm-up, cosine to zero; the loss is the sum of the nets' means.

    A net that diverges is no reason to stop: the others learn as if it were not there.
    """

    quiet = True

    def rate(self, first: float) -> float:
        share = min(1.0, (self.step + 1) / self.settings.warm_up)
        return first * (share * 0.5 * (1 + math.cos(math.pi * self.step / self.goal)))

    def new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), self.settings.learning_rate, fused=True)

    def forward(self) -> tuple[Tensor, Tensor]:
        x_TB, lengths_B, classes_B = self.objective.batch(self.step)
        count = self.model.count
        logits_BKC = self.model(x_TB, lengths_B).reshape(len(classes_B), count, 2)
        loss = nn.functional.cross_entropy(logits_BKC.transpose(1, 2), classes_B[:, None].expand(-1, count))
        return loss * count, loss.nan_to_num()

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        return self.model.rows()

    def clip(self) -> None:
        clip_each(self.model, self.rows, self.settings.clip)


def fit(
    model: GraphClassifier,
    objective: Objective,
    steps: int,
    learning_rate: float,
    *,
    clip: float = 5.0,
    warm_up: int = 10,
    sparsify: Sparsify | None = None,
) -> None:
    """Train all nets of `model`, which is then in eval mode; `sparsify` makes a sparsifier for the whole training."""
    settings = Training(steps, learning_rate, warm_up, clip=clip)
    Population(model, objective, settings, sparsify=sparsify).train("population")
    model.eval()


@torch.no_grad()
def accuracies(model: GraphClassifier, x_TN: Tensor, lengths_N: Tensor, classes_N: Tensor, batch: int = 256) -> list:
    """Share of sequences that each graph's net classifies rightly."""
    right = torch.zeros(model.count, dtype=torch.long)
    for n in range(0, len(classes_N), batch):
        lengths_B = lengths_N[n : n + batch]
        logits = model(x_TN[: int(lengths_B.max()), n : n + batch], lengths_B).reshape(-1, model.count, 2)
        right += (logits.argmax(-1) == classes_N[n : n + batch, None]).sum(0)
    return [round(float(r), 6) for r in right / len(classes_N)]
