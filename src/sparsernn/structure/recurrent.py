"""What recurrent layers and cells do to channels: torch's fused calls for LSTM, GRU and RNN, padded and packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .channels import UNIT, narrow_expanded
from .shadow import Shadow, collapse

if TYPE_CHECKING:
    from .tracer import Tracer

# Name of the call -> (number of gates, gates whose zero rows make the unit's value zero).
LAYERS = {"lstm": (4, (2,)), "gru": (3, (2,)), "rnn_tanh": (1, (0,)), "rnn_relu": (1, (0,))}
CELLS = {"lstm_cell": "lstm", "gru_cell": "gru", "rnn_tanh_cell": "rnn_tanh", "rnn_relu_cell": "rnn_relu"}


def follow_layer(tracer: Tracer, name: str, args: Sequence[Any]) -> list[Shadow]:
    """Shadows of (output, h_n) or (output, h_n, c_n) of `torch._VF.lstm` and its kin."""
    packed = isinstance(args[3], (list, tuple))
    source, states, weights = (args[0], args[2], args[3]) if packed else (args[0], args[1], args[2])
    has_biases, layers, bidirectional = (args[4], args[5], args[8]) if packed else (args[3], args[4], args[7])
    states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    projected = each in (3, 5)
    assert each == 2 + 2 * bool(has_biases) + projected
    label = tracer.label(source)
    if not _plain(tracer, weights):
        _keep_all(tracer, [label, *(tracer.label(s) for s in states)], weights)
        return [Shadow()] * (1 + len(states))
    ends: list[list[np.ndarray]] = [[] for _ in states]
    for layer in range(layers):
        outputs: list[np.ndarray] = []
        for direction in range(directions):
            place = layer * directions + direction
            mine = weights[place * each : (place + 1) * each]
            units = _unit(tracer, name, mine, label, projected)
            for which, state in enumerate(states):
                _start(tracer, state, place, units[which])
                ends[which].append(units[which])
            outputs.append(units[0])
        label = torch.from_numpy(np.concatenate(outputs))
    assert label is not None
    return [Shadow(label)] + [_stacked(rows) for rows in ends]


def follow_cell(tracer: Tracer, name: str, args: Sequence[Any]) -> list[Shadow]:
    """Shadows of h' or (h', c') of `torch._VF.lstm_cell` and its kin."""
    source, states, weights = args[0], args[1], [w for w in args[2:6] if w is not None]
    states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
    label = tracer.label(source)
    if not _plain(tracer, weights):
        _keep_all(tracer, [label, *(tracer.label(s) for s in states)], weights)
        return [Shadow()] * len(states)
    units = _unit(tracer, CELLS[name], weights, label, False)
    for state, ids in zip(states, units):
        _start(tracer, state, None, ids)
    return [Shadow(torch.from_numpy(ids), state=True) for ids in units[: len(states)]]


def _unit(
    tracer: Tracer, kind: str, weights: Sequence[Tensor], label: Tensor | None, projected: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Channels (h, c) of one layer and direction, reads and owns recorded."""
    gates, value_gates = LAYERS[kind]
    hidden = weights[1].shape[0] // gates
    ih, hh = tracer.numbers[id(weights[0])], tracer.numbers[id(weights[1])]
    cell = tracer.channels.block(("unit", hh), hidden, UNIT) + np.arange(hidden)
    if label is not None:
        for row in distinct_rows(label):
            tracer.read(ih, 1, np.arange(len(row)), row)
    for weight in weights[:-1] if projected else weights:
        for gate in range(gates):
            rows = gate * hidden + np.arange(hidden)
            tracer.own(tracer.numbers[id(weight)], 0, rows, cell, value=gate in value_gates)
    out = cell
    if projected:
        hr, size = tracer.numbers[id(weights[-1])], weights[-1].shape[0]
        out = tracer.channels.block(("projected", hh), size, UNIT) + np.arange(size)
        tracer.read(hr, 1, np.arange(hidden), cell)
        tracer.own(hr, 0, np.arange(size), out, value=True)
    tracer.read(hh, 1, np.arange(len(out)), out)
    return out, cell


def _start(tracer: Tracer, state: Tensor, place: int | None, ids: np.ndarray) -> None:
    """The initial state of one layer and direction: tied to the units, so that it is cut with them."""
    shadow = tracer.shadow(state)
    # One parameter with the states of several layers can't be cut differently for each: it keeps its width, and a
    # compacted layer takes states of the dense width.
    shared = shadow.is_weight and place is not None and state.shape[0] > 1
    label = None if shared else tracer.as_activation(shadow)
    if label is not None and place is not None:
        label = label[place]
    if label is not None:
        for row in distinct_rows(label):
            real = row != 0
            tracer.channels.union(row[real], ids[real], tracer.site())
    if not shadow.zero:
        tracer.channels.shifted[ids] = label is None or tracer.channels.shifted[ids]
        if label is not None and not shadow.weights:
            tracer.channels.shifted[ids] = True


def _stacked(rows: Sequence[np.ndarray]) -> Shadow:
    if len({len(r) for r in rows}) > 1:
        return Shadow()
    return Shadow(torch.from_numpy(np.stack(rows)).unsqueeze(1), state=True)


def distinct_rows(label: Tensor) -> np.ndarray:
    """The distinct vectors along the last axis."""
    last = label.shape[-1]
    small = narrow_expanded(label)[0] if label.stride(-1) != 0 or last == 1 else label
    if small.shape[-1] != last:
        small = small.expand(*small.shape[:-1], last)
    flat = small.reshape(small.numel() // max(last, 1), last)
    merged, agree = collapse(flat, [0])
    return merged.numpy() if agree else np.unique(flat.numpy(), axis=0)


def _plain(tracer: Tracer, weights: Sequence[Tensor]) -> bool:
    return all(id(w) in tracer.numbers for w in weights)


def _keep_all(tracer: Tracer, labels: Sequence[Tensor | None], weights: Sequence[Tensor]) -> None:
    for label in labels:
        tracer.keep(label, "read by a recurrent layer whose weights are not plain parameters")
    for weight in weights:
        tracer.keep_weights(tracer.shadow(weight).weights)
