"""Runs a step program in plain torch, on any device and in any dtype: what every other back end is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .operations import OPERATIONS
from .program import FLOAT, INT, STATE, Operation, Program, View


class Interpreter:
    """The state of one run of `program`: `step(*inputs)`, `reset()`, `state`."""

    def __init__(self, program: Program, dtype: torch.dtype = torch.float64, device: Any = "cpu") -> None:
        kinds = {FLOAT: dtype, INT: torch.int64}
        self.program = program
        self.number = 0  # of the next step
        self._flat: dict[str, Tensor] = {}
        for name, buffer in program.buffers.items():
            kind = kinds.get(buffer.dtype, torch.bool)
            start = torch.zeros(buffer.size, dtype=kind, device=device) if buffer.value is None else buffer.value
            self._flat[name] = start.to(device=device, dtype=kind, copy=True)
        self._operations = [(o, [self._operand(v) for v in o.inputs], [*map(self.at, o.outputs)])
                            for o in program.operations]  # fmt: skip

    def at(self, view: View) -> Tensor:
        """The memory that `view` shows; writing to it changes the run."""
        return view.of(self._flat[view.buffer])

    def step(self, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        """The outputs of one time step, in the order of the program's ports; None where one is not due."""
        for port, value in zip(self.program.inputs, inputs, strict=True):
            self.at(port.view).copy_(value)
        self.run(self.number)
        now, self.number = self.number, self.number + 1
        return tuple(self.at(p.view).clone() if p.clock.due(now) else None for p in self.program.outputs)

    def run(self, number: int) -> None:
        """All operations that are due at step `number`; below 0 those that need no input."""
        with torch.no_grad():
            for operation, inputs, outputs in self._operations:
                if operation.clock.due(number):
                    self._apply(operation, inputs, outputs, number)

    def reset(self) -> None:
        """Back to the start of a sequence."""
        self.number = 0
        for name, buffer in self.program.buffers.items():
            if buffer.kind == STATE:
                start = buffer.value
                self._flat[name].zero_() if start is None else self._flat[name].copy_(start)

    def flat(self, name: str) -> Tensor:
        """The memory of a buffer."""
        return self._flat[name]

    def _operand(self, value: View | float | None) -> Tensor | float | None:
        return self.at(value) if isinstance(value, View) else value

    def _apply(self, o: Operation, inputs: Sequence[Any], outputs: Sequence[Tensor], number: int) -> None:
        if o.kind == "push":
            results: Any = OPERATIONS["push"](*inputs, outputs[0])
        elif o.kind == "before" and number < o.options["until"]:
            start = inputs[1]
            row = (number - o.clock.first) // o.clock.every
            results = start[row] if isinstance(start, Tensor) else torch.full_like(outputs[0], start)
        elif o.kind == "where" or (o.kind in _NUMBERS_FIRST and not isinstance(inputs[0], Tensor)):
            # Numbers as they are: torch would round two of them to its default, float32.
            like: Any = {"dtype": outputs[0].dtype, "device": outputs[0].device}
            results = OPERATIONS[o.kind](*(v if isinstance(v, Tensor) else torch.as_tensor(v, **like) for v in inputs))
        else:
            results = OPERATIONS[o.kind](*inputs, **o.options)
        for output, result in zip(outputs, (results,) if isinstance(results, Tensor) else results, strict=True):
            output.copy_(result)


_NUMBERS_FIRST = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
