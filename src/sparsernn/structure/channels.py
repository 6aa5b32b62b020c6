"""Channels: who owns and who reads each hyperplane of each parameter, and which channels stand or fall together.

A channel is one unit of a recurrent layer, one row of a linear layer, one column of an embedding. A *plane* is a
hyperplane of a parameter: (parameter, axis, index). Channels that touch one plane, or that the model adds or
multiplies with one another, are joined in a union-find: they can only be removed together. Channel 0 is "none".
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from torch import Tensor

PLAIN, UNIT, ROW = 0, 1, 2  # kinds of channels: anything else, unit of a recurrent layer, row of a linear layer


class Because(Enum):
    """The kind of a reason: decisions go by this, sentences are for people."""

    MEANING = "the model's own meaning"  # no weight reads the unit, or the caller gets it: nothing could be followed
    NOT_FOLLOWED = "not followed"  # tracing does not know what happens to it
    CHECK_FAILED = "check failed"  # tracing was wrong, as numbers show
    NOT_REACHED = "not reached"  # no example ran it


@dataclass(frozen=True)
class Reason:
    """Why a channel has to stay: a sentence, the operation, the source line that called it, and of what kind it is."""

    text: str
    operation: str
    where: str
    because: Because
    advice: str = ""  # what to do about it


@dataclass
class Planes:
    """All planes of one parameter along one axis, as vectors over the index."""

    channel: np.ndarray  # the first channel that touched the plane, 0: none
    owner: np.ndarray  # the channel whose value is computed from it, 0: none
    read: np.ndarray  # some channel is read through it
    value: np.ndarray  # zero here (on all planes of an owner with this mark) makes the owner's value zero
    sites: list[tuple[str, str]] = field(default_factory=list)  # (operation, where) of the readers


class Channels:
    def __init__(self) -> None:
        self.count = 1
        self._parent = np.zeros(1, dtype=np.int64)
        self.kind = np.zeros(1, dtype=np.int8)
        self.shifted = np.zeros(1, dtype=bool)  # a zero value does not stay zero on its way to the readers
        self._blocks: dict[Hashable, int] = {}
        self.planes: dict[tuple[int, int], Planes] = {}
        self.reasons: list[tuple[Tensor, Reason]] = []
        self._seen_reasons: set[tuple[bytes, Reason]] = set()
        self.dots: list[tuple[np.ndarray, np.ndarray, Reason]] = []
        self._seen_dots: set[bytes] = set()
        self.ties: dict[tuple[Hashable, Hashable], tuple[str, str]] = {}
        self.looped: dict[int, tuple[str, str]] = {}  # parameters that take in their own results, and where
        self.carried: list[np.ndarray] = []  # channels that are carried from step to step without a matrix
        self.chained: dict[tuple[int, int], set[tuple[int, int]]] = {}  # planes of factors that make one matrix
        # Parameters that are divided by a norm of their own: the axes that it leaves apart, and where.
        self.norms: dict[int, tuple[frozenset[int], tuple[str, str]]] = {}

    def block(self, key: Hashable, size: int, kind: int = PLAIN) -> int:
        """First id of `size` channels known as `key`: the same ids at every call."""
        if key not in self._blocks:
            self._blocks[key] = self.count
            self._parent = np.concatenate([self._parent, np.arange(self.count, self.count + size)])
            self.kind = np.concatenate([self.kind, np.full(size, kind, dtype=np.int8)])
            self.shifted = np.concatenate([self.shifted, np.zeros(size, dtype=bool)])
            self.count += size
        return self._blocks[key]

    def first(self, key: Hashable) -> int | None:
        """First id of the block `key`, or None if it was never made."""
        return self._blocks.get(key)

    def key_of(self, channel: int) -> Hashable:
        return max(((base, key) for key, base in self._blocks.items() if base <= channel), default=(0, None))[1]

    def find(self, ids: np.ndarray) -> np.ndarray:
        roots = self._parent[ids]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[ids] = roots
        return roots

    def union(self, a: np.ndarray, b: np.ndarray, site: tuple[str, str] | None = None) -> None:
        """Join a[i] with b[i] for every i (all of them real channels)."""
        first = True
        while True:
            roots_a, roots_b = self.find(a), self.find(b)
            differ = roots_a != roots_b
            if not differ.any():
                return
            if first and site is not None:
                at = int(np.flatnonzero(differ)[0])
                self.ties.setdefault((self.key_of(int(a[at])), self.key_of(int(b[at]))), site)
            first = False
            high = np.maximum(roots_a, roots_b)[differ]
            np.minimum.at(self._parent, high, np.minimum(roots_a, roots_b)[differ])

    def has_unit(self, label: Tensor) -> bool:
        """Whether a recurrent unit is among the channels, or tied to one of them."""
        units = self.find(np.flatnonzero(self.kind == UNIT))
        return bool(np.isin(self.find(distinct(label)), units).any())

    def within(self, label: Tensor, other: Tensor) -> bool:
        """Whether each channel of `label` is one of `other`, or tied to one."""
        return bool(np.isin(self.find(distinct(label)), self.find(distinct(other))).all())

    def keep(self, label: Tensor | None, reason: Reason) -> None:
        """Every channel in `label` has to stay."""
        ids = distinct(label)
        mark = (ids.tobytes(), reason)
        if len(ids) and mark not in self._seen_reasons:
            self._seen_reasons.add(mark)
            self.reasons.append((torch.from_numpy(ids), reason))

    def shift(self, label: Tensor | None) -> None:
        """A zero value of these channels is not zero any more where it is read."""
        self.shifted[distinct(label)] = True

    def touch(
        self,
        parameter: int,
        axis: int,
        size: int,
        index: np.ndarray,
        ids: np.ndarray,
        *,
        own: bool,
        value: bool = False,
        read: bool = True,
        site: tuple[str, str] | None = None,
    ) -> None:
        """Channel ids[i] owns (or else is read by) plane index[i] of `parameter` along `axis` (of `size`).

        `read=False`: it only goes together with the plane, whose values don't matter.
        """
        real = ids != 0
        index, ids = index[real], ids[real]
        if not len(ids):
            return
        planes = self.planes.get((parameter, axis))
        if planes is None:
            numbers, flags = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=bool)
            planes = self.planes[parameter, axis] = Planes(numbers, numbers.copy(), flags, flags.copy())
        # Two channels of this very call may meet on one plane: let the last write stand, then join all with it.
        fresh = planes.channel[index] == 0
        planes.channel[index[fresh]] = ids[fresh]
        self.union(planes.channel[index], ids)
        if own:
            unowned = planes.owner[index] == 0
            planes.owner[index[unowned]] = ids[unowned]
            planes.value[index] |= value
        elif read:
            planes.read[index] = True
            if site is not None and site not in planes.sites:
                planes.sites.append(site)

    def chain(self, a: tuple[int, int], b: tuple[int, int]) -> None:
        """Two (parameter, axis) are rows and columns of one matrix: what the one reads, the other computes from."""
        for one, other in ((a, b), (b, a)):
            self.chained.setdefault(one, set()).add(other)

    def norm(self, parameter: int, apart: Collection[int], site: tuple[str, str]) -> None:
        """`parameter` is divided by a norm of its own, taken over all axes but those in `apart`."""
        known, site = self.norms.get(parameter, (frozenset(apart), site))
        self.norms[parameter] = (known & frozenset(apart), site)

    def dot(self, a: np.ndarray, b: np.ndarray, reason: Reason) -> None:
        """a[i] is multiplied with b[i] and summed up over i: they go together, and only where one of them is zero."""
        mark = a.tobytes() + b"|" + b.tobytes()
        if mark not in self._seen_dots:
            self._seen_dots.add(mark)
            self.union(a, b, (reason.operation, reason.where))
            self.dots.append((a, b, reason))


def distinct(label: Tensor | None) -> np.ndarray:
    """The channels in `label`, sorted, without 0."""
    if label is None:
        return np.zeros(0, dtype=np.int64)
    ids = np.unique(narrow_expanded(label)[0].numpy())
    return ids[ids != 0]


def narrow_expanded(*tensors: Tensor) -> list[Tensor]:
    """The tensors (all of one shape) without the axes along which every one of them is expanded (stride 0)."""
    out = list(tensors)
    for axis in range(out[0].dim()):
        if out[0].shape[axis] > 1 and all(t.stride(axis) == 0 for t in out):
            out = [t.narrow(axis, 0, 1) for t in out]
    return out


def pairs(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs (a[i], b[i]) with both of them real channels; a and b have one shape."""
    a, b = narrow_expanded(a, b)
    flat_a, flat_b = a.reshape(-1).numpy(), b.reshape(-1).numpy()
    both = (flat_a != 0) & (flat_b != 0)
    found = np.unique(np.stack([flat_a[both], flat_b[both]], axis=1), axis=0)
    return np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1])
