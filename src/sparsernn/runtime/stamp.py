"""What the weights of a module were when they were packed, and whether they are so still.

Identity, address and version of each parameter are compared at each call; type, shape and strides by the call's
`signature`, which looks at them anyway. What torch doesn't count as a change (writing through `.data`, or through
numpy) leaves all of these as they were: so compiled code reads a sample of each weight before it begins. A write that
misses every number of the sample stays unseen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structure.held_weights import HeldWeight

_GOLDEN = 0.6180339887498949
_MATRIX, _VECTOR = 32, 8  # numbers of a sample


class Stamp:
    """The parameters of a module as they are now, by name; kept alive, so that no other ones take their place."""

    def __init__(self, parameters: Mapping[str, Tensor | None]) -> None:
        self._names = list(parameters)  # pruning keeps the very parameter, under another name
        self._marks = [_marks(p) for p in parameters.values()]
        own = {id(p): p for p in parameters.values() if p is not None and not isinstance(p, HeldWeight)}
        self.tensors = tuple(own.values())
        self._forms = [(p.shape, p.stride(), p.dtype, p.device) for p in self.tensors]
        self._memory = [p.detach() for p in self.tensors]  # what the sample's addresses belong to
        # Tensors made under inference_mode count no changes: they are compared number by number.
        self._copies = [(p, p.clone()) for p in self.tensors if p.is_inference()]
        found = [pair for p in self.tensors if p.numel() for pair in _sample(p.detach())]
        self.sample = torch.tensor(found, dtype=torch.int64, device="cpu").view(-1, 2)

    def holds(self, parameters: Mapping[str, Any]) -> bool:
        """Whether these are the same parameters, at the same places, unchanged as far as torch counts changes."""
        if list(parameters) != self._names or self._copies:
            return False
        for p, (own, address, version) in zip(parameters.values(), self._marks):
            if p is not own or (version is not None and (p._version != version or p.data_ptr() != address)):
                return False
        return True

    def fits(self, parameters: Mapping[str, Tensor | None]) -> bool:
        """`holds`, and of the same form."""
        marks = [_marks(p) for p in parameters.values()]
        if list(parameters) != self._names:
            return False
        if any(p is not own or rest != before for (p, *rest), (own, *before) in zip(marks, self._marks)):
            return False
        if not all(torch.equal(p, copy) for p, copy in self._copies):
            return False
        return all((p.shape, p.stride(), p.dtype, p.device) == form for p, form in zip(self.tensors, self._forms))

    def unseen(self) -> bool:
        """Whether numbers of the sample changed, which torch may not have counted."""
        return any(ctypes.c_int32.from_address(place).value != bits for place, bits in self.sample.tolist())


def _marks(p: Any) -> tuple[Any, Any, Any]:
    """The parameter, its address and its version; to one that is held once nobody can write."""
    if p is None or isinstance(p, HeldWeight):
        return p, None, None
    return p, p.data_ptr(), -1 if p.is_inference() else p._version


def _sample(weight: Tensor) -> Iterator[tuple[int, int]]:
    """Addresses of some numbers and their bits: of a matrix spread over rows and columns, if possible not zero."""
    rows = weight if weight.dim() == 2 else weight.reshape(1, -1) if weight.is_contiguous() else weight.view(-1, 1)
    height, width = rows.shape
    n = np.arange(_MATRIX if weight.dim() == 2 else _VECTOR)
    at = ((n + 0.5) * height / len(n)).astype(int) if height > 1 else np.zeros(len(n), int)
    shares = (n * _GOLDEN) % 1.0
    there = (rows[torch.from_numpy(at)] != 0).numpy()
    full = there.sum(1)
    wanted = (shares * full).astype(int) + 1  # the how-manieth of those that are not zero
    columns = np.where(full > 0, (there.cumsum(1) >= wanted[:, None]).argmax(1), (shares * width).astype(int))
    for place in (weight.data_ptr() + 4 * (at * rows.stride(0) + columns * rows.stride(1))).tolist():
        yield place, ctypes.c_int32.from_address(place).value  # as it stands there: signs may be lazy
