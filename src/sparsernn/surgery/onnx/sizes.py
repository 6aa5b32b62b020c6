"""Which axes of a model's inputs may change, found by changing them; and the same inputs in other sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Axis = tuple[int, int]  # input, axis
Attempt = Callable[[Sequence[Tensor]], "tuple[Tensor, ...] | Exception"]
_MORE = (1, 2, 5)
_MANY = 1500  # sets of axes tried one by one


@dataclass(frozen=True)
class Together:
    """Axes that change together. `size`: that of the example. `step`: its multiples may be added; 1 for most models."""

    axes: tuple[Axis, ...]
    size: int
    step: int = 1

    def far(self) -> list[int]:
        """Sizes to check: no neighbours of the example's, and those that broadcast."""
        n = self.size
        wanted = [1, 3, n // 2, n + 2, 2 * n + 1, 8 * n] if self.step == 1 else [n // 2, 2 * n, 3 * n, 8 * n]
        return [size for size in dict.fromkeys(wanted) if size not in (0, n)]


def free_axes(inputs: Sequence[Tensor], attempt: Attempt) -> list[Together]:
    """Sets of axes that may grow together, smallest sets first: the batch and time axes of an ordinary model.

    A set has to run at several sizes and change something (a batch that is cut to the number of its lengths changes
    nothing). An axis that does so alone is a set by itself; axes of one size that have to agree, as the batch of an
    input and of its lengths, are one set. Axes that can't change are in none.
    """
    before = attempt(inputs)
    assert isinstance(before, tuple)

    def step(chosen: tuple[Axis, ...]) -> int:
        """By how much the set may grow at least; 0 if it may not."""
        size = inputs[chosen[0][0]].shape[chosen[0][1]]
        for by in dict.fromkeys((1, size)):
            results: list[tuple[Tensor, ...]] = []
            for more in _MORE:
                after = attempt(resized(inputs, [(chosen, size + by * more)]))
                if isinstance(after, Exception):
                    break
                results.append(after)
            if len(results) == len(_MORE) and any(not all(map(alike, before, after)) for after in results):
                return by
        return 0

    by_size: dict[int, list[Axis]] = {}
    for n, value in enumerate(inputs):
        for axis in range(value.dim()):
            by_size.setdefault(value.shape[axis], []).append((n, axis))
    found: list[Together] = []
    for size, group in by_size.items():
        left = group if size else []
        for chosen in _candidates(left):
            if set(chosen) <= set(left) and (by := step(chosen)):
                chosen = _fewest(chosen, step) if len(chosen) > 4 else chosen
                found.append(Together(chosen, size, by))
                left = [axis for axis in left if axis not in chosen]
    return _joined(inputs, found, attempt)


def _candidates(axes: Sequence[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Every set of up to four axes where those are few, then one axis of each input."""
    for count in range(1, 5):
        if sum(1 for _ in zip(itertools.combinations(axes, count), range(_MANY + 1))) <= _MANY:
            yield from itertools.combinations(axes, count)
    own = [[axis for axis in axes if axis[0] == n] for n in dict.fromkeys(n for n, _ in axes)]
    for left_out in [None, *range(len(own))]:
        rest = [choice for n, choice in enumerate(own) if n != left_out]
        yield from itertools.islice((c for c in itertools.product(*rest) if len(c) > 4), _MANY)


def _fewest(chosen: tuple[Axis, ...], step: Callable[[tuple[Axis, ...]], int]) -> tuple[Axis, ...]:
    for axis in chosen:
        rest = tuple(other for other in chosen if other != axis)
        if rest and step(rest):
            chosen = rest
    return chosen


def _joined(inputs: Sequence[Tensor], sets: list[Together], attempt: Attempt) -> list[Together]:
    """Sets of size 1 that only broadcast against each other, as one: they agree wherever both are larger."""

    def runs(*pairs: tuple[Together, int]) -> bool:
        return isinstance(attempt(resized(inputs, [(one.axes, size) for one, size in pairs])), tuple)

    sets = list(sets)
    for a, b in itertools.combinations(list(sets), 2):
        if a.size != b.size or a not in sets or b not in sets or runs((a, a.size + 2), (b, a.size + 3)):
            continue
        if runs((a, a.size + 2), (b, a.size + 2)):
            sets[sets.index(a)] = Together(a.axes + b.axes, a.size)
            sets.remove(b)
    return sets


def resized(inputs: Sequence[Tensor], sizes: Sequence[tuple[Sequence[Axis], int]]) -> list[Tensor]:
    """`inputs` with each set of axes of another size: cut, or the last slice repeated.

    A vector of whole numbers whose largest is the size of an axis that changes holds lengths: they change with it.
    """
    values = list(inputs)
    for axes, new in sizes:
        for n, axis in axes:
            size = values[n].shape[axis]
            values[n] = values[n].index_select(axis, torch.arange(new).clamp(max=size - 1))
            for m, value in enumerate(values):
                if (m, 0) not in axes and value.dim() == 1 and value.dtype in (torch.int64, torch.int32) and len(value):
                    longest = value.max()
                    if longest == size:
                        values[m] = torch.where(value == longest, new, value).clamp(max=new)
    return values


def alike(a: Tensor, b: Tensor) -> bool:
    """The same up to rounding, which another batch size may change; in proportion to the largest."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return bool((a == b).all())
    large = a[torch.isfinite(a)].abs()
    scale = large.max().item() if large.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * scale, equal_nan=False)
