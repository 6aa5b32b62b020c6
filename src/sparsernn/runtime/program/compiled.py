"""A step program in one compiled call: no allocation a step, and memory of its own for each run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiled import address, function
from ..held import Precision
from ..memory import check, eager, signature, undisturbed
from .folding import folded
from .lowering.code import CLOCK, Code, Linked, memory_of
from .lowering.moves import copy
from .lowering.table import lower, tokens_to_check
from .program import BOOL, CONSTANT, FLOAT, INT, STATE, Clock, Port, Program, View

_ALWAYS = Clock()


class Plan:
    """What several runs of a program share: the calls, packed weights and constants."""

    def __init__(self, program: Program, precision: Precision) -> None:
        program = folded(program)
        self.program = program
        code = self.code = Code(program, precision)
        with torch.inference_mode(False), torch.no_grad():
            self.arrivals = [self._arrival(port) for port in program.inputs]
            self.arrival_calls = len(code.calls)
            self.checks, code.checked = tokens_to_check(program)
            self.rings = lower(program, code)
            self.outputs = [self._kept(port) for port in program.outputs]
            code.constants |= {n: memory_of(b) for n, b in program.buffers.items() if b.kind == CONSTANT}
        clocks = [*(o.clock for o in program.operations), *(p.clock for p in program.outputs)]
        self.clocks = [clock for clock in dict.fromkeys(clocks) if not always(clock)]

    def _arrival(self, port: Port) -> str:
        """The memory whose address is that of the caller's tensor."""
        to = self.code.operand(port.view)
        source = self.code.temporary(to.shape, INT if to.dtype == INT else FLOAT)
        copy(self.code, source, to)
        return source.at.memory

    def _kept(self, port: Port) -> tuple[str, View]:
        """An output's memory. A state and a constant are copied: who writes into what a step gave changes neither."""
        if self.program.buffers[port.view.buffer].kind not in (STATE, CONSTANT):
            return port.view.buffer, port.view
        self.code.clock = port.clock
        source = self.code.operand(port.view)
        made = self.code.temporary(source.shape, source.dtype)
        copy(self.code, source, made)
        return made.at.memory, View(made.at.memory, made.shape, tuple(s // made.item for s in made.steps))


class Compiled:
    """One run of `program` on compiled kernels: `step(*inputs)`, `reset()`, `state`.

    precision: of its packed weights, "float32", "bfloat16" or "int8"; all else is float32. Raises CannotCompile where
    the program has an operation for which there is no kernel. Neither the program nor the model it was made of has to
    outlive it. Several can run side by side, one in each thread.
    """

    def __init__(self, program: Program, precision: Precision = "float32", plan: Plan | None = None) -> None:
        plan = self._plan = plan or Plan(program, precision)
        self.program, code = plan.program, plan.code
        program = plan.program
        with torch.inference_mode(False), torch.no_grad():
            memory = self._memory = code.memory(program, plan.rings, len(plan.clocks))
        self._linked = Linked(code.calls, {**memory, **code.constants}, plan.rings)
        self._states = [name for name, b in program.buffers.items() if b.kind == STATE]
        self._rings = self._placed_rings()
        self._inputs = self._found_inputs()
        self._ticks = self._clockwork()
        self._stop = (ctypes.c_int64 * 1)()
        operations = self._operations()
        self._list = (ctypes.c_int64 * len(operations))(*operations)
        self._fields = (ctypes.c_int64 * 2)(ctypes.addressof(self._list), len(operations) // 2)
        self._argument = ctypes.c_int64(ctypes.addressof(self._fields))
        self._run = function("kernels.steps.run", 1)
        self._outputs = tuple(view.of({**memory, **code.constants}[name]) for name, view in plan.outputs)
        self._truths = [program.buffers[p.view.buffer].dtype == BOOL for p in program.outputs]
        flags = [None if always(p.clock) else 2 + 3 * plan.clocks.index(p.clock) + 2 for p in program.outputs]
        self._flags = flags if any(flag is not None for flag in flags) or any(self._truths) else None
        self._fits: Callable[..., bool] = signature()
        self._given: Sequence[Tensor] = ()
        self.reset()

    def another(self) -> Compiled:
        """A second run with a state of its own, from the start; the weights are shared."""
        return Compiled(self.program, plan=self._plan)

    @eager
    def step(self, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        """The outputs of one time step; None where one is not due.

        They are the run's own memory, overwritten by the next step: clone() what is kept.
        """
        if not self._fits(*inputs) or not undisturbed():
            inputs = tuple(self._checked(inputs))
        for (fields, place), x in zip(self._inputs, inputs):
            fields[place] = x.data_ptr()
        self._run(self._argument)
        if self._stop[0]:
            self._stop[0] = 0
            raise IndexError(self._outside(inputs))
        if self._flags is None:
            return self._outputs
        return tuple(
            None if flag is not None and not self._ticks[flag] else (out != 0 if truth else out)
            for out, flag, truth in zip(self._outputs, self._flags, self._truths)
        )

    def reset(self) -> None:
        """Back to the start of a sequence."""
        for name in self._states:
            self._write(name, self.program.buffers[name].value)
        self.number = 0

    @property
    def number(self) -> int:
        """Of the next step."""
        return self._ticks[0]

    @number.setter
    def number(self, value: int) -> None:
        self._ticks[0] = value
        for n, clock in enumerate(self._plan.clocks):
            late = clock.first - value
            self._ticks[2 + 3 * n : 5 + 3 * n] = [clock.every, late if late > 0 else late % clock.every, 0]

    def content(self, kind: str = STATE) -> dict[str, Tensor]:
        """A copy of all buffers of `kind`, flat."""
        return {name: self._read(name) for name, b in self.program.buffers.items() if b.kind == kind}

    def restore(self, content: Mapping[str, Tensor], number: int) -> None:
        """Go on from what `content()` and `number` were."""
        for name, value in content.items():
            self._write(name, value)
        self.number = number

    def _read(self, name: str) -> Tensor:
        buffer = self.program.buffers[name]
        flat = {**self._plan.code.constants, **self._memory}[name]
        ring = self._rings.get(name)
        first = 0 if ring is None else ring[4] * ring[3]
        found = flat[first : first + buffer.size].clone()
        return found != 0 if buffer.dtype == BOOL else found

    def _write(self, name: str, value: Tensor | None) -> None:
        buffer, flat = self.program.buffers[name], self._memory[name]
        ring = self._rings.get(name)
        for n in range(1 if ring is None else 2):
            part = flat[n * buffer.size : (n + 1) * buffer.size]
            part.zero_() if value is None else part.copy_(value.reshape(-1))
        if ring is not None:
            ring[4] = 0
            for array, place, offset in self._linked.lookers[name]:
                if array is not ring:
                    array[place] = flat.data_ptr() + offset

    def _placed_rings(self) -> dict[str, Any]:
        """The fields of the kernel that moves each window, told of all addresses that look into it."""
        found: dict[str, Any] = {}
        for call, array in zip(self._linked.calls, self._linked.fields):
            if call.kernel == "kernels.moves.ring":
                found[call.fields[1].memory] = array  # type: ignore[union-attr]
        self._pairs = []
        for name, array in found.items():
            lookers = [(fields, n, offset) for fields, n, offset in self._linked.lookers[name] if fields is not array]
            pairs = (ctypes.c_int64 * max(2 * len(lookers), 1))()
            for n, (fields, place, offset) in enumerate(lookers):
                pairs[2 * n : 2 * n + 2] = [ctypes.addressof(fields) + 8 * place, offset]
            array[5], array[6] = len(lookers), ctypes.addressof(pairs)
            self._pairs.append(pairs)
        return found

    def _found_inputs(self) -> list[tuple[Any, int]]:
        """For each input the fields that take its address, and where."""
        found = []
        for name in self._plan.arrivals:
            (where,) = [
                (array, n) for call, array in zip(self._linked.calls, self._linked.fields)
                for n, value in enumerate(call.fields) if getattr(value, "memory", None) == name
            ]  # fmt: skip
            found.append(where)
        return found

    def _clockwork(self) -> Any:
        """The fields of the kernel that counts steps."""
        memory = self._memory[CLOCK.memory]
        memory[1] = len(self._plan.clocks)
        return (ctypes.c_int64 * len(memory)).from_address(memory.data_ptr())

    def _operations(self) -> list[int]:
        """The pairs that the kernel runs: inputs, their checks, the clocks, and what the program does."""
        base = ctypes.addressof(self._ticks)
        flags = {clock: base + 8 * (4 + 3 * n) for n, clock in enumerate(self._plan.clocks)}
        pairs = list(self._linked.operations(flags))
        arrivals = 2 * self._plan.arrival_calls
        begin: list[int] = []
        self._checks: list[Any] = []
        for name, rows in self._plan.checks:
            place = self._memory[name].data_ptr()
            size = self.program.buffers[name].size
            fields = (ctypes.c_int64 * 5)(place, place, size, rows, ctypes.addressof(self._stop))
            self._checks.append(fields)
            begin += [address("chain.tokens"), ctypes.addressof(fields)]
        if begin:
            guard = (ctypes.c_int64 * 3)(ctypes.addressof(self._stop), 0, len(pairs))
            self._checks.append(guard)
            begin += [0, ctypes.addressof(guard)]
        begin += [address("kernels.steps.tick"), base]
        return [*pairs[:arrivals], *begin, *pairs[arrivals:]]

    def _outside(self, inputs: Sequence[Tensor]) -> str:
        for port, x in zip(self.program.inputs, inputs):
            for name, rows in self._plan.checks:
                if name == port.view.buffer and bool(((x < 0) | (x >= rows)).any()):
                    return f"step: a token of {x.tolist()} is outside of the embedding's rows, 0 to {rows - 1}."
        return "step: a token is outside of the embedding's rows."

    def _checked(self, inputs: Sequence[Any]) -> list[Tensor]:
        ports = self.program.inputs
        if len(inputs) != len(ports):
            names = ", ".join(p.name for p in ports) or "none"
            raise TypeError(f"step: got {len(inputs)} inputs, expected {len(ports)}: {names}.")
        given = [self._one(port, x) for port, x in zip(ports, inputs)]
        if all(a is b for a, b in zip(given, inputs)) and undisturbed():
            self._fits = signature(*given)
        self._given = given  # the caller may have kept none of them
        return given

    def _one(self, port: Port, x: Any) -> Tensor:
        kind = self.program.buffers[port.view.buffer].dtype
        dtype = torch.int64 if kind == INT else torch.float32
        shape = f"{port.view.shape} {'bool' if kind == BOOL else str(dtype).removeprefix('torch.')}"
        if not isinstance(x, Tensor):
            raise TypeError(f"step: got {type(x).__name__} for {port.name}, expected a tensor of {shape}.")
        if x.device.type != "cpu" or tuple(x.shape) != port.view.shape:
            raise ValueError(
                f"step: got {tuple(x.shape)} on {x.device} for {port.name}, expected {shape} on the CPU: "
                "one time step, no time axis."
            )
        if x.dtype != dtype and (x.is_floating_point() or kind not in (INT, BOOL)):
            raise TypeError(f"step: got {x.dtype} for {port.name}, expected {shape}.")
        check("step", x, dtype=x.dtype)
        return x.to(dtype).resolve_neg().contiguous()


def always(clock: Clock) -> bool:
    """Whether it is due at each step."""
    return clock.every == 1 and clock.first <= 0
