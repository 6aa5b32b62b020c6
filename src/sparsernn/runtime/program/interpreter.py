"""Runs a step program in plain torch, on any device and in any dtype: what every other back end is checked against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
        self._inputs = [self.at(port.view) for port in program.inputs]
        self._outputs = [(port.clock, self.at(port.view)) for port in program.outputs]
        self._operations = [(o.clock, *self._prepared(o)) for o in program.operations]

    def at(self, view: View) -> Tensor:
        """The memory that `view` shows; writing to it changes the run."""
        return view.of(self._flat[view.buffer])

    def step(self, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        """The outputs of one time step, in the order of the program's ports; None where one is not due."""
        for memory, value in zip(self._inputs, inputs, strict=True):
            memory.copy_(value)
        self.run(self.number)
        now, self.number = self.number, self.number + 1
        return tuple(memory.clone() if clock.due(now) else None for clock, memory in self._outputs)

    def run(self, number: int) -> None:
        """All operations that are due at step `number`; below 0 those that need no input."""
        with torch.no_grad():
            for clock, compute, outputs in self._operations:
                if clock.due(number):
                    results = compute(number)
                    if isinstance(results, Tensor):
                        results = (results,)
                    for output, result in zip(outputs, results, strict=True):
                        output.copy_(result)

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

    def _prepared(self, o: Operation) -> tuple[Callable[[int], Any], list[Tensor]]:
        """What computes the operation's results, by the number of the step, and the memory for them."""
        inputs: list[Any] = [self.at(v) if isinstance(v, View) else v for v in o.inputs]
        outputs, rule = [*map(self.at, o.outputs)], OPERATIONS[o.kind]
        if o.kind == "before":
            return partial(_before, o, inputs, outputs[0]), outputs
        if o.kind == "push":
            return lambda _: rule(*inputs, outputs[0]), outputs
        if o.kind == "where" or (o.kind in _NUMBERS_FIRST and not isinstance(inputs[0], Tensor)):
            # Numbers as they are: torch would round two of them to its default, float32.
            like: Any = {"dtype": outputs[0].dtype, "device": outputs[0].device}
            inputs = [v if isinstance(v, Tensor) else torch.as_tensor(v, **like) for v in inputs]
        return lambda _: rule(*inputs, **o.options), outputs


def _before(o: Operation, inputs: Sequence[Any], output: Tensor, number: int) -> Tensor:
    x, start = inputs
    if number >= o.options["until"]:
        return x
    return (
        start[(number - o.clock.first) // o.clock.every]
        if isinstance(start, Tensor)
        else torch.full_like(output, start)
    )


_NUMBERS_FIRST = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
