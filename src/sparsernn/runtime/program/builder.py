"""Writes a program down: buffers, views and operations, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .calls import NotAProgram
from .program import BOOL, CONSTANT, FLOAT, INPUT, INT, STATE, WORK, Buffer, Clock, Operation, Port, Program, View

Operand = Tensor | float | None


def dtype_of(tensor: Tensor) -> str:
    """ "float", "int" or "bool"; NotAProgram for complex and quantised numbers."""
    if tensor.is_floating_point():
        return FLOAT
    if tensor.dtype == torch.bool:
        return BOOL
    if tensor.is_complex() or tensor.is_quantized:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise NotAProgram(f"it computes with {kind} numbers: write complex ones as two real parts.")
    return INT


class Builder:
    """Tensors here have no memory ("meta"): each storage stands for a buffer, each tensor for a view on it."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.operations: list[Operation] = []
        self.states: list[Port] = []
        self.source = ""  # the line of the model that is worked on
        self.module = ""  # and the path of the module whose parameters it takes
        self.pasts: dict[tuple[View, Clock, int], Tensor] = {}  # what is kept already of a view, by how many elements
        self.counters: set[str] = set()  # states that hold the number of the step
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []  # storages live as long as their numbers are used
        self._constants: dict[int, tuple[Tensor, Tensor]] = {}

    def buffer(
        self, name: str, shape: Sequence[int], like: Tensor | str, kind: str, value: Tensor | None = None
    ) -> Tensor:
        """A new buffer, as the tensor of `shape` that shows all of it. like: a tensor of its kind of numbers."""
        dtype = like if isinstance(like, str) else dtype_of(like)
        flat = None if value is None else value.detach().reshape(-1).clone()
        name = self._free(name)
        types = {FLOAT: torch.float64, INT: torch.int64, BOOL: torch.bool}
        tensor = torch.empty(tuple(shape), dtype=types[dtype], device="meta")
        self.buffers[name] = Buffer(name, tensor.numel(), dtype, kind, flat)
        self._names[tensor.untyped_storage()._cdata] = name
        self._kept.append(tensor)
        return tensor

    def input(self, name: str, like: Tensor, shape: Sequence[int]) -> Tensor:
        return self.buffer(name, shape, like, INPUT)

    def state(self, name: str, shape: Sequence[int], like: Tensor | str = FLOAT, value: Tensor | None = None) -> Tensor:
        """A state, named after the module that is worked on: "gru.h"."""
        tensor = self.buffer(f"{self.module}.{name}" if self.module else name, shape, like, STATE, value)
        view = self.view(tensor)
        self.states.append(Port(view.buffer, view))
        return tensor

    def work(self, name: str, shape: Sequence[int], like: Tensor | str = FLOAT) -> Tensor:
        return self.buffer(name, shape, like, WORK)

    def constant(self, data: Tensor, name: str = "constant") -> Tensor:
        """The buffer that holds `data`; the same one each time that it is asked for."""
        if id(data) not in self._constants:
            tensor = self.buffer(name, data.shape, data, CONSTANT, data)
            self._constants[id(data)] = (data, tensor)
        return self._constants[id(data)][1]

    def kind(self, tensor: Tensor) -> str:
        return self.buffers[self._names[tensor.untyped_storage()._cdata]].kind

    def counts(self, tensor: Tensor) -> bool:
        """Whether it depends on the number of the step, and on no input."""
        found = {self.view(tensor).buffer}
        for o in reversed(self.operations):
            if any(v.buffer in found for v in o.outputs):
                found |= {v.buffer for v in o.views()}
        return bool(found & self.counters) and not any(self.buffers[name].kind == INPUT for name in found)

    def view(self, tensor: Tensor) -> View:
        name = self._names[tensor.untyped_storage()._cdata]
        return View(name, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))

    def emit(
        self,
        kind: str,
        inputs: Sequence[Operand],
        outputs: Sequence[Tensor],
        clock: Clock,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """One more operation."""
        read = tuple(self.view(v) if isinstance(v, Tensor) else v for v in inputs)
        written = tuple(map(self.view, outputs))
        self.operations.append(Operation(kind, read, written, dict(options or {}), clock, self.source))

    def overwrite(self, value: Tensor | float, target: Tensor, clock: Clock) -> None:
        """`target` shows `value` from now on."""
        if not isinstance(value, Tensor):
            value = self.constant(torch.tensor(value, dtype=target.dtype, device="cpu"))
        value = value.expand(target.shape)
        if self.view(value) == self.view(target):
            return
        if self.crosses(value, target):
            value = self.copied(value, clock)
        self.emit("copy", (value,), (target,), clock)
        self.pasts.clear()  # what was kept may be another content now

    def crosses(self, value: Tensor, target: Tensor) -> bool:
        """Whether `value`, another view of the memory of `target`, shows some of its elements at other places."""
        mine = self.view(target)
        return mine.crosses(self.view(value), self.buffers[mine.buffer].size)

    def made(
        self,
        kind: str,
        inputs: Sequence[Operand],
        shape: Sequence[int],
        clock: Clock,
        like: Tensor | str = FLOAT,
        **options: Any,
    ) -> Tensor:
        """One more operation into a new buffer, which is returned."""
        out = self.work(kind, shape, like)
        self.emit(kind, inputs, (out,), clock, options)
        return out

    def reshape(self, tensor: Tensor, shape: Sequence[int], clock: Clock) -> Tensor:
        """`tensor` in another shape: a view where that is one, else a copy."""
        try:
            return tensor.view(tuple(shape))
        except RuntimeError:
            return self.copied(tensor, clock).view(tuple(shape))

    def copied(self, tensor: Tensor, clock: Clock) -> Tensor:
        return self.made("copy", (tensor,), tensor.shape, clock, tensor)

    def program(self, inputs: Sequence[Port], outputs: Sequence[Port], delay: int = 0) -> Program:
        return Program(self.buffers, tuple(self.operations), tuple(inputs), tuple(outputs), tuple(self.states), delay)

    def _free(self, name: str) -> str:
        number, found = 2, name
        while found in self.buffers:
            found, number = f"{name}_{number}", number + 1
        return found
