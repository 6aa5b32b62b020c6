"""What a layout of weight matrices is. Each file of layouts/ brings one, and everything else walks over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from .held import Precision
from .pack import BYTES, Arrangement, Number, Packed, halves
from .processor import Processor

Pair = tuple[float, float]
_SIZES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Counts:
    """What the costs of all layouts depend on, of one matrix in one arrangement."""

    columns: int
    block_rows: int
    blocks: int  # WIDTH x 1 blocks with a non-zero weight
    words: int  # WIDTH x 4 blocks with a non-zero weight
    weights: int
    own: Mapping[type[Layout], tuple[int, ...]] = field(default_factory=dict)  # what a layout counts beside


@dataclass(frozen=True)
class Layout(ABC):
    """One way to lay a matrix out for a kernel of its own. A class is a layout, its objects are for weights of several
    precisions.

    name: "blocks_bfloat16", its key in files of measured costs. precisions: for which it is offered. costs: built-in
    (load, use) in nanoseconds, of one step however many inputs share it, and for each input. weights: what it keeps
    weights in.
    """

    name: str
    precisions: tuple[Precision, ...]
    costs: Pair
    weights: Precision = "float32"

    label: ClassVar[str]  # what `explain` calls it
    surest: ClassVar[bool] = False  # takes all matrices alike: another layout has to be worth it
    columns: ClassVar[int] = 1  # columns of a block of rows that stand or fall together
    density: ClassVar[float] = 0.1  # of the matrix that `tune` measures it with
    tall: ClassVar[bool] = False  # whether that lacks whole WIDTH x 1 blocks, not single weights

    @abstractmethod
    def pack(self, weight: Any, arrangement: Arrangement) -> Packed:
        """`weight`, (O, I) float32 or for int8 weights held as integers, in this layout, by `packed`."""

    @abstractmethod
    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        """The way back: (blocks, WIDTH, columns) of the weights that `packed` was given and the tensors behind them."""

    @abstractmethod
    def kernel(self) -> Callable[..., None]:
        """The function that numba compiles, arguments as in products.py.

        What it needs of numba it imports itself: packing and choosing are done without.
        """

    @abstractmethod
    def steps(self, counts: Counts) -> float:
        """Steps of a product: what the costs are for one of."""

    @abstractmethod
    def read(self, counts: Counts) -> float:
        """Bytes that a product reads of the packed matrix."""

    def runs_on(self, processor: Processor) -> bool:
        return True

    def count(self, full: Tensor) -> tuple[int, ...]:
        """What only this layout counts, of the living blocks: (blocks, WIDTH, columns) bool."""
        return ()

    def moved(self, inputs: int) -> int:
        """How many of the inputs a product brings into an order of its own, or to int8."""
        return inputs

    def compute(self, counts: Counts, inputs: int, costs: Pair) -> float:
        """Nanoseconds of arithmetic of a product of `inputs` rows: of load and use of a step the larger one counts."""
        load, use = costs
        return self.steps(counts) * max(load, use * inputs)

    def fitted(self, counts: Counts, one: float, many: float, inputs: int) -> Pair:
        """The costs, where a product of one row took `one` nanoseconds and one of `inputs` rows took `many`."""
        steps = self.steps(counts)
        return one / steps, many / inputs / steps

    @property
    def size(self) -> int:
        """Bytes of a weight."""
        return _SIZES[self.weights]

    def packed(
        self, values: Tensor, blocks: Tensor, columns: int, arrangement: Arrangement, *more: Tensor | Number,
        scratch: int = 0,
    ) -> Packed:  # fmt: skip
        """The matrix with its plan: the fields of products.py, then `more`, of tensors their addresses.

        values: the weights, of float32 rounded here; blocks: numbers of the blocks of rows that are there; scratch:
        bytes that the kernel needs beside.
        """
        values = halves(values) if self.weights == "bfloat16" else values
        where = arrangement.where[blocks].contiguous()
        every = torch.arange(0, arrangement.width * 4, BYTES, dtype=torch.int64, device="cpu")
        absent = every[~torch.isin(every, where)].contiguous()
        bias = arrangement.bias
        tensors = [m.contiguous() for m in more if isinstance(m, Tensor)]
        kept = [values, where, absent, *tensors] + ([] if bias is None else [bias])
        start = 0 if bias is None else bias.data_ptr()
        numbers = [values.data_ptr(), len(blocks), columns, where.data_ptr(), start, absent.data_ptr(), len(absent)]
        rest = iter(tensors)
        numbers += [next(rest).data_ptr() if isinstance(m, Tensor) else m for m in more]
        plan = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        size = sum(t.numel() * t.element_size() for t in (values, *tensors))
        label = self.label if self.weights == "float32" else f"{self.label} {self.weights}"
        return Packed(label, f"layouts.{self.name}", plan.data_ptr(), size, scratch, (plan, *kept))

    def unpacked(self, packed: Packed, arrangement: Arrangement, rows: int, columns: int) -> Tensor:
        """The matrix (rows, columns) that was packed, float32 or int8; zeros have lost their sign."""
        _, values, where, _, *more = packed.kept
        values = values.view(torch.bfloat16).float() if self.weights == "bfloat16" else values
        there = arrangement.rows[torch.isin(arrangement.where, where)]
        tall = self.unpack(values, more, len(there), columns)
        found = tall.new_zeros(rows, columns)
        found[there[there >= 0]] = tall[there >= 0]
        return found
