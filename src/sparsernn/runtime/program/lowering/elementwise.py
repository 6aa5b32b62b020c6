"""Elementwise operations: rows of numbers, each input without gaps along them or one number for all."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from ...pack import BYTES
from ..program import BOOL, INT, Operation, View
from .axes import Axis, together
from .code import Code, Operand
from .moves import as_numbers, copy, truth, without_gaps

_NAMES = {"abs": "absolute", "round": "nearest", "pow": "power", "lt": "gt", "le": "ge"}
_TRUTHS = {"gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not"}
_ROOTS = {2.0: "mul", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal", 1.0: "copy"}


def elementwise(code: Code, operation: Operation) -> None:
    kind, (to,) = operation.kind, map(code.operand, operation.outputs)
    inputs = [code.input(v, to.shape) for v in operation.inputs if v is not None]
    kernel, numbers = _NAMES.get(kind, kind), _numbers(kind, operation.options)
    if kind == "gelu" and operation.options.get("approximate", "none") == "tanh":
        kernel = "gelu_tanh"
    exponent = operation.inputs[1] if kind == "pow" else None
    if not isinstance(exponent, View) and exponent in _ROOTS:
        kernel = _ROOTS[exponent]
        inputs = [inputs[0]] * (1 + (kernel == "mul"))
    elif kind in ("lt", "le"):
        inputs.reverse()
    if kernel == "copy":
        copy(code, inputs[0], to)
        return
    apply(code, kernel, [as_numbers(code, x) for x in inputs], to, numbers, kind in _TRUTHS)


def apply(
    code: Code, kernel: str, inputs: Sequence[Operand], to: Operand, numbers: Sequence[float] = (), truths: bool = False
) -> None:
    """`kernel` of inputs of the shape of `to`."""
    made = to
    if to.dtype == INT or (together(to.shape, [to.steps]) or [(1, (4,))])[-1][1] != (4,):
        made = code.temporary(to.shape)
    inputs = list(inputs)
    for n in [None, *sorted(range(len(inputs)), key=lambda n: not inputs[n].constant)]:
        if n is not None:
            inputs[n] = without_gaps(code, inputs[n])
        axes = together(made.shape, [*(x.steps for x in inputs), made.steps])
        if _fits(axes):
            break
    else:
        made = code.temporary(to.shape)
        axes = together(made.shape, [*(x.steps for x in inputs), made.steps])
    _call(code, kernel, inputs, made, axes, numbers)
    if to.dtype == BOOL and not truths:
        truth(code, made, made)
    if made is not to:
        copy(code, made, to)


def _fits(axes: list[Axis]) -> bool:
    if not axes:
        return True
    *before, last = axes[-1][1]
    return len(axes) <= 2 and last == 4 and all(step in (0, 4) for step in before)


def _call(
    code: Code, kernel: str, inputs: Sequence[Operand], to: Operand, axes: list[Axis], numbers: Sequence[float]
) -> None:
    still = (0,) * (len(inputs) + 1)
    rows, row_steps = axes[0] if len(axes) == 2 else (1, still)
    count, steps = axes[-1] if axes else (1, still)
    fields: list[Any] = [rows, count, to.at, row_steps[-1]]
    for x, row, step in zip(inputs, row_steps, steps):
        fields += [x.at, row] + ([BYTES if step else 0] if len(inputs) > 1 else [])
    if len(inputs) == 1 and axes and not steps[0]:
        # One number for a whole row, which functions of one input know nothing of.
        wide = code.temporary(to.shape)
        copy(code, inputs[0], wide)
        _call(code, kernel, [wide], to, together(to.shape, [wide.steps, to.steps]), numbers)
        return
    code.call(f"kernels.elementwise.{kernel}", *fields, *numbers)


def _numbers(kind: str, options: Any) -> list[float]:
    if kind == "elu":
        return [float(options.get(n, 1.0)) for n in ("alpha", "scale", "input_scale")]
    if kind == "leaky_relu":
        return [float(options.get("negative_slope", 0.01))]
    if kind == "softplus":
        return [float(options.get("beta", 1.0)), float(options.get("threshold", 20.0))]
    if kind == "clamp":
        least, most = options.get("min"), options.get("max")
        return [-inf if least is None else float(least), inf if most is None else float(most)]
    return []
