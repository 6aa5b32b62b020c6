"""`precision="auto"`: the cheapest precision of each layer with which the whole model stays within a tolerance.

Each layer is tried alone in each lower precision. Then all begin in their cheapest one, and while the whole is not
within the tolerance, the layer that brings most error for what it saves gets the next more exact one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.examples import calls, fresh, leaves_in, run
from .agreement import twin
from .held import Precision
from .layouts import multiplied
from .linear import PackedLinear
from .matrices import LIKELY, LayerMatrices
from .precision import Unit, assign
from .weights import layer_weights, linear_names, linear_weight

_ORDER: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


def choose_by(model: nn.Module, found: list[Unit], batches: Any, tolerance: float) -> tuple[list[Precision], list[str]]:
    """The precision of each unit, which are those of an accelerated `model`, and lines that tell what was measured.

    batches: example inputs as `trace` takes them, or any iterable of such. The error of the outputs against float32 is
    relative: the norm of the difference over that of the output, over all batches, of the output where it is largest.

    Raises ValueError where there is nothing to measure or no precision is exact enough.
    """
    examples = calls(_listed(batches))
    exact: list[Precision] = ["float32"] * len(found)

    def outputs(chosen: list[Precision]) -> list[list[Tensor]]:
        assign(found, chosen)
        own = twin(model)  # what a forward keeps (a state) is not there at the next measurement
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [_tensors(run(own, fresh(call), n)) for n, call in enumerate(examples, 1)]

    want = outputs(exact)
    if not any(t.numel() for batch in want for t in batch):
        raise ValueError(f"accelerate: {type(model).__name__} returns no tensor that precision='auto' could compare.")
    if not all(bool(t.isfinite().all()) for batch in want for t in batch if t.is_floating_point()):
        raise ValueError("accelerate: the model gives NaN or infinity on `batches`, so no error can be measured.")

    def error(chosen: list[Precision]) -> float:
        return _error(outputs(chosen), want)

    offers = [_cheaper_and_cheaper(unit) for unit in found]
    alone: list[dict[Precision, float]] = [
        {p: error([*exact[:n], p, *exact[n + 1 :]]) if p != "float32" else 0.0 for p, _ in offer}
        for n, offer in enumerate(offers)
    ]
    places = [len(offer) - 1 for offer in offers]

    def chosen() -> list[Precision]:
        return [offer[place][0] for offer, place in zip(offers, places)]

    while not (whole := error(chosen())) <= tolerance:
        open_ = [n for n, place in enumerate(places) if place]
        if not open_:
            break  # all in float32, which is what was compared with
        places[max(open_, key=lambda n: _worth(offers[n], alone[n], places[n]))] -= 1
    # An early step may have become needless by later ones.
    for n in sorted(range(len(found)), key=lambda n: -offers[n][places[n]][1]):
        if places[n] < len(offers[n]) - 1:
            places[n] += 1
            lower = error(chosen())
            whole, places[n] = (lower, places[n]) if lower <= tolerance else (whole, places[n] - 1)
    result = chosen()
    assign(found, result)
    lines = [f"precision by calibration: outputs off by {whole:.2g} of their size, tolerance {tolerance:g}"]
    for unit, p, errors in zip(found, result, alone):
        tried = ", ".join(f"{errors[q]:.2g} in {q}" for q in _ORDER if errors.get(q))
        lines.append(f"{unit.names[0]}: {p}" + (f"; alone it brings {tried}" if tried else ""))
    return result, lines


def _worth(offer: list[tuple[Precision, float]], errors: dict[Precision, float], place: int) -> float:
    """Squared error that the next more exact precision takes away, for each nanosecond that it costs."""
    (better, slower), (now, took) = offer[place - 1], offer[place]
    return (errors[now] ** 2 - errors[better] ** 2) / (slower - took)


def _cheaper_and_cheaper(unit: Unit) -> list[tuple[Precision, float]]:
    """The precisions that are worth having for this unit and their predicted nanoseconds: each is faster than all more
    exact ones."""
    found: list[tuple[Precision, float]] = []
    for p in _ORDER:
        if multiplied(p) != p:
            continue
        took = _nanoseconds(unit, p)
        if not found or took < min(t for _, t in found):
            found.append((p, took))
    return found


def _nanoseconds(unit: Unit, precision: Precision) -> float:
    if linear_names(unit.module):
        bias = unit.module.bias
        packed = PackedLinear(linear_weight(unit.module), None if bias is None else bias.detach(), precision)
        return sum(packed.nanoseconds(n) for n in LIKELY)
    own = next(w for w in layer_weights(unit.module) if unit.end in ("", w.name))
    return LayerMatrices(own, precision).nanoseconds()


def _listed(batches: Any) -> Any:
    if isinstance(batches, (Tensor, tuple, dict, list)) or not isinstance(batches, Iterable):
        return batches
    return list(batches)


def _tensors(outputs: Any) -> list[Tensor]:
    found = [[leaf] if isinstance(leaf, Tensor) else list(leaf) for leaf in leaves_in(outputs)]
    return [tensor.detach().clone() for tensors in found for tensor in tensors]


def _error(got: list[list[Tensor]], want: list[list[Tensor]]) -> float:
    """Of the output where it is largest; of whole numbers and truths the share that differs."""
    worst = 0.0
    for ours, theirs in zip(zip(*got, strict=True), zip(*want, strict=True), strict=True):
        if theirs[0].is_floating_point() or theirs[0].is_complex():
            off = sum(float((a - b).abs().double().square().sum()) for a, b in zip(ours, theirs)) ** 0.5
            size = sum(float(b.abs().double().square().sum()) for b in theirs) ** 0.5
        else:
            off = float(sum(int((a != b).sum()) for a, b in zip(ours, theirs)))
            size = float(sum(b.numel() for b in theirs))
        relative = off / size if size else off
        if not relative <= worst:  # NaN is the worst
            worst = relative
    return worst if worst == worst else float(torch.inf)
