"""Shadows: for every tensor of a forward pass, which channel each element carries and which weight it is.

A shadow's `label` is an int64 tensor of the tensor's shape (0: no channel), expanded with stride 0 along batch and
time, where it costs nothing. `weights` tells, for tensors that are (views, slices, concatenations, sums of)
parameters or buffers, which element of which parameter each element is: index tensors [number, i0, i1, ...], again
expanded. Movement (view, cat, slicing, packing, ...) is the same torch function run on the index tensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

SUMMED = -1  # index along an axis of a parameter over which a product summed

Weight = tuple[Tensor, ...]  # (number, i0, i1, ...), each of the shadowed tensor's shape


@dataclass(frozen=True)
class Shadow:
    label: Tensor | None = None
    weights: tuple[Weight, ...] = ()
    state: bool = False  # a state (h_n, c_n) that a recurrent layer handed out
    zero: bool = False  # known to be zero everywhere
    magnitude: bool = False  # a weight none of whose numbers is negative: it was squared, or its sign taken away
    factors: tuple[Tensor, Tensor] | None = None  # labels of the two activations of which this is the product

    def __bool__(self) -> bool:
        return self.label is not None or bool(self.weights) or self.zero

    @property
    def is_weight(self) -> bool:
        """A weight and nothing else: it may stand on a weight's side of a product."""
        return self.label is None and bool(self.weights)


NONE = Shadow()


def weight_shadow(number: int, shape: Iterable[int]) -> Shadow:
    """The shadow of parameter `number` itself."""
    shape = tuple(shape)
    parts = [torch.tensor(number).expand(shape)]
    for axis, size in enumerate(shape):
        view = [-1 if a == axis else 1 for a in range(len(shape))]
        parts.append(torch.arange(size).view(view).expand(shape))
    return Shadow(weights=(tuple(parts),))


def expand_constant(index: Tensor) -> Tensor:
    """`index` with stride 0 along each axis on which it does not vary: small, and quick to reduce."""
    for axis in range(index.dim()):
        if index.shape[axis] > 1 and index.stride(axis) != 0:
            first = index.narrow(axis, 0, 1)
            if bool((index == first).all()):
                index = first.expand(index.shape)
    return index


def collapse(label: Tensor, axes: Iterable[int]) -> tuple[Tensor, bool]:
    """The label reduced over `axes` (kept with size 1), and whether all channels along them agree (0 agrees)."""
    out, agree = label, True
    for axis in axes:
        if out.shape[axis] == 0:
            return torch.zeros_like(out.narrow(axis, 0, 0)).sum(axis, keepdim=True), agree
        if out.stride(axis) == 0 or out.shape[axis] == 1:
            out = out.narrow(axis, 0, 1)
            continue
        top = out.amax(axis, keepdim=True)
        agree = agree and bool(((out == top) | (out == 0)).all())
        out = top
    return out, agree


def varies(label: Tensor, axis: int) -> bool:
    return not collapse(label, [axis])[1]


def constant(label: Tensor, axis: int) -> bool:
    """Whether one and the same channel stands at every place along `axis`."""
    return label.stride(axis) == 0 or label.shape[axis] <= 1 or bool((label == label.narrow(axis, 0, 1)).all())


def fit(index: Tensor, shape: torch.Size) -> Tensor:
    """`index` broadcast to `shape`."""
    return index.expand(np.broadcast_shapes(tuple(index.shape), tuple(shape)))  # torch's own imports sympy: seconds


def grow(weight: Weight, length: int) -> Weight:
    """`weight` with as many index tensors as `length`: missing axes are 0."""
    return weight + tuple(torch.zeros(1, dtype=torch.long).expand(weight[0].shape) for _ in range(length - len(weight)))


class ShadowStore:
    """Shadows by tensor identity; tensors that were written in place, by storage, so that views see the writing.

    Another tensor object over memory that is known (an alias that code made outside torch's functions) is recognised by
    its storage and view. All tensors are held, so that neither ids nor storages are used again.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Shadow]] = {}
        self._written: dict[int, tuple[Tensor, Tensor]] = {}  # storage pointer -> (a tensor of it, flat labels)
        self._views: dict[Hashable, Tensor] = {}  # storage and view -> a tensor; built where an unknown tensor turns up
        self._indexed = 0

    def know(self, tensor: Tensor, shadow: Shadow = NONE) -> None:
        self._known[id(tensor)] = (tensor, shadow)

    def is_known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._known

    def recognise(self, tensor: Tensor) -> Tensor | None:
        """The known tensor whose memory `tensor`, unknown as an object, shows: from now on it has that shadow."""
        for known, _ in islice(self._known.values(), self._indexed, None):
            self._views.setdefault(_view(known), known)
            memory = _pointer(known), known.dtype
            widest = self._views.get(memory)
            if memory[0] and not _overlaps(known) and (widest is None or widest.numel() < known.numel()):
                self._views[memory] = known
        self._indexed = len(self._known)
        view, pointer = _view(tensor), _pointer(tensor)
        source = self._views.get(view) if pointer else None
        if source is not None and _view(source) == view:
            self.know(tensor, self._known[id(source)][1])
            return source
        source = self._views.get((pointer, tensor.dtype)) if pointer else None
        if source is None or _pointer(source) != pointer:
            return None
        shadow = self._known[id(source)][1]
        if _seen(torch.zeros(1, dtype=torch.long).expand(source.shape), source, tensor) is None:
            return None  # memory that the known tensor does not show
        label = None if shadow.label is None else _seen(shadow.label, source, tensor)
        parts = tuple(tuple(_seen(p, source, tensor) for p in w) for w in shadow.weights)
        self.know(tensor, replace(shadow, label=label, weights=parts, factors=None))
        return source

    def get(self, tensor: Tensor) -> Shadow:
        shadow = self._known[id(tensor)][1] if id(tensor) in self._known else NONE
        written = self._written.get(_pointer(tensor)) if self._written and tensor.numel() else None
        if written is None:
            return shadow
        label = written[1].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        label = expand_constant(label.clone())
        return Shadow(label=label if bool(label.any()) else None, weights=shadow.weights, state=shadow.state)

    def carries(self, tensor: Tensor) -> bool:
        known = self._known.get(id(tensor))
        return bool(known and known[1]) or bool(self._written and _pointer(tensor) in self._written)

    def write(self, tensor: Tensor, label: Tensor | None) -> None:
        """`tensor` (perhaps a view) was overwritten by values that carry `label` (None: no channel)."""
        place = self.open(tensor, force=label is not None)
        if place is not None:
            place.copy_(torch.zeros((), dtype=torch.long) if label is None else label)

    def open(self, tensor: Tensor, *, force: bool) -> Tensor | None:
        """The labels of `tensor`, to be written in place; None if there are none yet and `force` is off."""
        pointer = _pointer(tensor)
        if pointer not in self._written:
            if not force and not self._any_label(tensor):
                return None
            flat = torch.zeros(tensor.untyped_storage().nbytes() // tensor.element_size(), dtype=torch.long)
            for source in (tensor._base, tensor):
                old = None if source is None else self._known.get(id(source), (None, NONE))[1].label
                if source is not None and old is not None:
                    flat.as_strided(source.shape, source.stride(), source.storage_offset()).copy_(old)
            self._written[pointer] = (tensor, flat)
        return self._written[pointer][1].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _any_label(self, tensor: Tensor) -> bool:
        sources = (tensor, tensor._base)
        return any(s is not None and id(s) in self._known and self._known[id(s)][1].label is not None for s in sources)


def _view(tensor: Tensor) -> Hashable:
    """Storage and view of a tensor; its own identity where it has no memory."""
    pointer = _pointer(tensor)
    if not pointer:
        return id(tensor)
    return pointer, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def _overlaps(tensor: Tensor) -> bool:
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride()))


def _seen(index: Tensor, source: Tensor, tensor: Tensor) -> Tensor | None:
    """What `tensor` shows of `index`, which belongs to `source`, another view of its memory; None where that ends."""
    nothing = -(1 << 62)
    flat = torch.full((source.untyped_storage().nbytes() // source.element_size(),), nothing, dtype=torch.long)
    flat.as_strided(source.shape, source.stride(), source.storage_offset()).copy_(index)
    found = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return None if bool((found == nothing).any()) else expand_constant(found.clone())


def _pointer(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without a storage
        return 0
