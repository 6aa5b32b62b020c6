"""`flash_bytes`: what the C file of a model of given widths takes of a device's flash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .._modules import unwrap
from ..runtime.program.program import CONSTANT, FLOAT, Program, View
from ..structure.cuts import unit_cuts
from ..structure.trace import trace
from .examples import made_of
from .files import source
from .footprint import estimated_code
from .integers import WORD
from .plan import lower
from .products import STRIP
from .refusals import check_choices

Bytes = Callable[[int, int], float]


@dataclass(frozen=True)
class _Table:
    """A matrix in the tables: its shape, how much of each side a unit of each set takes with it, its bytes by shape."""

    shape: tuple[int, int]
    cuts: list[dict[str, float]]
    size: Bytes

    def bytes(self, gone: Mapping[str, int]) -> float:
        sides = [n - sum(gone[s] * each for s, each in cut.items()) for n, cut in zip(self.shape, self.cuts)]
        rows, columns = (max(1, round(side)) for side in sides)
        return self.size(rows, columns)


def flash_bytes(
    model: nn.Module, example_inputs: Any, *, precision: str = "float32", carried_states: bool = False
) -> Callable[[Mapping[str, int]], float]:
    """A function {unit set of `trace`: units left} -> bytes of flash that `export_c` of the compact model asks for.

    For `fold(model, batches, to=64 * 1024, cost=flash_bytes(model, x))`, and for `Shrink(..., to=64 * 1024, cost=...,
    steps=...)`: units go until the C file fits. Tables are counted as NAME.json counts them, all weights
    there: matrices with many zero blocks take less. The code is an estimate. `cost({})` is the model as it is.
    precision: "float32" or "int8", as of `export_c`. Raises what `trace` and `export_c` raise.
    """
    check_choices(precision, "source")
    model = unwrap(model)
    example = example_inputs[0] if isinstance(example_inputs, list) else example_inputs
    structure = trace(model, example_inputs, carried_states=carried_states)
    groups = structure.groups("unit").of(dict(model.named_parameters()))
    sizes = {name: len(numbers) for name, numbers in groups.units.items()}
    program = made_of("flash_bytes", model, example, 1).program
    tables = {
        (name, kind): _Table(shape, unit_cuts(groups, name, 2), size)
        for name, kind, shape, size in _tables(program, precision)
    }
    plan = lower(_dense(program), precision)
    others = sum(plan.tables.bytes_by_type().values()) + estimated_code(source(plan, "model"))
    others -= sum(t.size(*t.shape) for t in tables.values())

    def cost(widths: Mapping[str, int]) -> float:
        gone = {name: size - widths.get(name, size) for name, size in sizes.items()}
        return others + sum(table.bytes(gone) for table in tables.values())

    return cost


def _tables(program: Program, precision: str) -> Iterator[tuple[str, str, tuple[int, int], Bytes]]:
    """The matrices among the tables: name, how they lie there, shape, bytes by shape (biases of the rows included)."""

    def found(view: Any, kind: str, size: Bytes) -> Iterator[tuple[str, str, tuple[int, int], Bytes]]:
        if isinstance(view, View) and program.buffers[view.buffer].kind == CONSTANT and len(view.shape) == 2:
            yield view.buffer, kind, (view.shape[0], view.shape[1]), size

    packed = _packed_int8 if precision == "int8" else _packed
    for o in program.operations:
        if o.kind == "recurrent":
            gates = 4 / 3 if o.options["mode"] == "GRU" else 1  # both biases of n are there
            yield from found(o.inputs[1], "product", packed)
            yield from found(o.inputs[2], "recurrent product", lambda r, c, gates=gates: packed(r, c) + 4 * gates * r)
            yield from found(o.inputs[5], "product", packed)
        elif o.kind == "linear":
            biased = o.inputs[2] is not None
            yield from found(o.inputs[1], "linear", lambda r, c, b=biased: packed(r, c) + 4 * b * r)
        elif o.kind == "lookup":
            yield from found(o.inputs[1], "lookup", lambda r, c: 4 * r * c)


def _packed(rows: int, columns: int) -> float:
    return -(-rows // STRIP) * STRIP * columns * 4


def _packed_int8(rows: int, columns: int) -> float:
    return -(-rows // STRIP) * STRIP * -(-columns // WORD) * WORD + 4 * rows


def _dense(program: Program) -> Program:
    """`program` with other numbers: none of them zero, no two tables equal."""
    generator = torch.Generator().manual_seed(0)
    buffers = {
        name: replace(b, value=torch.rand(b.value.shape, generator=generator, dtype=torch.float64) + 0.5)
        if b.kind == CONSTANT and b.dtype == FLOAT and b.value is not None
        else b
        for name, b in program.buffers.items()
    }
    return replace(program, buffers=buffers)
