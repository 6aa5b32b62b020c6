"""Matrices that a file holds in few bytes: those of accelerated models, and those that lie on a grid by themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.coded import BLOCKS, CodedMatrix, Form, coded
from ..structure.grids import on_grid
from ..structure.held_weights import HeldWeight
from ..tensors import DTYPES
from ._container import Fault, short
from ._kernels import engine_of
from ._slots import Slot

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_PARTS = ("values", "scales", "mask")


def in_few_bytes(slots: Sequence[Slot]) -> dict[int, tuple[CodedMatrix, int]]:
    """id of a tensor -> its matrix and the axis of the tensor that its rows are.

    Weights of modules on kernels as the kernels have them, others where numbers and scales give them to the bit.
    Tensors that several modules share stay as they are, since each may read them in another precision.
    """
    holders: dict[int, set[tuple[int, str]]] = defaultdict(set)
    for slot in slots:
        holders[id(slot.tensor)].add((id(slot.module), slot.local))
    found: dict[int, tuple[CodedMatrix, int]] = {}
    kernels: dict[int, Mapping[str, CodedMatrix]] = {}
    for slot in slots:
        alone = len(holders[id(slot.tensor)]) == 1 and id(slot.tensor) not in found
        plain = type(slot.tensor) in (nn.Parameter, HeldWeight)  # no lazy, quantised or distributed one
        if slot.role != "parameter" or not alone or not plain or slot.tensor.dim() < 2:
            continue
        engine = engine_of(slot.module)
        if engine is None:
            matrix = _on_grid(slot)
            if matrix is not None:
                found[id(slot.tensor)] = matrix
            continue
        if id(slot.module) not in kernels:
            kernels[id(slot.module)] = engine.in_few_bytes(slot.module)
        if slot.local in kernels[id(slot.module)]:
            found[id(slot.tensor)] = kernels[id(slot.module)][slot.local], 0
    return found


def _on_grid(slot: Slot) -> tuple[CodedMatrix, int] | None:
    tensor = slot.tensor.detach()
    odd = tensor.is_meta or tensor.is_nested or tensor.layout != torch.strided
    if odd or tensor.dtype not in FLOATS or not tensor.numel():
        return None
    rows = tensor.reshape(len(tensor), -1)
    for axis, matrix in enumerate((rows, rows.T)[: 2 if tensor.dim() == 2 else 1]):
        grid = on_grid(matrix)
        if grid is not None:
            size = getattr(slot.module, "hidden_size", 0)
            gates = type(size) is int and size > 0 and len(matrix) % size == 0
            return coded(grid[0].contiguous(), grid[1], size if gates else 0), axis
    return None


def parts_of(name: str, matrix: CodedMatrix) -> dict[str, Tensor]:
    """What stands in the file for the tensor `name`, under names that no parameter can have."""
    return {f".{part}.{name}": value for part, value in matrix.parts.items()}


def part_names(name: str) -> list[str]:
    return [f".{part}.{name}" for part in _PARTS]


def is_part(name: str) -> bool:
    return name.split(".")[:2] in [["", part] for part in _PARTS]


def form_of(matrix: CodedMatrix, axis: int) -> dict[str, Any]:
    """What the JSON header says of it."""
    form = matrix.form
    block = None if form.block is None else list(form.block)
    return {"coded": {"bits": form.bits, "block": block, "tile": form.tile, "axis": axis}}


def check_form(
    name: str, entry: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
) -> tuple[Form, tuple[int, int], int]:
    """Form, rows and columns, and axis of a matrix whose record is `entry`; its parts are there, of the right types and
    sizes. Raises Fault. The entry's shape has been looked at; nothing has been read."""
    field, said = f"tensors.{name}.coded", entry["coded"]
    if not isinstance(said, dict) or set(said) != {"bits", "block", "tile", "axis"}:
        raise Fault(field, f"got {short(said)}, expected bits, block, tile and axis.")
    bits, block, tile, axis = (said[key] for key in ("bits", "block", "tile", "axis"))
    shape = entry["shape"]
    types = ("float32",) if bits in (16, 32) else ("float64", "float32", "float16", "bfloat16")
    if type(bits) is not int or bits not in (4, 8, 16, 32) or entry.get("dtype") not in types:
        of = short(entry.get("dtype"))
        raise Fault(f"{field}.bits", f"got {short(bits)} for dtype {of}, expected 4, 8, 16 or 32.")
    if type(axis) is not int or axis not in ((0, 1) if len(shape) == 2 else (0,)) or len(shape) < 2:
        raise Fault(f"{field}.axis", f"got {short(axis)}, expected 0, or 1 for a matrix.")
    rows, columns = shape[0], 1
    for size in shape[1:]:
        columns *= size
    rows, columns = (columns, rows) if axis else (rows, columns)
    known = [list(sizes) for sizes in BLOCKS]
    if block is not None and (block not in known or any(type(size) is not int for size in block)):
        raise Fault(f"{field}.block", f"got {short(block)}, expected null or one of {short(BLOCKS)}.")
    if type(tile) is not int or not 1 <= tile <= max(rows, 1) or rows % tile or not rows * columns:
        raise Fault(f"{field}.tile", f"got {short(tile)}, expected a divisor of {rows}.")
    form = Form(bits, None if block is None else (block[0], block[1]), tile)
    wanted = form.parts(rows, columns)
    for part in _PARTS:
        stored = f".{part}.{name}"
        there = stored in shapes
        if there != (part in wanted):
            raise Fault(f"{field}.{part}", f"is {'there' if there else 'missing'}, against what its form asks for.")
        if not there:
            continue
        dtype, size = wanted[part]
        fewer = part == "values" and block is not None and len(shapes[stored]) == 1 and shapes[stored] <= size
        if dtypes[stored] != DTYPES[dtype] or (shapes[stored] != size and not fewer):
            found = f"{dtypes[stored]} {short(shapes[stored])}"
            raise Fault(f"{field}.{part}", f"is {found}, expected {DTYPES[dtype]} {size} for shape {short(shape)}.")
    return form, (rows, columns), axis


def read_matrix(name: str, form: Form, shape: tuple[int, int], values: Mapping[str, Tensor]) -> CodedMatrix:
    """The matrix of a form that was checked. Raises Fault for numbers out of range."""
    parts = [values.get(f".{part}.{name}") for part in _PARTS]
    assert parts[0] is not None
    matrix = CodedMatrix(shape, form, parts[0], parts[1], parts[2])
    wrong = matrix.fault()
    if wrong:
        raise Fault(f"tensors.{name}.coded", f"{wrong}.")
    return matrix


def as_tensor(matrix: CodedMatrix, axis: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The plain tensor that the matrix stands for."""
    found = matrix.dense(dtype)
    return (found.T if axis else found).reshape(shape).contiguous()
