"""Cells that were found among the nodes, as torch's LSTMCell, GRUCell and RNNCell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..structure.cells import MODES
from .builder import Builder, builds
from .cells import Cell, find_cells, weights_of
from .graph import Node
from .operators.table import operator
from .steps import Step

_KINDS: dict[str, Any] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}

_SOURCE = "source"  # the constant that names a cell


def with_cells(b: Builder, nodes: list[Node]) -> list[Node]:
    """The nodes with each cell as one; those that made its results are gone."""
    found = find_cells(b, nodes)
    gone = {name for cell in found for name in cell.results}
    kept = [node for node in nodes if not gone & set(node.outputs)]
    return [*kept, *map(_as_node, found)]


def _as_node(cell: Cell) -> Node:
    x, arrays = weights_of(cell, MODES["RNN_TANH" if cell.kind == "RNN" else cell.kind].gates)
    source = next(term.source for total in cell.gates.values() for term in total.terms)
    return Node(f"{cell.kind}Cell", cell.node.name, (x, *cell.states), cell.results, {**arrays, _SOURCE: source})


@builds("LSTMCell", "GRUCell", "RNNCell")
def cell_steps(b: Builder, node: Node) -> list[Step]:
    arrays = dict(node.attributes)
    source = arrays.pop(_SOURCE)
    biases = any(arrays[name].any() for name in ("bias_ih", "bias_hh"))
    weights = {name: b.made(array, node.op, name) for name, array in arrays.items() if biases or "bias" not in name}
    width, size = arrays["weight_hh"].shape[1], arrays["weight_ih"].shape[1]
    kind = _KINDS[node.op.removesuffix("Cell")]
    module = b.layer(lambda: kind(size, width, bias=biases, device="meta"), weights, source, node)
    return [Step(node.op, node.name, b.operands(node), node.outputs, module=module)]


@operator("LSTMCell", "GRUCell", "RNNCell", module=True)
def run(step: Step, module: nn.Module, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """In files a step may have axes of size 1 before its batch; torch's cells take none."""
    lead = torch.broadcast_shapes(x.shape[:-1], *(state.shape[:-1] for state in states))
    if len(lead) > 1 or any(value.shape[:-1] != lead for value in (x, *states)):
        rows = [value.expand(*lead, -1).reshape(-1, value.shape[-1]) for value in (x, *states)]
        x, states = rows[0], tuple(rows[1:])
    found = module(x, *states if len(states) == 1 else (states,))
    results = found if isinstance(found, tuple) else (found,)
    return results if len(lead) <= 1 else tuple(result.reshape(*lead, -1) for result in results)
