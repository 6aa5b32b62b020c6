"""The calls of kernels that a program becomes, and the memory that they work on."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...compiled import address
from ...held import Precision
from ..program import CONSTANT, INT, Buffer, Clock, Program, View
from .axes import side_by_side

TAIL = 64  # floats behind each piece of memory: kernels read whole vectors past its end


class CannotCompile(NotImplementedError):
    """No kernel does this; the interpreter in torch runs the program."""


@dataclass(frozen=True)
class At:
    """A place in memory: `offset` bytes into a buffer of the program or a piece of memory beside them."""

    memory: str
    offset: int = 0

    def __add__(self, more: int) -> At:
        return replace(self, offset=self.offset + more)


@dataclass(frozen=True)
class Distance:
    """The bytes from one place to another."""

    first: At
    second: At


Number = int | float | At | Distance | Tensor


@dataclass(frozen=True)
class Operand:
    """A tensor in memory. steps: bytes from one element to the next along each axis."""

    at: At
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    dtype: str = "float"
    ends: bool = False  # nothing of its memory lies behind it
    constant: bool = False

    @property
    def item(self) -> int:
        return 8 if self.dtype == INT else 4

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def flat(self) -> bool:
        """Whether it has no gaps."""
        wanted = side_by_side(self.shape, self.item)
        return all(a == b for a, b, size in zip(self.steps, wanted, self.shape) if size != 1)

    def part(self, axis: int, first: int) -> Operand:
        """What stands at place `first` of `axis`."""
        kept = [n for n in range(len(self.shape)) if n != axis]
        return replace(
            self, at=self.at + first * self.steps[axis], shape=tuple(self.shape[n] for n in kept),
            steps=tuple(self.steps[n] for n in kept), ends=False,
        )  # fmt: skip

    def shown_as(self, shape: Sequence[int], steps: Sequence[int]) -> Operand:
        return replace(self, shape=tuple(shape), steps=tuple(steps))


@dataclass(frozen=True)
class Call:
    """A kernel and its fields: numbers, places and tensors (their addresses), float32 numbers as floats."""

    kernel: str
    fields: tuple[Number, ...]
    clock: Clock


class Code:
    """Collects calls, and the memory for what lies between them."""

    def __init__(self, program: Program, precision: Precision) -> None:
        self.buffers: Mapping[str, Buffer] = program.buffers
        self.precision: Precision = precision
        self.calls: list[Call] = []
        self.constants: dict[str, Tensor] = {}
        self.kept: list[Any] = []
        self.clock = Clock()
        self.checked: set[str] = set()  # buffers of tokens that were looked at when they came
        self.scratch = 0  # bytes that the products need beside
        self.between: dict[str, tuple[int, str, float]] = {}  # memory that a run has of its own: size, kind, content

    def call(self, kernel: str, *fields: Number) -> None:
        self.calls.append(Call(kernel, fields, self.clock))

    def operand(self, view: View) -> Operand:
        buffer = self.buffers[view.buffer]
        item = 8 if buffer.dtype == INT else 4
        end = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides)) + 1
        return Operand(
            At(view.buffer, view.offset * item), view.shape, tuple(s * item for s in view.strides), buffer.dtype,
            end == buffer.size, buffer.kind == CONSTANT,
        )  # fmt: skip

    def input(self, value: View | float, shape: Sequence[int]) -> Operand:
        """An input of an elementwise operation, with axes of its output's `shape`."""
        if isinstance(value, View):
            return self.operand(value)
        number = self.constant(torch.tensor([float(value)], dtype=torch.float64, device="cpu"))
        return number.shown_as(shape, [0] * len(shape))

    def value(self, view: View) -> Tensor | None:
        """What a constant view shows, in float64; None for others."""
        buffer = self.buffers[view.buffer]
        if buffer.kind != CONSTANT or buffer.value is None:
            return None
        return view.of(buffer.value.to(torch.int64 if buffer.dtype == INT else torch.float64))

    def known(self, operand: Operand) -> Tensor | None:
        """The same of an operand."""
        if not operand.constant:
            return None
        strides = tuple(s // operand.item for s in operand.steps)
        offset = operand.at.offset // operand.item
        if operand.at.memory in self.constants:
            flat = self.constants[operand.at.memory]
            return flat.as_strided(operand.shape, strides, offset).to(
                flat.dtype if operand.dtype == INT else torch.float64
            )
        return self.value(View(operand.at.memory, operand.shape, strides, offset))

    def constant(self, value: Tensor) -> Operand:
        """Memory with these numbers."""
        kind = torch.int64 if not value.is_floating_point() and value.dtype != torch.bool else torch.float32
        memory = torch.zeros(value.numel() + TAIL, dtype=kind, device="cpu")
        memory[: value.numel()] = value.reshape(-1)
        dtype, name = INT if kind == torch.int64 else "float", f"={len(self.constants)}"
        self.constants[name] = memory
        shape = tuple(value.shape)
        return Operand(At(name), shape, side_by_side(shape, memory.element_size()), dtype, True, True)

    def temporary(self, shape: Sequence[int], dtype: str = "float", fill: float = 0.0) -> Operand:
        """Memory between two calls, `fill` before the first of them."""
        name = f"#{len(self.between)}"
        self.between[name] = prod(shape), dtype, fill
        return Operand(At(name), tuple(shape), side_by_side(shape, 8 if dtype == INT else 4), dtype, True)

    def memory(self, program: Program, rings: frozenset[str], clocks: int) -> dict[str, Tensor]:
        """The memory that one run of the program has of its own."""
        found = {name: memory_of(b, 2 if name in rings else 1) for name, b in program.buffers.items()
                 if b.kind != CONSTANT}  # fmt: skip
        for name, (size, dtype, fill) in self.between.items():
            kind = torch.int64 if dtype == INT else torch.float32
            found[name] = torch.full((size + TAIL,), fill, dtype=kind, device="cpu")
        found[CLOCK.memory] = torch.zeros(2 + 3 * clocks, dtype=torch.int64, device="cpu")
        found[SCRATCH.memory] = torch.zeros(self.scratch // 4 + TAIL, dtype=torch.float32, device="cpu")
        return found


SCRATCH = At("")  # of all products of a program together
CLOCK = At("#clock")  # the number of the next step, how many clocks there are, and those


def memory_of(buffer: Buffer, copies: int = 1) -> Tensor:
    """Memory of a buffer: numbers and truth values as float32, whole numbers as int64."""
    kind = torch.int64 if buffer.dtype == INT else torch.float32
    memory = torch.zeros(copies * buffer.size + TAIL, dtype=kind, device="cpu")
    if buffer.value is not None:
        for n in range(copies):
            memory[n * buffer.size : (n + 1) * buffer.size] = buffer.value.reshape(-1)
    return memory


class Linked:
    """Calls with all addresses filled in, ready for the kernel that runs them one by one."""

    def __init__(self, calls: Sequence[Call], memory: Mapping[str, Tensor], moving: frozenset[str]) -> None:
        """moving: buffers whose window moves on; `lookers` has where an address into them stands, and its offset."""
        self._memory, self._moving = memory, moving
        self._kept: list[Any] = list(memory.values())
        self.lookers: dict[str, list[tuple[Any, int, int]]] = {name: [] for name in moving}
        self.fields: list[Any] = [self._filled(call) for call in calls]
        self.calls = list(calls)

    def _filled(self, call: Call) -> Any:
        array = (ctypes.c_int64 * len(call.fields))()
        for n, value in enumerate(call.fields):
            array[n] = self._number(value)
            if isinstance(value, At) and value.memory in self._moving:
                self.lookers[value.memory].append((array, n, value.offset))
        return array

    def _number(self, value: Number) -> int:
        if isinstance(value, Distance):
            return self._number(value.second) - self._number(value.first)
        if isinstance(value, At):
            return self._memory[value.memory].data_ptr() + value.offset
        if isinstance(value, Tensor):
            self._kept.append(value)
            return value.data_ptr()
        return struct.unpack("<q", struct.pack("<fi", value, 0))[0] if isinstance(value, float) else value

    def operations(self, flags: Mapping[Clock, int]) -> Iterator[int]:
        """Pairs of kernel and fields; before a run of calls that are not due at each step, its guard.

        flags: the address of what is 1 where a clock is due.
        """
        at = 0
        for clock, same in groupby(self.calls, key=lambda call: call.clock):
            count = len(list(same))
            if clock in flags:
                guard = (ctypes.c_int64 * 3)(flags[clock], 1, count)
                self._kept.append(guard)
                yield from (0, ctypes.addressof(guard))
            for n in range(at, at + count):
                yield from (address(self.calls[n].kernel), ctypes.addressof(self.fields[n]))
            at += count
