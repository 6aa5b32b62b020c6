"""One step of an LSTM, GRU or RNN that an exporter wrote out as products, sums and gates, found again as a cell.

The gates are found by what is done with them: an LSTM's next c is f c + i g and its next h is o tanh(c), a GRU's next h
is z h + (1 - z) n. Whatever order and layout their weights have, they are read off the sums before the activations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .builder import Builder
from .graph import Node
from .linear import Linear, linear, part_of

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh"}


@dataclass(frozen=True)
class Cell:
    """A step that was found. gates: what is summed before each activation; states: values that it starts from; results:
    the next ones, in the same order."""

    kind: str
    gates: Mapping[str, Linear]
    states: tuple[str, ...]
    results: tuple[str, ...]
    node: Node  # its last


def find_cells(b: Builder, nodes: list[Node]) -> list[Cell]:
    found: list[Cell] = []
    taken: set[str] = set()
    for node in nodes:
        cell = lstm(b, node) or gru(b, node) or rnn(b, node)
        if cell is not None and not taken & set(cell.results):
            taken |= set(cell.results)
            found.append(cell)
    return found


def lstm(b: Builder, node: Node) -> Cell | None:
    """`node`: the product o tanh(c)."""
    if node.op != "Mul":
        return None
    for out, squashed in _both(node):
        maker = b.makers.get(squashed)
        o = gate(b, out, "Sigmoid")
        if o is None or maker is None or maker.op != "Tanh":
            continue
        total = b.makers.get(maker.inputs[0])
        if total is None or total.op != "Add":
            continue
        for kept, new in _both(total):
            forget, enter = _product(b, kept, "Sigmoid"), _gated(b, new)
            if forget is None or enter is None:
                continue
            (f, c), (i, g) = forget, enter
            gates = {"i": i, "f": f, "g": g, "o": o}
            return _with_state("LSTM", b, gates, None, (c,), (node.outputs[0], total.outputs[0]), node)
    return None


def gru(b: Builder, node: Node) -> Cell | None:
    """`node`: the sum that is the next h, in any of the forms z h + (1 - z) n, n + z (h - n) and h + z (n - h)."""
    if node.op != "Add":
        return None
    for first, second in _both(node):
        found = _mixed(b, first, second)
        if found is None:
            continue
        z, h, new = found
        n = b.makers.get(new)
        total = b.makers.get(n.inputs[0]) if n is not None and n.op == "Tanh" else None
        if total is None:
            continue
        parts = _reset(b, total.outputs[0])
        if parts is None:
            continue
        r, inside, outside = parts
        if inside.operands() - {h} or h in outside.operands():
            continue
        gates = {"r": r, "z": z, "n": outside}
        return _with_state("GRU", b, gates, inside, (h,), (node.outputs[0],), node)
    return None


def rnn(b: Builder, node: Node) -> Cell | None:
    """`node`: the tanh of a sum over x and h, where h is an input of the file, moved at most, and the result its next
    value: an output. Other such sums (attention) are no cells."""
    total = linear(b, node.inputs[0]) if node.op == "Tanh" else None
    if total is None or not _leads_out(b, node.outputs[0]):
        return None
    states = [name for name, size in total.sizes().items() if size == total.rows and _is_given(b, name)]
    if len(states) != 1 or len(total.sizes()) != 2:
        return None
    return _with_state("RNN", b, {"h": total}, None, (), (node.outputs[0],), node, states[0])


_RECURRENT = re.compile("hh|recurrent", re.I)


def _state_among(b: Builder, names: list[str], gates: Mapping[str, Linear], c: str) -> str:
    """Of values of a cell's width the one that is its h: what comes from where c does; else as names and order tell.

    x of that width could be in its place as well: the cell computes the same."""
    for name in names:
        squashed = [b.makers.get(part) for part in b.makers[name].inputs] if name in b.makers else []
        of_c = any(maker is not None and maker.op == "Tanh" and maker.inputs[0] == c for maker in squashed)
        if of_c or _root(b, name) == _root(b, c):
            return name
    named = {t.name for total in gates.values() for t in total.terms if _RECURRENT.search(t.source)}
    given = [name for name in names if _is_given(b, name)] if _is_given(b, c) else []
    return next((n for n in names if n in named), (given if len(given) == 1 else names or [""])[-1])


_MOVES = ("Squeeze", "Unsqueeze", "Reshape", "Slice", "Gather", "Split", "Transpose", "Identity")


def _root(b: Builder, name: str) -> str:
    """What a value was before it was moved."""
    while (maker := b.makers.get(name)) is not None and maker.op in _MOVES:
        name = maker.inputs[0]
    return name


def _is_given(b: Builder, name: str) -> bool:
    return _root(b, name) in {given.name for given in b.folded.inputs}


def _leads_out(b: Builder, name: str) -> bool:
    if name in b.folded.graph.outputs:
        return True
    readers = [reader for reader in b.readers.get(name, []) if reader.op in (*_MOVES, "Concat")]
    return any(_leads_out(b, output) for reader in readers for output in reader.outputs)


def _mixed(b: Builder, first: str, second: str) -> tuple[Linear, str, str] | None:
    """(z, h, n) where these two add up to z h + (1 - z) n."""
    left, right = b.makers.get(first), b.makers.get(second)
    if left is None or left.op != "Mul":
        return None
    for gated, other in _both(left):
        z = gate(b, gated, "Sigmoid")
        if z is None:
            continue
        difference = b.makers.get(other)
        if difference is not None and difference.op == "Sub":
            h, n = difference.inputs
            if n == second:
                return z, h, n
            if h == second:  # n + z (h - n) with the two exchanged: h + z (n - h)
                return None
        if right is None or right.op != "Mul":
            continue
        for complement, new in _both(right):
            minus = b.makers.get(complement)
            if minus is None or minus.op != "Sub" or minus.inputs[1] != gated:
                continue
            one = b.constants.get(minus.inputs[0])
            if one is not None and one.size == 1 and float(one.reshape(-1)[0]) == 1:
                return z, other, new
    return None


def _reset(b: Builder, name: str) -> tuple[Linear, Linear, Linear] | None:
    """(r, what it multiplies, the rest) of the sum before a GRU's tanh."""
    maker = b.makers.get(name)
    if maker is None:
        return None
    if maker.op == "Mul":
        for gated, inner in _both(maker):
            r, inside = gate(b, gated, "Sigmoid"), linear(b, inner)
            if r is not None and inside is not None:
                return r, inside, Linear.nothing(r.rows)
    if maker.op != "Add":
        return None
    for one, other in _both(maker):
        found, rest = _reset(b, one), linear(b, other)
        if found is not None and rest is not None:
            total = found[2].plus(rest)
            return None if total is None else (found[0], found[1], total)
    return None


def gate(b: Builder, name: str, activation: str) -> Linear | None:
    """The sum whose `activation` this value is; cut before or after it."""
    maker = b.makers.get(name)
    if maker is None:
        return None
    if maker.op == activation:
        return linear(b, maker.inputs[0])
    cut = part_of(b, maker, name)
    whole = None if cut is None else gate(b, maker.inputs[0], activation)
    return None if whole is None or cut is None else whole.cut(cut)


def _product(b: Builder, name: str, activation: str) -> tuple[Linear, str] | None:
    maker = b.makers.get(name)
    if maker is None or maker.op != "Mul":
        return None
    for gated, other in _both(maker):
        found = gate(b, gated, activation)
        if found is not None and other not in b.constants:
            return found, other
    return None


def _gated(b: Builder, name: str) -> tuple[Linear, Linear] | None:
    maker = b.makers.get(name)
    if maker is None or maker.op != "Mul":
        return None
    for one, other in _both(maker):
        i, g = gate(b, one, "Sigmoid"), gate(b, other, "Tanh")
        if i is not None and g is not None:
            return i, g
    return None


def _both(node: Node) -> list[tuple[str, str]]:
    a, b = node.inputs[:2]
    return [(a, b), (b, a)]


def _with_state(
    kind: str,
    b: Builder,
    gates: dict[str, Linear],
    inside: Linear | None,
    states: tuple[str, ...],
    results: tuple[str, ...],
    node: Node,
    state: str = "",
) -> Cell | None:
    """With h told apart from x, and all gates of one width; None where the sums are of other things."""
    widths = {total.rows for total in gates.values()} | ({inside.rows} if inside is not None else set())
    if len(widths) != 1 or None in widths:
        return None
    width = widths.pop()
    operands: dict[str, int] = {}
    for total in gates.values():
        operands.update(total.sizes())
    if inside is not None:
        operands.update(inside.sizes())
        gates = {**gates, "inside": inside}
        h = states[0]
    else:
        h = state or _state_among(b, [name for name in operands if operands[name] == width], gates, *states)
        states = (h, *states)
    if h not in operands or operands[h] != width or len(operands) != 2:
        return None
    return Cell(kind, gates, states, results, node)


def weights_of(cell: Cell, order: tuple[str, ...]) -> tuple[str, dict[str, np.ndarray]]:
    """x and the parameters of torch's cell, gates in `order`."""
    h = cell.states[0]
    x = next(name for total in cell.gates.values() for name in total.sizes() if name != h)
    size = next(total.sizes()[x] for total in cell.gates.values() if x in total.sizes())
    width = cell.gates[order[0]].rows or 0
    inner = {gate: cell.gates["inside"] if cell.kind == "GRU" and gate == "n" else cell.gates[gate] for gate in order}
    ih = np.concatenate([cell.gates[gate].matrix(x, size) for gate in order])
    hh = np.concatenate([inner[gate].matrix(h, width) for gate in order])
    biases = []
    for gate in order:
        outside, more = cell.gates[gate].offsets()
        biases.append(
            (outside, more) if inner[gate] is cell.gates[gate] else (outside + more, sum(inner[gate].offsets()))
        )
    bias_ih, bias_hh = (np.concatenate(parts) for parts in zip(*biases))
    return x, {"weight_ih": ih, "weight_hh": hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
