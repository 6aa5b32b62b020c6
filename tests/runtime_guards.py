"""Buffers between guards, which must not change; a read of them as numbers would give NaN. Calls of kernels count."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from sparsernn.runtime import linear, packed_layer, stack, stream
from sparsernn.runtime.compiled import function
from sparsernn.runtime.layout import Layout

GUARD = 64  # numbers on either side of a buffer
CANARY = 0x7FC0DEAD  # a NaN as float32, far outside of everything as an index


class Guards:
    """Buffers between canaries, and how often kernels were called on them."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.whole: list[tuple[Tensor, int, int]] = []
        self.calls = 0

    def counted(self, name: str, arguments: int) -> Callable[..., Any]:
        """Kernel `name`, each of whose calls counts."""
        kernel = function(name, arguments)

        def called(*given: Any) -> Any:
            self.calls += 1
            return kernel(*given)

        return called

    def around(self, value: Tensor) -> Tensor:
        """A contiguous copy of `value` between guards."""
        size = value.numel() * value.element_size()
        words = -(-size // 4)
        # Buffers of numbers begin anywhere; int64 ones at a multiple of 8 bytes.
        before = GUARD + (2 * self.draw.randrange(8) if value.element_size() == 8 else self.draw.randrange(16))
        whole = torch.full((before + words + GUARD,), CANARY, dtype=torch.int32)
        inner = whole[before : before + words].view(torch.uint8)[:size].view(value.dtype).view(value.shape)
        inner.copy_(value)
        self.whole.append((whole, before, words))
        return inner

    def check(self) -> None:
        for whole, before, words in self.whole:
            assert (whole[:before] == CANARY).all() and (whole[before + words :] == CANARY).all(), "a guard was written"


class _Torch:
    """torch, with buffers between guards."""

    def __init__(self, guards: Guards) -> None:
        self.empty = lambda *size, **more: guards.around(torch.empty(*size, **more))
        self.zeros = lambda *size, **more: guards.around(torch.zeros(*size, **more))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def guarded(draw: random.Random) -> Iterator[Guards]:
    """All buffers, outputs and packed matrices that are made inside stand between guards."""
    guards = Guards(draw)
    finish: Callable[..., Any] = Layout.packed
    new_empty = Tensor.new_empty

    def packed(
        own: Layout, values: Tensor, blocks: Tensor, columns: int, arrangement: Any, *rest: Any, **more: Any
    ) -> Any:
        rest = tuple(guards.around(r) if isinstance(r, Tensor) else r for r in rest)
        return finish(own, guards.around(values), blocks, columns, arrangement, *rest, **more)

    with (
        patch.object(packed_layer, "torch", _Torch(guards)),
        patch.object(stack, "torch", _Torch(guards)),
        patch.object(stream, "torch", _Torch(guards)),
        patch.object(linear, "torch", _Torch(guards)),
        patch.object(stack, "function", guards.counted),
        patch.object(stream, "function", guards.counted),
        patch.object(linear, "function", guards.counted),
        patch.object(Layout, "packed", packed),
        patch.object(Tensor, "new_empty", lambda own, *size, **more: guards.around(new_empty(own, *size, **more))),
    ):
        yield guards
    guards.check()
