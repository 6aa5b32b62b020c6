"""What recurrent layers and cells do to channels: torch's fused calls for LSTM, GRU and RNN, padded and packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cells import Cell
from ..channels import UNIT, narrow_expanded
from ..ledger import Ledger
from ..operands import CELLS, LAYERS
from ..shadow import Shadow, collapse, weight_shadow


def follow_layer(ledger: Ledger, name: str, args: Sequence[Any]) -> list[Shadow]:
    """Shadows of (output, h_n) or (output, h_n, c_n) of `torch._VF.lstm` and its kin."""
    packed = isinstance(args[3], (list, tuple))
    source, states, weights = (args[0], args[2], args[3]) if packed else (args[0], args[1], args[2])
    has_biases, layers, bidirectional = (args[4], args[5], args[8]) if packed else (args[3], args[4], args[7])
    states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    projected = each in (3, 5)
    assert each == 2 + 2 * bool(has_biases) + projected
    label = ledger.label(source)
    plain = _plain(ledger, weights)
    ends: list[list[np.ndarray]] = [[] for _ in states]
    for layer in range(layers):
        outputs: list[np.ndarray] = []
        for direction in range(directions):
            place = layer * directions + direction
            mine = weights[place * each : (place + 1) * each]
            if not plain and not _plain(ledger, mine):
                _keep_all(ledger, [label, *(ledger.label(s) for s in states)], mine)
                sizes = (states[0].shape[-1], states[-1].shape[-1])
                outputs.append(np.zeros(sizes[0], dtype=np.int64))
                for which, size in enumerate(sizes[: len(states)]):
                    ends[which].append(np.zeros(size, dtype=np.int64))
                continue
            units = _unit(ledger, LAYERS[name], mine, label, projected)
            for ids in units if not plain else ():
                ledger.lose(torch.from_numpy(ids), "other weights of its layer are not plain parameters")
            for which, state in enumerate(states):
                _start(ledger, state, place, units[which])
                ends[which].append(units[which])
            outputs.append(units[0])
        label = torch.from_numpy(np.concatenate(outputs))
    assert label is not None
    return [Shadow(label)] + [_stacked(rows) for rows in ends]


def follow_cell(ledger: Ledger, name: str, args: Sequence[Any]) -> list[Shadow]:
    """Shadows of h' or (h', c') of `torch._VF.lstm_cell` and its kin."""
    source, states, weights = args[0], args[1], [w for w in args[2:6] if w is not None]
    states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
    label = ledger.label(source)
    if not _plain(ledger, weights):
        _keep_all(ledger, [label, *(ledger.label(s) for s in states)], weights)
        return [Shadow()] * len(states)
    units = _unit(ledger, CELLS[name], weights, label, False)
    for state, ids in zip(states, units):
        _start(ledger, state, None, ids)
    return [Shadow(torch.from_numpy(ids), state=True) for ids in units[: len(states)]]


def _unit(
    ledger: Ledger, kind: Cell, weights: Sequence[Tensor], label: Tensor | None, projected: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Channels (h, c) of one layer and direction, reads and owns recorded."""
    gates = len(kind.gates)
    hidden = weights[1].shape[0] // gates
    numbers = [_numbers(ledger, weight) for weight in weights]
    ih, hh = numbers[:2]
    cell = ledger.channels.block(("unit", hh[0]), hidden, UNIT) + np.arange(hidden)
    if label is not None:
        for row in distinct_rows(label):
            _read(ledger, ih, row)
    for rows_of in numbers[:-1] if projected else numbers:
        for gate in range(gates):
            rows = gate * hidden + np.arange(hidden)
            _own(ledger, rows_of, rows, cell, value=kind.gates[gate] in kind.value)
    out = cell
    if projected:
        hr, size = numbers[-1], weights[-1].shape[0]
        out = ledger.channels.block(("projected", hh[0]), size, UNIT) + np.arange(size)
        _read(ledger, hr, cell)
        _own(ledger, hr, np.arange(size), out, value=True)
    _read(ledger, hh, out)
    return out, cell


def _numbers(ledger: Ledger, weight: Tensor) -> tuple[int, ...]:
    """The parameter that `weight` is, and those (masks) that it is multiplied with; empty for anything else."""
    if id(weight) in ledger.numbering.of:
        return (ledger.numbering.of[id(weight)],)
    shadow = ledger.shadow(weight)
    found: list[int] = []
    for number, *parts in shadow.weights if shadow.label is None else ():
        mine = int(number.reshape(-1)[0]) if number.numel() else 0
        whole = mine > 0 and ledger.numbering.shapes[mine] == tuple(weight.shape)
        if not whole or bool((number != mine).any()):
            return ()
        _, *own = weight_shadow(mine, weight.shape).weights[0]
        if not all(torch.equal(a, b) for a, b in zip(parts, own)):
            return ()
        found.append(mine)
    return tuple(found)


def _read(ledger: Ledger, numbers: tuple[int, ...], ids: np.ndarray) -> None:
    for number in numbers:
        ledger.read(number, 1, np.arange(len(ids)), ids)


def _own(ledger: Ledger, numbers: tuple[int, ...], rows: np.ndarray, ids: np.ndarray, value: bool) -> None:
    for number in numbers:
        ledger.own(number, 0, rows, ids, value=value)


def _start(ledger: Ledger, state: Tensor, place: int | None, ids: np.ndarray) -> None:
    """The initial state of one layer and direction: tied to the units, so that it is cut with them."""
    shadow = ledger.shadow(state)
    # One parameter with the states of several layers can't be cut differently for each: it keeps its width, and a
    # compacted layer takes states of the dense width.
    shared = shadow.is_weight and place is not None and state.shape[0] > 1
    label = None if shared else ledger.as_activation(shadow)
    if label is not None and place is not None:
        label = label[place]
    if label is not None:
        for row in distinct_rows(label):
            real = row != 0
            ledger.channels.union(row[real], ids[real], ledger.site())
    if not shadow.zero:
        ledger.channels.shifted[ids] = label is None or ledger.channels.shifted[ids]
        if label is not None and not shadow.weights:
            ledger.channels.shifted[ids] = True


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


def _plain(ledger: Ledger, weights: Sequence[Tensor]) -> bool:
    return all(_numbers(ledger, w) for w in weights)


def _keep_all(ledger: Ledger, labels: Sequence[Tensor | None], weights: Sequence[Tensor]) -> None:
    for label in labels:
        ledger.lose(label, "read by a recurrent layer whose weights are not plain parameters")
    for weight in weights:
        ledger.keep_weights(ledger.shadow(weight).weights)
