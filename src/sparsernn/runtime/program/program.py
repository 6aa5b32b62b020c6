"""The step program: typed operations over named buffers, for one time step of a model.

A program knows no time axis: what the model remembers stands in state buffers, and every tensor of a step is a view
on a flat buffer. Views carry all the moving of axes (transpose, expand, slices), so operations are few; what each
computes is said in `operations.py`. A program names no processor and no compiler: the interpreter in torch, the
compiled one and the writer of C read the same object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

INPUT, CONSTANT, STATE, WORK = "input", "constant", "state", "work"
FLOAT, INT, BOOL = "float", "int", "bool"


@dataclass(frozen=True)
class View:
    """A window on a buffer: element (i, j, ...) lies at offset + i strides[0] + j strides[1] + ..., in elements."""

    buffer: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """How many elements it shows; one behind a stride of 0 counts each time."""
        return prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether its elements follow each other in the order of its shape."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def of(self, flat: Tensor) -> Tensor:
        """This window on `flat`, the memory of its buffer."""
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)

    def crosses(self, other: View, size: int) -> bool:
        """Whether `other`, of the same buffer of that size, shows some of the elements at different places."""
        if other.buffer != self.buffer or other == self:
            return False
        places = torch.arange(size, dtype=torch.int64, device="cpu")
        return bool(torch.isin(self.of(places).reshape(-1), other.of(places).reshape(-1)).any())


@dataclass(frozen=True)
class Buffer:
    """`size` elements of memory. dtype: "float" (of the precision that the program is run in), "int" or "bool".

    kind: "input" (filled before each step), "constant" (a parameter or what depends on no input), "state" (keeps its
    content from step to step) or "work" (written in a step before it is read, or still as an earlier step left it).
    value: the content of a constant, of a state after `reset`; flat. None for the others, which begin as zeros.
    """

    name: str
    size: int
    dtype: str
    kind: str
    value: Tensor | None = None


@dataclass(frozen=True)
class Clock:
    """Due at the steps first, first + every, first + 2 every, ...; the first step of a sequence is number 0."""

    every: int = 1
    first: int = 0

    def due(self, step: int) -> bool:
        return step >= self.first and (step - self.first) % self.every == 0

    def __str__(self) -> str:
        each = "each step" if self.every == 1 else f"every {self.every} steps"
        return each if self.first <= 0 and self.every == 1 else f"{each} from step {max(self.first, 0)}"


EACH_STEP = Clock()


@dataclass(frozen=True)
class Operation:
    """`kind` (see operations.py) of `inputs`, written to `outputs`, at the steps of `clock`.

    Inputs are views, or plain numbers where the model has them, or None for what an operation may lack (a bias).
    An output may be the same view as an input (states are changed in place), but never overlaps one otherwise.
    source: the line of the model that asked for it, "net.py:14", or "".
    """

    kind: str
    inputs: tuple[View | float | None, ...]
    outputs: tuple[View, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = EACH_STEP
    source: str = ""

    def views(self) -> Iterator[View]:
        """Of inputs, then of outputs."""
        yield from (v for v in self.inputs if isinstance(v, View))
        yield from self.outputs


@dataclass(frozen=True)
class Port:
    """An input, an output or a named state of the program. clock: when an output is due."""

    name: str
    view: View
    clock: Clock = EACH_STEP


@dataclass(frozen=True)
class Program:
    """What one step does, in order. `operations` whose clock starts below step 0 also run in the steps before zero,
    in which only `before` operations know a value; the contents that those steps leave are the states' values.

    delay: by how many steps the outputs lag behind the inputs. A step runs all operations that are due, in order.
    """

    buffers: Mapping[str, Buffer]
    operations: tuple[Operation, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...] = ()
    delay: int = 0

    @property
    def every(self) -> int:
        """Steps from one output to the next, of the output that is due most often."""
        return min((port.clock.every for port in self.outputs), default=1)

    def explain(self) -> str:
        """A line for each operation: its clock, what it computes of which buffers, and where the model asked for it."""
        lines = [f"{len(self.operations)} operations, {self._bytes(STATE)} bytes of state in float32"]
        lines += [f"  input {p.name}: {_shape(p.view)}" for p in self.inputs]
        for o in self.operations:
            clock = "" if o.clock.every == 1 and o.clock.first <= 0 else f" ({o.clock})"
            source = f"  # {o.source}" if o.source else ""
            read = ", ".join(v.buffer if isinstance(v, View) else str(v) for v in o.inputs if v is not None)
            written = ", ".join(f"{v.buffer} {_shape(v)}" for v in o.outputs)
            lines.append(f"  {written} = {o.kind}({read}){clock}{source}")
        lines += [f"  output {p.name}: {p.view.buffer} {_shape(p.view)}, {p.clock}" for p in self.outputs]
        return "\n".join(lines)

    def _bytes(self, kind: str) -> int:
        width = {FLOAT: 4, INT: 8, BOOL: 1}
        return sum(b.size * width[b.dtype] for b in self.buffers.values() if b.kind == kind)


def whole(name: str, shape: tuple[int, ...]) -> View:
    """The view of all of a buffer, in the order of `shape`."""
    strides = torch.empty(shape, device="meta").stride()
    return View(name, tuple(shape), tuple(strides))


def _shape(view: View) -> str:
    return "x".join(map(str, view.shape)) or "()"
