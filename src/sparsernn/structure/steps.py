"""What Python code and step functions look at while a model runs: there a wrong value need not show in the output.

`if float(y[..., 1].sum()) > 0`, `y[..., 1] > 0`, an argmax or a relu give the same result for many values, so that two
models that agree on an example may still branch on different units. Their operands are compared instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from .frames import operation_name, source_line
from .operations import FINITE, SILENT, TO_PYTHON, VALUE_FREE

# Real numbers out, but equal ones for many operands.
_FLAT = frozenset(
    """relu relu_ relu6 clamp clamp_ clip clip_ clamp_min clamp_max threshold hardtanh hardsigmoid hardswish hardshrink
    softshrink maximum minimum fmax fmin max min amax amin sign sgn floor ceil round trunc fix frac heaviside
    floor_divide __floordiv__ remainder __mod__ bernoulli""".split()
)
_TORCH, _OURS = str(Path(torch.__file__).parent), str(Path(__file__).parent.parent)


class Look(NamedTuple):
    operation: str
    where: str
    shapes: tuple[tuple[int, ...], ...]
    sums: Tensor  # of each operand: a weighted sum, which tells any place from any other
    sizes: Tensor  # of each operand: the sum of its absolute values
    truth: bool  # whether it gives truth values


class Looks(TorchFunctionMode):
    """Use round a run. `found`: operands of every step function that the user's code calls, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Look] = []
        self.python = False  # whether Python code saw a value

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation_name(func)
        if name in VALUE_FREE or name in SILENT or name in FINITE:
            return func(*args, **kwargs)
        operands = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        python = name in TO_PYTHON and any(t.is_floating_point() or t.dtype == torch.bool for t in operands)
        over_truth = name in ("any", "all")
        real = [t for t in operands if t.layout == torch.strided and (t.is_floating_point() or over_truth or python)]
        early = python or over_truth or name in _FLAT
        look = _look(name, real, over_truth) if early and _is_users() else None  # before it writes in place
        result = func(*args, **kwargs)
        if look is None and real and not early and (kinds := _kinds(result)) and _is_users():
            look = _look(name, real, torch.bool in kinds)
        self.python |= python and look is not None
        self.found += [] if look is None else [look]
        return result


def _kinds(result: Any) -> set[torch.dtype]:
    """The types of numbers in the result that are no real ones (indices, truth values)."""
    leaves = [leaf for leaf in tree_iter(result) if isinstance(leaf, Tensor)]
    return {leaf.dtype for leaf in leaves if not leaf.is_floating_point() and not leaf.is_complex()}


def _is_users() -> bool:
    """Whether the operation is called by the user's code, or by a module of torch's, and not by a layer of ours."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is None or not frame.f_code.co_filename.startswith(_OURS)


def _look(name: str, operands: Sequence[Tensor], truth: bool) -> Look:
    flat = [t.detach().double().flatten().nan_to_num(0.0, 0.0, 0.0) for t in operands]
    sums = [(v * (1 + 0.5 * torch.sin(torch.arange(len(v), dtype=v.dtype, device=v.device)))).sum() for v in flat]
    sizes = [v.abs().sum() for v in flat]
    shapes = tuple(tuple(t.shape) for t in operands)
    empty = torch.zeros(0, dtype=torch.float64)
    return Look(
        name,
        source_line(),
        shapes,
        torch.stack(sums).cpu() if sums else empty,
        torch.stack(sizes).cpu() if sizes else empty,
        truth,
    )


def other_looks(model: Looks, small: Looks, tolerance: float) -> str | None:
    """None if both runs looked at the same numbers, else where they did not.

    Operands of other shapes are those with units that were cut. Which ones are left can't be told, so that truth values
    of them must not be counted (any, all), nor reach Python code.
    """
    expected, found = model.found, small.found
    for a, b in zip(expected, found):
        if a.operation != b.operation or len(a.shapes) != len(b.shapes):
            return f"it goes another way than the model itself ({b.operation} at {b.where})"
        same = torch.tensor([one == other for one, other in zip(a.shapes, b.shapes)], dtype=torch.bool)
        if not bool(same.all()) and a.truth and (model.python or a.operation in ("any", "all")):
            return f"{a.operation} at {a.where} looks at units by their place"
        if bool(((a.sums - b.sums).abs() > tolerance * a.sizes.clamp_min(1.0))[same].any()):
            return f"{a.operation} at {a.where} sees other numbers than in the model itself"
    return None if len(expected) == len(found) else "it goes another way than the model itself"
