"""Element by element: equal positions are tied, weights among them are owned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import operations as ops
from ..ledger import Ledger
from ..shadow import NONE, Shadow, fit
from .movement import first
from .normed import note_norm

ADDITIVE = frozenset(
    """add subtract sub rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ maximum minimum fmax fmin where lerp
    max min""".split()
)


# Products, by which a unit is carried from step to step.
GATING = frozenset("mul multiply __mul__ __rmul__ __imul__ lerp addcmul".split())


def elementwise(ledger: Ledger, name: str, args: Any, kwargs: Any, result: Tensor) -> Shadow:
    operands = [a for a in (*args, *kwargs.values()) if not isinstance(a, (str, torch.dtype)) and a is not None]
    shadows = [ledger.shadow(a) for a in operands]
    shape = result.shape
    masks = [isinstance(a, Tensor) and a.dtype == torch.bool and s.label is None for a, s in zip(operands, shadows)]
    if name == "prelu":
        shadows[1] = _on_axis_one(shadows[1], len(shape))
    if name in GATING:
        _gate(ledger, operands, shadows)
    label = ledger.combine([s.label for s in shadows], shape)
    quiet = [
        (isinstance(a, Tensor) and bool(s)) or (not isinstance(a, Tensor) and a == 0) for a, s in zip(operands, shadows)
    ]
    product = name in ops.ELEMENTWISE_ZERO
    if label is None:
        return _weights_only(ledger, name, operands, shadows, shape)
    if product and any(s.zero for s in shadows) and _is_broadcast(operands, shadows, shape):
        return Shadow(zero=True)  # an attention weight times states that are all zero yet says nothing of the states
    for shadow in shadows:
        for weight in shadow.weights:
            ledger.own_along(label, weight, additive=not product)
    divided = product and "div" in name and shadows[0].label is None
    additive = name in ADDITIVE and all(q or m for q, m in zip(quiet, masks))
    computed = any(ledger.numbering.is_alias(w) for s in shadows for w in s.weights) and not product
    if divided or computed or not (product or additive or name == "prelu"):
        ledger.channels.shift(label)
    state = all(s.state or s.zero or m for s, m in zip(shadows, masks)) and any(s.state for s in shadows)
    labels = [s.label.expand(shape) for s in shadows if s.label is not None]
    two = product and "div" not in name and len(labels) == len(operands) == 2
    return Shadow(label, state=state, factors=(labels[0], labels[1]) if two else None)


def _is_broadcast(operands: Sequence[Any], shadows: Sequence[Shadow], shape: torch.Size) -> bool:
    """Whether the operand with channels has one value where the result has several."""
    (channels,) = [a.shape for a, s in zip(operands, shadows) if s.label is not None][:1]
    return (1,) * (len(shape) - len(channels)) + tuple(channels) != tuple(shape)


def _gate(ledger: Ledger, operands: Sequence[Any], shadows: Sequence[Shadow]) -> None:
    for n, (operand, shadow) in enumerate(zip(operands, shadows)):
        for other, by in enumerate(shadows):
            if n != other and isinstance(operand, Tensor) and (by.label is not None or by.weights):
                ledger.gate(operand, shadow, by)


def _weights_only(
    ledger: Ledger, name: str, operands: Sequence[Any], shadows: Sequence[Shadow], shape: torch.Size
) -> Shadow:
    """A parameter, element by element with constants and other parameters: a weight again where zero stays zero."""
    weights = tuple(tuple(fit(p, shape) for p in w) for s in shadows for w in s.weights)
    if not weights:
        return Shadow(zero=name in ops.ELEMENTWISE_ZERO and any(s.zero for s in shadows))
    others = [
        a
        for a, s in zip(operands, shadows)
        if not s.weights and not s.zero and not (isinstance(a, (int, float)) and a == 0)
    ]
    if name in ops.ELEMENTWISE_ZERO and not ("div" in name and not shadows[0].weights):
        # A mask or a scale on a weight is cut with it, but it is the weight itself that has to be zero.
        # What is learned stands for the product; of several the first.
        main, *factors = sorted((s for s in shadows if s.weights), key=lambda s: not ledger.is_learned(s))
        note_norm(ledger, main, operands)
        scaled = tuple(ledger.as_factor(w) for s in factors for w in s.weights)
        return Shadow(weights=tuple(tuple(fit(p, shape) for p in w) for w in (*main.weights, *scaled)))
    if name in ADDITIVE and not others:
        return Shadow(weights=weights)
    # Cut with its planes still, but no zero of it is a zero of the parameter.
    return Shadow(weights=tuple(ledger.as_factor(w) for w in weights))


def _on_axis_one(shadow: Shadow, dims: int) -> Shadow:
    def place(part: Tensor) -> Tensor:
        return part.view((1, -1) + (1,) * (dims - 2)) if dims > 1 and part.numel() > 1 else part

    return Shadow(weights=tuple(tuple(place(p) for p in w) for w in shadow.weights))


def unary(ledger: Ledger, name: str, args: Any, kwargs: Any, result: Any) -> Shadow:
    source, rest, kw = first(args, kwargs)
    shadow = ledger.shadow(source)
    if name in ops.UNARY_ZERO or _within_bounds(name, rest, kw):
        return replace(shadow, magnitude=True) if name in ops.MAGNITUDES and shadow.is_weight else shadow
    ledger.channels.shift(shadow.label)
    return Shadow(shadow.label, weights=tuple(ledger.as_factor(w) for w in shadow.weights))


def _within_bounds(name: str, rest: Sequence[Any], kw: dict[str, Any]) -> bool:
    """Whether zero lies within the numbers between which values are cut off."""
    names = [n for n in ops.BOUNDS.get(name, ()) if n]
    given = {n: kw.get(n, rest[at] if len(rest) > at else None) for at, n in enumerate(names)}
    if name == "hardtanh":
        given = {"min_val": -1.0, "max_val": 1.0} | {n: v for n, v in given.items() if v is not None}
    if not names or any(isinstance(v, Tensor) for v in given.values()):
        return False
    return all(v is None or (v <= 0 if n.startswith("min") else v >= 0) for n, v in given.items())


def gated_linear_unit(ledger: Ledger, args: Any, kwargs: Any) -> list[Shadow] | None:
    source, rest, kw = first(args, kwargs)
    shadow = ledger.shadow(source)
    if shadow.label is None:
        return None if shadow.weights else [NONE]
    ledger.keep_weights(shadow.weights)
    left, right = shadow.label.chunk(2, dim=kw.get("dim", rest[0] if rest else -1))
    ledger.channels.shift(right)
    return [Shadow(ledger.combine([left, right], left.shape))]
