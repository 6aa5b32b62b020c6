"""Weights as the kernels have them: rounded to a precision, and held once where nobody needs them in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..structure.coded import CodedMatrix, dense, uncut
from ..structure.grids import LARGEST, integers
from ..structure.held_weights import Held, held_in, parameter
from .weights import Weight, matrix_layers, weight_of

Precision = Literal["float32", "bfloat16", "int8"]
Precisions = Precision | Mapping[str, Precision]  # of a module: of all its layers, or by their names ("l0_reverse")
Numbers = Tensor | CodedMatrix


def precision_of(said: Precisions, layer: str) -> Precision:
    """Of one layer of a module."""
    return said[layer] if isinstance(said, Mapping) else said


def rounded(weight: Weight, precision: Precision) -> Numbers:
    """`weight` in a precision, in the fewest bytes that are quick to read: each layout, and so a stream and a whole
    sequence, has the same weights, whatever the processor can multiply."""
    weight = weight.matrix() if isinstance(weight, Held) else weight
    if precision == "int8":
        if isinstance(weight, CodedMatrix) and weight.form.whole:
            return weight
        weight = dense(weight)
        numbers, scales = integers(weight.float())
        numbers[~scales.isfinite()] = LARGEST  # so that NaN and infinity stay
        return uncut(numbers, scales)
    if precision == "bfloat16":
        return weight if isinstance(weight, CodedMatrix) and weight.form.bits == 16 else dense(weight).bfloat16()
    return weight if isinstance(weight, CodedMatrix) else weight.float()


def numbers_of(weight: Numbers) -> Tensor:
    """Something that is zero where the weight is, of the fewest bytes."""
    return weight.numbers() if isinstance(weight, CodedMatrix) else weight


def as_coded(weight: Numbers) -> CodedMatrix:
    return weight if isinstance(weight, CodedMatrix) else uncut(weight)


def rows_of(weight: Numbers, first: int, last: int) -> Numbers:
    if not isinstance(weight, CodedMatrix):
        return weight[first:last]
    if (first, last) == (0, weight.shape[0]):
        return weight
    scales = None if weight.scales is None else weight.scales[first:last].clone()
    return uncut(weight.numbers()[first:last].contiguous(), scales)


def joined(parts: list[CodedMatrix]) -> CodedMatrix:
    """Matrices one below the other."""
    scales = [part.scales for part in parts if part.scales is not None]
    return uncut(torch.cat([part.numbers() for part in parts]), torch.cat(scales) if scales else None)


def columns_at(weight: CodedMatrix, places: Tensor, width: int | None = None) -> CodedMatrix:
    """Column k of `weight` at places[k] of `width` columns, zeros elsewhere; without a width the way back."""
    numbers = weight.numbers()
    if width is None:
        return uncut(numbers[:, places], weight.scales)
    found = numbers.new_zeros(len(numbers), width)
    found[:, places] = numbers
    return uncut(found, weight.scales)


def finite(weight: Weight) -> bool:
    return bool(weight.isfinite().all()) if isinstance(weight, Tensor) else weight.finite()


def thaw(module: Any) -> None:
    """Plain parameters again, with the values that the kernels have: somebody wants to change or to move them."""
    held = held_in(module)
    if held:
        engine = module._engine
        module.__dict__["_engine"] = type(engine)(engine.precision)
        for name, matrix in held.items():
            module._parameters.pop(name)
            setattr(module, name, nn.Parameter(matrix.dense(), requires_grad=False))


def freeze(module: Any, matrices: Mapping[str, CodedMatrix]) -> None:
    """Parameters without memory of their own, for matrices that are held once."""
    layers = matrix_layers(module) if matrices else {}
    for name, matrix in matrices.items():
        module._parameters.pop(name, None)
        if name in layers:
            held = Held(matrix, matrix.shape, precision_of(module._engine.precision, layers[name]))
            setattr(module, name, parameter(held))
        else:
            setattr(module, name, nn.Parameter(matrix.dense(), requires_grad=False))


def own_matrices(model: nn.Module) -> list[tuple[Any, dict[str, CodedMatrix]]]:
    """The plain matrices of each module on kernels as these have them, by name. Left out are those that several modules
    share, and those that are not finite, whose rounded numbers would not give them back."""
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    found = []
    for module in model.modules():
        engine = cast(Any, vars(module).get("_engine"))
        own: dict[str, CodedMatrix] = {}
        for name, layer in () if engine is None else matrix_layers(module).items():
            plain = module._parameters.get(name)
            if type(plain) is nn.Parameter and users[id(plain)] == 1 and finite(plain.detach()):
                precision = precision_of(cast(Any, engine).precision, layer)
                own[name] = as_coded(rounded(weight_of(module, name), precision))
        found.append((module, own))
    return found
