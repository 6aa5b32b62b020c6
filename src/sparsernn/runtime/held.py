"""Weights as the kernels have them: rounded to a precision, and of a loaded model held in few bytes alone.

Of such a model the parameters are shapes without bytes (on the meta device); its engine holds the matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..structure.coded import CodedMatrix, Form, coded, dense
from ..structure.grids import LARGEST, integers
from .weights import Weight, coded_of

Precision = Literal["float32", "bfloat16", "int8"]
Precisions = Precision | Mapping[str, Precision]  # of a module: of all its layers, or by their names ("l0_reverse")


def precision_of(said: Precisions, layer: str) -> Precision:
    """Of one layer of a module."""
    return said[layer] if isinstance(said, Mapping) else said


def rounded(weight: Weight, precision: Precision) -> Weight:
    """`weight` in a precision, in the fewest bytes that are quick to read: each layout, and so a stream and a whole
    sequence, has the same weights, whatever the processor can multiply."""
    if precision == "int8":
        if isinstance(weight, CodedMatrix) and weight.form.whole:
            return weight
        weight = dense(weight)
        numbers, scales = integers(weight.float())
        numbers[~scales.isfinite()] = LARGEST  # so that NaN and infinity stay
        shape = (len(numbers), numbers.shape[1])
        return CodedMatrix(shape, Form(8, None, shape[0]), numbers.reshape(-1), scales)
    if precision == "bfloat16":
        return weight if isinstance(weight, CodedMatrix) and weight.form.bits == 16 else dense(weight).bfloat16()
    return weight if isinstance(weight, CodedMatrix) else weight.float()


def numbers_of(weight: Weight) -> Tensor:
    """Something that is zero where the weight is, of the fewest bytes."""
    return weight.numbers() if isinstance(weight, CodedMatrix) else weight


def rows_of(weight: Weight, first: int, last: int) -> Weight:
    if not isinstance(weight, CodedMatrix):
        return weight[first:last]
    if (first, last) == (0, weight.shape[0]):
        return weight
    scales = None if weight.scales is None else weight.scales[first:last].clone()
    return coded(weight.numbers()[first:last].contiguous(), scales)


def finite(weight: Weight) -> bool:
    return weight.finite() if isinstance(weight, CodedMatrix) else bool(weight.isfinite().all())


def weight_of(module: nn.Module, name: str) -> Weight:
    """The matrix `name` of a module, wherever it is held."""
    held = coded_of(module).get(name)
    return getattr(module, name).detach() if held is None else held


def thaw(module: Any) -> None:
    """Plain parameters again, with the values that the kernels have: somebody wants to change or to move them."""
    held = coded_of(module)
    if held:
        engine = module._engine
        module.__dict__["_engine"] = type(engine)(engine.precision)
        for name, matrix in held.items():
            module._parameters.pop(name)
            setattr(module, name, nn.Parameter(matrix.dense(), requires_grad=False))


def freeze(module: Any, held: dict[str, CodedMatrix]) -> None:
    """Parameters that are shapes alone, for matrices that the engine holds."""
    module._engine.coded = held
    for name, matrix in held.items():
        module._parameters.pop(name, None)
        empty = torch.empty(matrix.shape, dtype=torch.float32, device="meta")
        setattr(module, name, nn.Parameter(empty, requires_grad=False))
