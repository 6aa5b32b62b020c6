"""The check before `compact` returns: both models, the same inputs, the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._twins import Twin
from ..nn.ragged import RaggedState
from ..structure import examples
from ..structure.compare import difference
from ..structure.nans import has_nan
from ..structure.steps import Looks, other_looks
from ..structure.structure import State, Structure
from .adapters import DenseWidths
from .attachments import attachments


def mismatch(
    model: nn.Module, small: nn.Module, calls: list[examples.Call], structure: Structure, dead: Tensor
) -> str | None:
    """None if both models compute the same on all examples, else a sentence that says where they differ.

    In float64, within 1e-10 of the output's scale; where a model insists on its own type of numbers, in that type
    within 1e-5 (relative). States handed to the caller are compared on the units that are left. NaN is never the same,
    in whichever model it arises. What Python code and step functions look at has to be the same as well.
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
    twins = [Twin(m, calls, dtype) for m in (model, small)]
    looks = [Looks(), Looks()]
    try:
        expected = twins[0].outcomes(looks[0])
    except ValueError as error:
        if dtype is not None:
            raise _CannotRun from error
        raise
    try:
        found = twins[1].outcomes(looks[1])
    except Exception as error:
        return f"the compacted model fails: {error}"
    for twin, shown, who in zip(twins, (expected, found), ("the model itself", "the compacted model")):
        if any(has_nan(tensor) for _, _, leaf in shown for tensor in examples.tensors_in(leaf)):
            return f"{who} gives {twin.nan() or 'NaN'}"
    if [at[:2] for at in expected] != [at[:2] for at in found]:
        return f"the examples give {len(found)} outputs instead of {len(expected)}"
    for (number, place, a), (_, _, b) in zip(expected, found):
        problem = _differ(a, b, tolerance, structure.states.get((number, place)), dead)
        if problem:
            return f"example {number}, output {place + 1}: {problem}"
    # Adapters hand out zeros for dead units, in their dense places: nothing there is mistaken for something else.
    wide = any(isinstance(a, DenseWidths) for module in small.modules() for a in attachments(module))
    return None if wide else other_looks(looks[0], looks[1], tolerance)


def _differ(a: Any, b: Any, tolerance: float, kept: State | None, dead: Tensor) -> str | None:
    if kept is not None:
        return _differ_in_states(a, b, tolerance, kept, dead)
    if isinstance(a, RaggedState) and isinstance(b, RaggedState) and len(a) == len(b):
        return next((p for x, y in zip(a, b) if (p := difference(x, y, tolerance))), None)
    return difference(a, b, tolerance)


def _differ_in_states(a: Any, b: Any, tolerance: float, kept: State, dead: Tensor) -> str | None:
    """`kept` has the class of each element: a tensor like `a`, or one such for each layer and direction."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(kept, Tensor):
        pairs = [(a, kept, b)]
    else:
        rows = [list(x.unbind(0)) if isinstance(x, Tensor) else list(x) for x in (a, kept, b)]
        if not len(rows[0]) == len(rows[1]) == len(rows[2]):
            return f"{len(rows[2])} states instead of {len(rows[1])}"
        pairs = list(zip(*rows))
    for wide, classes, narrow in pairs:
        problem = _differ_where_left(wide, ~dead[classes].to(wide.device), narrow, tolerance)
        if problem:
            return f"a state {problem}"
    return None


def _differ_where_left(wide: Tensor, left: Tensor, narrow: Tensor, tolerance: float) -> str | None:
    """Of `wide` the elements that are left, along whichever axis the others were taken from; or, of a state in the
    dense width, whatever it has in their place."""
    if wide.shape == narrow.shape:
        return difference(wide[left], narrow[left], tolerance)
    axes = [n for n, sizes in enumerate(zip(wide.shape, narrow.shape)) if sizes[0] != sizes[1]]
    if wide.dim() == narrow.dim() and len(axes) == 1:
        lines, mask = wide.movedim(axes[0], -1), left.movedim(axes[0], -1)
        if bool((mask.sum(-1) == narrow.shape[axes[0]]).all()):
            picked = lines[mask].reshape(*lines.shape[:-1], -1)
            return difference(picked, narrow.movedim(axes[0], -1), tolerance)
    return difference(wide, narrow, tolerance)
