"""Contractions: which columns of a weight read which channel, and which rows compute a new one.

Every product (linear, matmul, bmm, einsum, ...) is brought to one einsum equation of two operands. Where one operand
is a weight, each contracted index is a plane of the weight that reads the other operand's channel, and each free
index a plane that owns an output channel. Where both are activations, channels along the contracted axis are tied
and kept (a dot product has no weight that could be zero).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..channels import Because, distinct, narrow_expanded, pairs
from ..ledger import Ledger
from ..lines import Line, lines
from ..shadow import Shadow, Weight, expand_constant


def contract(ledger: Ledger, equation: str, a: Shadow, b: Shadow, shapes: Sequence[torch.Size]) -> Tensor | None:
    """Follow `torch.einsum(equation, A, B)` (no ellipsis, no repeated letter in one operand); the output's label."""
    left, out = equation.split("->")
    la, lb = left.split(",")
    sizes: dict[str, int] = {}
    for c, s in (*zip(la, shapes[0]), *zip(lb, shapes[1])):
        sizes[c] = s if sizes.get(c, 1) == 1 else sizes[c]
    a, b = _spread(a, la, sizes), _spread(b, lb, sizes)
    if b.is_weight and (not a.is_weight or _is_matrix(b, a)):
        return _with_weight(ledger, ledger.as_activation(a), la, b.weights, lb, out, sizes)
    if a.is_weight:
        return _with_weight(ledger, ledger.as_activation(b), lb, a.weights, la, out, sizes)
    return _activations(ledger, ledger.as_activation(a), la, ledger.as_activation(b), lb, out, sizes)


def _spread(shadow: Shadow, letters: str, sizes: dict[str, int]) -> Shadow:
    shape = [sizes[c] for c in letters]
    label = None if shadow.label is None else shadow.label.expand(shape)
    return replace(shadow, label=label, weights=tuple(tuple(p.expand(shape) for p in w) for w in shadow.weights))


def _is_matrix(b: Shadow, a: Shadow) -> bool:
    # Both come from parameters (a learned state times a matrix): the one expanded over a batch is the activation.
    def expanded(shadow: Shadow) -> bool:
        index = [part for weight in shadow.weights for part in weight]
        return any(all(p.stride(d) == 0 for p in index) and index[0].shape[d] > 1 for d in range(index[0].dim()))

    return b.weights[0][0].dim() >= a.weights[0][0].dim() and not (expanded(b) and not expanded(a))


def _with_weight(
    ledger: Ledger,
    label: Tensor | None,
    la: str,
    weights: Sequence[Weight],
    lw: str,
    out: str,
    sizes: dict[str, int],
) -> Tensor | None:
    contracted = [c for c in lw if c in la and c not in out]
    batch = [c for c in lw if c in la and c in out]
    free = [c for c in lw if c not in la and c in out]
    summed = [c for c in lw if c not in la and c not in out]  # a convolution's kernel
    inner = batch + contracted
    label_rk = _rows(label, la, inner, sizes) if label is not None else None
    if label is not None and label_rk is not None and not batch and _same_along(label_rk):
        # What comes out is still that unit's.
        ledger.keep_weights(weights, "mixes steps or places, each unit by itself", Because.MEANING)
        return _onto(ledger, label, la, out, contracted).expand([sizes[c] for c in out])
    covered = np.zeros(_product(sizes, inner), dtype=bool)
    for weight in weights:
        found = lines(_matrix(weight, lw, inner, free + summed, sizes), ledger.numbering.shapes)
        if found is None:
            why = ledger.numbering.why_lost(weight)
            ledger.channels.keep(label, why or ledger.lost("read through a weight that is computed"))
            ledger.keep_weights([weight])
            continue
        for line in found:
            covered[line.positions] |= ledger.numbering.counts(line.parameter, line.axis)
            for row in label_rk if label_rk is not None else ():
                ledger.read(line.parameter, line.axis, line.index, row[line.positions])
    if label_rk is not None and not covered.all():
        ledger.keep(torch.from_numpy(label_rk[:, ~covered].copy()), "multiplied with a tensor without weights")
    if label is None and all(n in ledger.numbering.buffers for n in ledger.parameters_in(*weights)):
        return None  # constants (an adjacency matrix) times the input: nothing that is learned
    return _output_rows(ledger, weights, lw, batch, contracted + summed, free, out, sizes)


def _output_rows(
    ledger: Ledger,
    weights: Sequence[Weight],
    lw: str,
    batch: list[str],
    columns: list[str],
    free: list[str],
    out: str,
    sizes: dict[str, int],
) -> Tensor | None:
    rows = batch + free
    count = _product(sizes, rows)
    if not free or count == 0:
        return None
    ids = np.zeros(count, dtype=np.int64)
    owners: list[Line] = []
    for weight in weights:
        found = lines(_matrix(weight, lw, rows, columns, sizes), ledger.numbering.shapes, first=True)
        if found is None:  # rows that are no planes (heads and features in two axes): an output of a fixed width
            return None
        owners += found
    for line in owners:
        base = ledger.row_block(line.parameter, line.axis)
        empty = ids[line.positions] == 0
        ids[line.positions[empty]] = base + line.index[empty]
    for line in owners:
        ledger.own(line.parameter, line.axis, line.index, ids[line.positions], value=True)
    order = [c for c in out if c in rows]
    label = torch.from_numpy(ids).view([sizes[c] for c in rows]).permute([rows.index(c) for c in order])
    for position, c in enumerate(out):
        if c not in rows:
            label = label.unsqueeze(position)
    return label.expand([sizes[c] for c in out])


def _matrix(weight: Weight, lw: str, rows: list[str], columns: list[str], sizes: dict[str, int]) -> Weight:
    n, m = _product(sizes, rows), _product(sizes, columns)
    order = [lw.index(c) for c in rows + columns]
    return tuple(expand_constant(_flatten(part.permute(order), len(rows), n, m)) for part in weight)


def _flatten(part: Tensor, rows: int, n: int, m: int) -> Tensor:
    # Flatten without copying where an axis group is expanded: reshape would materialise it.
    small = part
    for axis in range(part.dim()):
        group = range(rows) if axis < rows else range(rows, part.dim())
        if all(part.stride(g) == 0 or part.shape[g] == 1 for g in group) and part.shape[axis] > 1:
            small = small.narrow(axis, 0, 1)
    head = small.shape[:rows].numel()
    tail = small.shape[rows:].numel()
    return small.reshape(head, tail).expand(n, m)


def _rows(label: Tensor, la: str, inner: list[str], sizes: dict[str, int]) -> np.ndarray:
    """The distinct rows (r, inner) of the label."""
    outer = [c for c in la if c not in inner]
    moved = label.permute([la.index(c) for c in outer + inner])
    for axis in range(len(outer)):
        if moved.shape[axis] > 1 and moved.stride(axis) == 0:
            moved = moved.narrow(axis, 0, 1)
    size = _product(sizes, inner)
    flat = moved.reshape(moved.numel() // max(size, 1), size).numpy()
    return np.unique(flat, axis=0) if len(flat) > 1 else flat


def _same_along(label_rk: np.ndarray) -> bool:
    """Whether each row is one channel throughout, over more than one place, and the rows differ.

    One unit alone that stands twice (beside padding, say) is read like any other.
    """
    several = len(np.unique(label_rk[label_rk != 0])) > 1
    return several and label_rk.shape[1] > 1 and bool((label_rk == label_rk[:, :1]).all())


def _product(sizes: dict[str, int], letters: list[str]) -> int:
    return int(np.prod([sizes[c] for c in letters])) if letters else 1


def _activations(
    ledger: Ledger, a: Tensor | None, la: str, b: Tensor | None, lb: str, out: str, sizes: dict[str, int]
) -> Tensor | None:
    summed = [c for c in sizes if c not in out]
    a, a_agrees = _along(ledger, a, la, summed)
    b, b_agrees = _along(ledger, b, lb, summed)
    if a is not None and not a_agrees and b is not None and not b_agrees:
        _dot(ledger, a, la, b, lb)
        return None
    for label, agrees in ((a, a_agrees), (b, b_agrees)):
        if label is not None and not agrees:
            ledger.keep(label, "a product of two activations, summed over units")
    results = [
        _onto(ledger, label, letters, out, summed) if label is not None and agrees else None
        for label, letters, agrees in ((a, la, a_agrees), (b, lb, b_agrees))
    ]
    return ledger.combine(results, torch.Size(sizes[c] for c in out))


def _onto(ledger: Ledger, label: Tensor, letters: str, out: str, summed: list[str]) -> Tensor:
    """The label with its axes in the order of `out`, summed axes gone, missing axes of size 1."""
    gone = [letters.index(c) for c in summed if c in letters]
    small, _ = ledger.collapse(label, gone)
    small = small.permute([letters.index(c) for c in out if c in letters] + gone)
    for _ in gone:
        small = small.squeeze(-1)
    for position, c in enumerate(out):
        if c not in letters:
            small = small.unsqueeze(position)
    return small


def _along(ledger: Ledger, label: Tensor | None, letters: str, summed: list[str]) -> tuple[Tensor | None, bool]:
    if label is None:
        return None, True
    return label, ledger.collapse(label, [letters.index(c) for c in summed if c in letters])[1]


def _dot(ledger: Ledger, a: Tensor, la: str, b: Tensor, lb: str) -> None:
    shared = [c for c in la if c in lb]
    small = []
    for label, letters in ((a, la), (b, lb)):
        own = [letters.index(c) for c in letters if c not in shared]
        merged, agree = ledger.collapse(label, own)
        if not agree:
            ledger.lose(a, "an outer product of activations")
            ledger.lose(b, "an outer product of activations")
            return
        merged = merged.permute([letters.index(c) for c in shared] + own)
        for _ in own:
            merged = merged.squeeze(-1)
        small.append(merged)
    left, right = pairs(small[0], small[1])
    ledger.dot(left, right)
    for mine, other in ((small[0], small[1]), (small[1], small[0])):
        narrowed, against = narrow_expanded(mine, other)
        alone = torch.where(against == 0, narrowed, 0)
        if len(distinct(alone)):
            ledger.keep(alone, "a dot product with a tensor without weights")
