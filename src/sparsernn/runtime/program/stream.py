"""Streaming of any causal model: its step program on compiled kernels, with the model's own inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..held import Precision
from ..memory import eager
from .compiled import Compiled
from .made import Made
from .program import STATE, Program, View
from .rows import mask_of, steps_of_rows

NUMBER = "step"  # what the number of the next step is called among the states


class ProgramStream:
    """A model running step by step: `step(...)`, `reset()`, `state`.

    Made by `fast.stream(...)` for models that are no chain. Each has its own state and buffers, so several can run side
    by side, one in each thread; the weights are those of the moment it was made, and the model need not outlive it.
    every: steps from one output to the next, of the output that is due most often; delay: by how many steps outputs lag
    behind inputs.
    """

    def __init__(
        self, made: Made, precision: Precision = "float32", batch: int = 1, run: Compiled | None = None
    ) -> None:
        self._run = run or Compiled(made.program, precision)
        self.batch = batch
        self._rows: dict[str, int] | None = None
        self._made = made
        self.every, self.delay = made.program.every, made.program.delay
        given = made.inputs.is_state or (False,) * len(made.inputs.names)
        self._names = [name for name, own in zip(made.inputs.names, given) if not own]
        self._plain = all("." not in name for name in self._names)
        self._join = _joined(made)

    @eager
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """One time step: the model's output, in the model's own structure, None where nothing is due.

        Inputs are the model's, without a time axis, and without the states that the stream keeps itself. The tensors
        that come back are the stream's own memory, overwritten by the next step: clone() what is kept.
        """
        if kwargs or not self._plain:
            args = self._in_order(args, kwargs)
        return self._join(self._run.step(*args))

    def reset(self, rows: Any = None) -> None:
        """Back to the start of a sequence: all rows of the batch, or those where `rows`, (batch,) bool, is True.

        ValueError where the rows of a model can't start anew one by one: it has outputs that are not due at each step.
        """
        if rows is None:
            self._run.reset()
            return
        mask, program = mask_of(rows, self.batch), self._run.program
        self._rows = steps_of_rows(program, self.batch) if self._rows is None else self._rows
        now = {name: value for name, value in self._run.content().items() if name in self._rows}
        for name, value in now.items():
            places = torch.arange(len(value), dtype=torch.int64, device="cpu")
            start = program.buffers[name].value
            begin = torch.zeros_like(value) if start is None else start.reshape(-1).to(value.dtype)
            now[name] = torch.where(mask[places // self._rows[name] % self.batch], begin, value)
        self._run.restore(now, self._run.number)

    def another(self) -> ProgramStream:
        """A second stream with a state of its own, from the start; the weights are shared."""
        return ProgramStream(self._made, batch=self.batch, run=self._run.another())

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a stream can't be copied or pickled: another() opens a second one, `state` can be kept.")

    @property
    def state(self) -> dict[str, Tensor]:
        """A copy of all that the stream remembers, by name; some or all of it can be assigned.

        "step" is the number of the next step, an int64 scalar.
        """
        flat, shapes = self._run.content(), _shapes(self._run.program)
        found = {name: value.view(shapes[name]) for name, value in flat.items()}
        return {**found, NUMBER: torch.tensor(self._run.number, dtype=torch.int64, device="cpu")}

    @state.setter
    def state(self, value: Mapping[str, Tensor]) -> None:
        shapes: dict[str, tuple[int, ...]] = {**_shapes(self._run.program), NUMBER: ()}
        if not isinstance(value, Mapping):
            raise TypeError(f"state: got {type(value).__name__}, expected a dict of tensors, as `state` gives it.")
        for name, tensor in value.items():
            if name not in shapes:
                raise ValueError(f"state: {name!r} is none of the states {', '.join(shapes)}.")
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shapes[name]:
                got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"state: got {got} for {name}, expected a tensor of shape {shapes[name]}.")
        number = int(value[NUMBER]) if NUMBER in value else self._run.number
        if number < 0 or (NUMBER in value and number != value[NUMBER]):
            raise ValueError(f"state: got {value[NUMBER].item()} for {NUMBER}, expected a whole number from 0 on.")
        self._run.restore({name: tensor for name, tensor in value.items() if name != NUMBER}, number)

    def explain(self) -> str:
        """The operations of a step, each with its clock and the line of the model that asked for it."""
        return self._made.program.explain()

    def _in_order(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """All tensors of the arguments, as the program has its inputs."""
        roots = list(dict.fromkeys(name.split(".")[0] for name in self._names))
        named = dict(zip(roots, args))
        unknown = [name for name in kwargs if name not in roots or name in named]
        if unknown or len(args) > len(roots):
            raise TypeError(f"step: got {len(args)} arguments and {list(kwargs)}, expected {', '.join(roots)}.")
        named |= kwargs
        found = []
        for name in self._names:
            value: Any = named.get(name.split(".")[0])
            for key in name.split(".")[1:]:
                value = _part(value, key)
            found.append(value)
        return tuple(found)


def _part(value: Any, key: str) -> Any:
    """Of a dict by its key, of a list or tuple by its number, of a named tuple or a dataclass by its name."""
    if isinstance(value, Mapping):
        return next((v for k, v in value.items() if str(k) == key), None)
    if isinstance(value, (list, tuple)) and key.isdigit():
        return value[int(key)] if int(key) < len(value) else None
    return getattr(value, key, None)


def _shapes(program: Program) -> dict[str, tuple[int, ...]]:
    """Of all states; one whose port shows all of it has the port's shape."""
    shapes: dict[str, tuple[int, ...]] = {n: (b.size,) for n, b in program.buffers.items() if b.kind == STATE}
    for port in program.states:
        view: View = port.view
        if view.buffer in shapes and view.contiguous and view.size == shapes[view.buffer][0]:
            shapes[view.buffer] = view.shape
    return shapes


def _joined(made: Made) -> Callable[[Sequence[Tensor | None]], Any]:
    """From the program's outputs to the model's."""
    count = len(made.program.outputs)
    numbers: Any = made.shaped(range(count))  # type: ignore[arg-type]
    if isinstance(numbers, int):
        return lambda outputs: outputs[numbers]
    return tuple if type(numbers) is tuple and numbers == tuple(range(count)) else made.shaped
