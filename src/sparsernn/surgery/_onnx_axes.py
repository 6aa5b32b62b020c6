"""Which axes of a model's inputs may change, found by changing them; and inputs of other sizes to check with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Axis = tuple[int, int]  # input, axis
Changes = Callable[[Sequence[Tensor]], bool | None]


def free_axes(inputs: Sequence[Tensor], changes: Changes) -> list[tuple[Axis, ...]]:
    """Sets of axes that may grow together, smallest sets first: the batch and time axes of an ordinary model.

    `changes`: whether the model gives something else for such inputs than for `inputs`, None if it can't run on them.
    A set has to run at several sizes and change something (a batch that is cut to the number of its lengths changes
    nothing). An axis that does so alone is a set by itself; axes of one size that have to agree, as the batch of an
    input and of its lengths, are one set. Axes that can't change are in none.
    """

    def free(chosen: tuple[Axis, ...]) -> bool:
        results = [changes(grown(inputs, [chosen], more)) for more in (1, 2, 5)]
        return any(results) and None not in results

    axes = [(n, axis) for n, value in enumerate(inputs) for axis in range(value.dim())]
    found: list[tuple[Axis, ...]] = []
    by_size: dict[int, list[Axis]] = {}
    for n, axis in axes:
        by_size.setdefault(inputs[n].shape[axis], []).append((n, axis))
    for size, group in by_size.items():
        left = group if size else []
        for count in range(1, len(left) + 1):
            if count > 4 and count < len(left):
                continue  # four inputs that share a batch are plenty; beyond, only all together are tried
            for chosen in itertools.combinations(left, count):
                if set(chosen) <= set(left) and free(chosen):
                    found.append(chosen)
                    left = [axis for axis in left if axis not in chosen]
    return found


def grown(inputs: Sequence[Tensor], sets: Sequence[Sequence[Axis]], *more: int) -> list[Tensor]:
    """`inputs` with each set of axes longer by its number in `more`, the last slice repeated.

    A vector of whole numbers whose largest is the size of an axis that grows holds lengths: the longest grow with it.
    """
    values = list(inputs)
    for axes, extra in zip(sets, more, strict=True):
        for n, axis in axes:
            size = values[n].shape[axis]
            index = torch.arange(size + extra).clamp(max=size - 1)
            values[n] = values[n].index_select(axis, index)
            for m, value in enumerate(values):
                if (m, 0) not in axes and value.dim() == 1 and value.dtype in (torch.int64, torch.int32) and len(value):
                    longest = value.max()
                    if longest == size:
                        values[m] = torch.where(value == longest, longest + extra, value)
    return values


def varied(values: Sequence[Tensor], seed: int) -> list[Tensor]:
    """The same sizes with other numbers: noise on floating-point inputs, the entries of whole-number ones mixed."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    for value in values:
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.dtype)
            found.append(value + 0.1 * noise)
        elif value.dim() > 1 and value.dtype != torch.bool:
            order = torch.randperm(value.numel(), generator=generator)
            found.append(value.flatten()[order].view(value.shape))
        else:
            found.append(value)
    return found
