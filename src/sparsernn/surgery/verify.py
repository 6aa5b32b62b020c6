"""The check before `compact` returns: both models, the same inputs, the same numbers."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.ragged import RaggedState
from ..structure import examples
from ..structure.structure import State, Structure


def mismatch(
    model: nn.Module, small: nn.Module, calls: list[examples.Call], structure: Structure, dead: Tensor
) -> str | None:
    """None if both models compute the same on all examples, else a sentence that says where they differ.

    In float64, within 1e-10 of the output's scale; where a model insists on its own type of numbers, in that type
    within 1e-5 (relative). States handed to the caller are compared on the units that are left.
    """
    try:
        return _compare(model, small, calls, structure, dead, torch.float64, 1e-10)
    except _CannotRun:
        return _compare(model, small, calls, structure, dead, None, 1e-5)


class _CannotRun(Exception):
    pass


def _compare(
    model: nn.Module,
    small: nn.Module,
    calls: list[examples.Call],
    structure: Structure,
    dead: Tensor,
    dtype: torch.dtype | None,
    tolerance: float,
) -> str | None:
    twins = [copy.deepcopy(m).eval() for m in (model, small)]
    if dtype is not None:
        twins = [twin.to(dtype) for twin in twins]
    for number, call in enumerate(calls, start=1):
        try:
            expected = _run(twins[0], call, number, dtype)
        except ValueError as error:
            if dtype is not None:
                raise _CannotRun from error
            raise
        try:
            found = _run(twins[1], call, number, dtype)
        except Exception as error:
            return f"the compacted model fails on example {number}: {error}"
        if len(expected) != len(found):
            return f"example {number} gives {len(found)} tensors instead of {len(expected)}"
        for place, (a, b) in enumerate(zip(expected, found)):
            kept = structure.states.get((number, place))
            problem = _differ(a, b, tolerance, kept, dead)
            if problem:
                return f"example {number}, output {place + 1}: {problem}"
    return None


def _run(model: nn.Module, call: examples.Call, number: int, dtype: torch.dtype | None) -> list[Any]:
    torch.manual_seed(number)
    return list(examples.leaves_in(examples.run(model, examples.fresh(call, dtype), number)))


def _differ(a: Any, b: Any, tolerance: float, kept: State | None, dead: Tensor) -> str | None:
    if kept is not None and not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape):
        return _differ_in_states(a, b, tolerance, kept, dead)
    if isinstance(a, RaggedState) and isinstance(b, RaggedState) and len(a) == len(b):
        return next((p for x, y in zip(a, b) if (p := _differ(x, y, tolerance, None, dead))), None)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape or a.dtype != b.dtype:
        return f"{_describe(b)} instead of {_describe(a)}"
    if not a.is_floating_point():
        return None if bool((a == b).all()) else "other whole numbers"
    scale = max(1.0, float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 1.0)
    if bool(torch.isclose(a, b, rtol=0.0, atol=tolerance * scale, equal_nan=True).all()):
        return None
    return f"differs by {float((a - b).abs().max()):.3g} (allowed {tolerance * scale:.3g})"


def _differ_in_states(a: Any, b: Any, tolerance: float, kept: State, dead: Tensor) -> str | None:
    """`kept` has the class of each unit: a tensor (width,), or one such for each layer and direction."""
    if isinstance(kept, Tensor):
        pairs = [(a, kept, b)]
    else:
        rows = [list(x) if isinstance(x, RaggedState) else list(x.unbind(0)) for x in (a, b)]
        if not len(rows[0]) == len(rows[1]) == len(kept):
            return f"{len(rows[1])} states instead of {len(kept)}"
        pairs = list(zip(rows[0], kept, rows[1]))
    for wide, classes, narrow in pairs:
        left = wide.index_select(-1, torch.nonzero(~dead[classes])[:, 0].to(wide.device))
        problem = _differ(left, narrow, tolerance, None, dead)
        if problem:
            return f"a state {problem}"
    return None


def _describe(value: Any) -> str:
    return f"shape {list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else repr(value)
