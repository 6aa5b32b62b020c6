"""Which gates of which units are alive, and what kind of cell that leaves of each unit.

A gate whose rows in weight_ih and weight_hh are zero is the constant act(bias) (Lobacheva, arXiv 1911.05585). The
gates that stay alive decide what a unit still is:

- full: every gate is alive.
- leaky (LSTM): i and f are constant, g is alive, so c_t = f c_{t-1} + i g_t with fixed i and f: a leaky integrator.
  GRU: r and z are constant and n is alive, which is the same with h in place of c.
- vanilla (LSTM): i, f and g are constant and o is alive: c_t is a sequence that no input moves, so that after its first
  steps h_t is a constant times sigmoid(W_o [x, h] + b): a unit of a plain RNN.
- constant: no gate is alive; no input moves the unit.
- partial: any other mixture.
- dead: nothing reads the unit; compaction takes it out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..structure.cells import GRU, LSTM, RecurrentLayer

KINDS = ("full", "partial", "leaky", "vanilla", "constant", "dead")


def alive_gates(layer: RecurrentLayer, constant: Mapping[str, Tensor]) -> Tensor:
    """bool (G, H): True where the gate of the unit is not a constant. `constant`: gate -> bool (H,)."""
    none = torch.zeros(layer.hidden_size, dtype=torch.bool)
    return torch.stack([~constant.get(gate, none).cpu() for gate in layer.gates])


def unit_kinds(gates: tuple[str, ...], alive_GH: Tensor, dead_H: Tensor) -> tuple[str, ...]:
    """The kind of each unit, one of `KINDS`: alive_GH is bool (G, H) in the order of `gates`, dead_H bool (H,)."""
    return tuple(
        "dead" if dead else _kind(frozenset(g for g, lives in zip(gates, column) if lives), gates)
        for column, dead in zip(alive_GH.T.tolist(), dead_H.tolist())
    )


def _kind(alive: frozenset[str], gates: tuple[str, ...]) -> str:
    if len(alive) == len(gates):
        return "full"
    if not alive:
        return "constant"
    if gates == LSTM.gates:
        if alive == {"o"}:
            return "vanilla"
        if "g" in alive and not alive & {"i", "f"}:
            return "leaky"
    if gates == GRU.gates and alive == {"n"}:
        return "leaky"
    return "partial"


def kind_counts(kinds: tuple[str, ...]) -> dict[str, int]:
    """Number of units of each kind that occurs, in the order of `KINDS`."""
    return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


def sorted_units(kinds: tuple[str, ...], alive_GH: Tensor) -> Tensor:
    """Unit numbers, int64 (H,), sorted by kind, then by which gates are alive, then by number."""
    columns = alive_GH.T.tolist()
    key = [
        (KINDS.index(kind), [not lives for lives in column], k) for k, (kind, column) in enumerate(zip(kinds, columns))
    ]
    return torch.tensor([k for *_, k in sorted(key)], dtype=torch.long)
