"""What is measured of graph networks: one training step, against the construction of the original study."""

from __future__ import annotations

from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from sparsernn.nn import GraphGRU, GraphLSTM, GraphRNN

from .graphs_original import OriginalGraphNet
from .measure import Ceiling, Engine, Row, versus

TIME, BATCH, INPUT = 20, 32, 8
NODES = 50


def graphs(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Training a 50-node graph net: fused layers against masked layers that step through time in Python."""
    made = {
        "BA": nx.barabasi_albert_graph(NODES, NODES // 10, seed=0),
        "WS": nx.connected_watts_strogatz_graph(NODES, NODES // 5, 1.0, seed=0),
    }
    works = [("BA", GraphLSTM, 10), ("WS", GraphLSTM, 10), ("BA", GraphGRU, None), ("BA", GraphRNN, None)]
    rows = []
    for family, kind, target in works:
        torch.manual_seed(0)
        net = kind(INPUT, made[family], skips="added")
        x = torch.randn(TIME, BATCH, INPUT)
        other = OriginalGraphNet(net)
        ours = Engine(training(net, lambda x, net=net: net(x)[0], x), outputs(lambda net=net, x=x: net(x)[0]))
        theirs = Engine(training(other, other, x), outputs(lambda other=other, x=x: other(x)), target)
        # Forward and both gradients of every weight that belongs to an edge or feeds back.
        best = ceiling.ideal(6.0 * net.edge_weights() * TIME * BATCH, 4 * net.edge_weights(), TIME)
        name = f"{kind.__name__}, {family} graph of {NODES} nodes, one training step T{TIME} B{BATCH}"
        rows += versus(name, ours, {"masked layers in Python": theirs}, best, rounds)
    return rows


def training(model: nn.Module, forward: Any, x: Tensor) -> Any:
    """One step: forward, backward, Adam. The learning rate is so small that both go on computing the same."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-12)

    def step() -> None:
        with torch.enable_grad():
            optimizer.zero_grad()
            forward(x).square().mean().backward()
            optimizer.step()

    return step


def outputs(forward: Any) -> Any:
    def check() -> Tensor:
        with torch.no_grad():
            return forward()

    return check
