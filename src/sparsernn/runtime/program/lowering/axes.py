"""Walking several tensors of one shape together: the fewest axes that do."""

from __future__ import annotations

from collections.abc import Sequence

Axis = tuple[int, tuple[int, ...]]  # its size, and for each tensor the bytes from one element to the next


def together(shape: Sequence[int], steps: Sequence[Sequence[int]], keep_order: bool = False) -> list[Axis]:
    """The axes of tensors of one `shape`, outermost first: those of size 1 gone, those that follow each other in every
    tensor made one, in the order that the last tensor has in memory (keep_order: as they come)."""
    axes = [(size, tuple(s[n] for s in steps)) for n, size in enumerate(shape) if size != 1]
    if not keep_order:
        axes.sort(key=lambda axis: -abs(axis[1][-1]))
    found: list[Axis] = []
    for size, step in axes:
        if found and all(outer == inner * size for outer, inner in zip(found[-1][1], step)):
            found[-1] = found[-1][0] * size, step
        else:
            found.append((size, step))
    return found


def side_by_side(shape: Sequence[int], item: int = 4) -> tuple[int, ...]:
    """The bytes from element to element of a tensor without gaps."""
    steps, step = [], item
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))
