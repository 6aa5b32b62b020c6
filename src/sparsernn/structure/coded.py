"""A matrix in few bytes: whole numbers with one scale a row, or plain numbers, and a mask of the blocks that are there.

The numbers stand in the order of the rows whatever processor they are for, so files hold them as they are; nothing in
them is an index, so nothing can point out of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

BLOCKS = ((1, 1), (16, 1), (16, 4))  # height and width of what one bit of a mask tells of
_TYPES = {4: torch.uint8, 8: torch.int8, 16: torch.bfloat16, 32: torch.float32}
_LARGEST = {4: 7, 8: 127}  # on either side of zero


@dataclass(frozen=True)
class Form:
    """How the numbers of a matrix are held.

    bits: 4 or 8 (whole numbers, of 4 bits two to a byte), 16 (bfloat16) or 32 (float32). block: what a bit of the mask
    tells of, one of `BLOCKS`; None: all numbers are there. tile: rows within which blocks stand, those of a gate.
    """

    bits: int
    block: tuple[int, int] | None
    tile: int

    @property
    def whole(self) -> bool:
        return self.bits <= 8

    def grid(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Tiles, and blocks of each along its rows and columns."""
        high, wide = self.block or (1, 1)
        return rows // self.tile, -(-self.tile // high), -(-columns // wide)

    def parts(self, rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Type and shape of the tensors of such a matrix; of its values, under a mask, the most that there can be."""
        count = rows * columns
        found: dict[str, Any] = {"values": (_TYPES[self.bits], (-(-count // 2) if self.bits == 4 else count,))}
        if self.whole:
            found["scales"] = torch.float32, (rows,)
        if self.block is not None:
            tiles, high, wide = self.grid(rows, columns)
            found["mask"] = torch.uint8, (-(-tiles * high * wide // 8),)
        return found


@dataclass(frozen=True)
class CodedMatrix:
    """Weights (rows, columns). Immutable: copies of a model share it."""

    shape: tuple[int, int]
    form: Form
    values: Tensor
    scales: Tensor | None = None
    mask: Tensor | None = None

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def parts(self) -> dict[str, Tensor]:
        named = {"values": self.values, "scales": self.scales, "mask": self.mask}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def there(self) -> Tensor:
        """bool (rows, columns): where a number is held."""
        rows, columns = self.shape
        if self.mask is None or self.form.block is None:
            return torch.ones(rows, columns, dtype=torch.bool, device="cpu")
        tiles, high, wide = self.form.grid(rows, columns)
        bits = np.unpackbits(self.mask.numpy(), count=tiles * high * wide, bitorder="little")
        return _spread(torch.from_numpy(bits.view(bool)).view(tiles, high, wide), self.form, columns)

    def numbers(self) -> Tensor:
        """(rows, columns) in int8, bfloat16 or float32, before any scale."""
        values = self.values
        if self.form.bits == 4:
            values = torch.stack([values & 15, values >> 4], 1).view(-1).to(torch.int8) - 8
        rows, columns = self.shape
        if self.mask is None:
            return values[: rows * columns].view(rows, columns)
        there = self.there()
        found = torch.zeros(rows, columns, dtype=values.dtype, device="cpu")
        found[there] = values[: int(there.sum())]
        return found

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as plain numbers."""
        numbers = self.numbers()
        if self.scales is None:
            return numbers.to(dtype)
        work = torch.float64 if dtype == torch.float64 else torch.float32
        return numbers.to(work).mul_(self.scales.to(work).unsqueeze(1)).to(dtype)

    def finite(self) -> bool:
        numbers = self.values if self.scales is None else self.scales
        return bool(numbers.isfinite().all())

    def fault(self) -> str:
        """What is wrong with numbers that come from a file, whose parts have the types and shapes of the form."""
        rows, columns = self.shape
        count = rows * columns
        if self.mask is not None:
            tiles, high, wide = self.form.grid(rows, columns)
            bits = np.unpackbits(self.mask.numpy(), bitorder="little")
            if bits[tiles * high * wide :].any():
                return "the mask tells of blocks beyond the matrix"
            count = int(self.there().sum())
        held = -(-count // 2) if self.form.bits == 4 else count
        if self.values.numel() != held:
            return f"got {self.values.numel()} values, expected {held} for what the mask tells of"
        if self.form.bits == 4:
            low, high_ = self.values & 15, self.values >> 4
            padding = bool(count % 2) and int(high_[-1]) != 8
            if padding or bool((low == 0).any()) or bool((high_ == 0).any()):
                return "a number is out of -7 to 7"
        if self.form.bits == 8 and bool((self.values == -128).any()):
            return "a number is out of -127 to 127"
        if self.scales is not None and not bool((self.scales.isfinite() & (self.scales >= 0)).all()):
            return "a scale is negative, NaN or infinite"
        return ""


def coded(numbers: Tensor, scales: Tensor | None = None, tile: int = 0) -> CodedMatrix:
    """`numbers` (rows, columns), int8 with scales or bfloat16 or float32 without, in the form of the fewest bytes.

    Zeros lose their sign.
    """
    rows, columns = numbers.shape
    there = numbers != 0
    bits = 8 * numbers.element_size()
    if scales is not None and numbers.numel() and int(numbers.abs().max()) <= _LARGEST[4]:
        bits = 4
    found: tuple[int, Form, Tensor | None] = (rows * columns * bits, Form(bits, None, tile or rows), None)
    for block in BLOCKS:
        form = Form(bits, block, tile or rows)
        grid = _gathered(there, form)
        size = int(_spread(grid, form, columns).sum()) * bits + grid.numel()
        if size < found[0]:
            found = size, form, grid
    _, form, grid = found
    mask = None
    values = numbers.reshape(-1)
    if grid is not None:
        mask = torch.from_numpy(np.packbits(grid.view(-1).numpy(), bitorder="little"))
        values = numbers[_spread(grid, form, columns)]
    if bits == 4:
        shifted = torch.cat([values + 8, values.new_full((len(values) % 2,), 8)]).to(torch.uint8).view(-1, 2)
        values = shifted[:, 0] | (shifted[:, 1] << 4)
    elif bits > 8:
        values = values + 0.0  # which has no sign where it was -0.0
    return CodedMatrix((rows, columns), form, values.contiguous(), scales, mask)


def uncut(numbers: Tensor, scales: Tensor | None = None) -> CodedMatrix:
    """`numbers` (rows, columns) as they are, in the memory where they are: zeros are held as well."""
    rows, columns = numbers.shape
    return CodedMatrix((rows, columns), Form(8 * numbers.element_size(), None, rows), numbers.reshape(-1), scales)


def dense(weight: Any) -> Tensor:
    """Plain numbers of a tensor or of what gives them by its `dense`."""
    return weight if isinstance(weight, Tensor) else weight.dense()


def _gathered(there: Tensor, form: Form) -> Tensor:
    """bool (tiles, blocks, blocks): which blocks have anything in them."""
    assert form.block is not None
    (tiles, high, wide), (h, w) = form.grid(*_pair(there.shape)), form.block
    full = there.view(tiles, form.tile, there.shape[1])
    full = torch.nn.functional.pad(full, (0, wide * w - full.shape[2], 0, high * h - full.shape[1]))
    return full.view(tiles, high, h, wide, w).any(4).any(2).contiguous()


def _spread(grid: Tensor, form: Form, columns: int) -> Tensor:
    """The opposite: bool (rows, columns), each block as a whole."""
    assert form.block is not None
    full = grid.repeat_interleave(form.block[0], 1)[:, : form.tile]
    full = full.repeat_interleave(form.block[1], 2)[..., :columns]
    return full.reshape(-1, columns)


def _pair(shape: Sequence[int]) -> tuple[int, int]:
    rows, columns = shape
    return rows, columns
