"""Numbers to run a file on: each axis that may change at several sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .graph import Given
from .operators.table import DTYPES

LARGEST = 2**24  # numbers in an input


def sizes_to_try(inputs: Sequence[Given]) -> Iterator[tuple[bool, dict[str, int]]]:
    """(whether another one shall follow that works, size of each axis by its name).

    Every axis differently, then all alike, from small to long, since some files need a hundred samples."""
    names = sorted({label(given, n) for given in inputs for n, size in enumerate(given.shape or ()) if _free(size)})
    for base in (2, 5, 16, 40, 1, 128, 600, 4000):
        yield True, {name: base + n for n, name in enumerate(names)}
        if len(names) > 1:
            yield True, dict.fromkeys(names, base)
            yield True, {name: 1 if name in ("batch", "batch_size", "N", "axis 0") else base for name in names}


def label(given: Given, axis: int) -> str:
    """The name of an axis: axes of one name have one size. The first without a name is taken for the batch."""
    size = (given.shape or ())[axis]
    return size if isinstance(size, str) else f"axis {axis}"


def drawn(inputs: Sequence[Given], sizes: dict[str, int], seed: int, model: nn.Module) -> list[Tensor] | None:
    """Random inputs; whole numbers are at least 1 and small enough for every table of the model."""
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    above = max(2, min([3, *tables]))
    generator = torch.Generator("cpu").manual_seed(seed)
    found = []
    for given in inputs:
        shape = [sizes[label(given, n)] if _free(size) else int(size or 0) for n, size in enumerate(given.shape or ())]
        count = 1
        for size in shape:
            count *= size
        if count > LARGEST:
            return None
        kind = DTYPES.get(given.kind, torch.float32)
        if kind.is_floating_point:
            found.append(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(kind))
        elif kind == torch.bool:
            found.append(torch.rand(shape, generator=generator, device="cpu") < 0.5)
        else:
            found.append(torch.randint(1, above, shape, generator=generator, device="cpu").to(kind))
    return found


def _free(size: int | str | None) -> bool:
    return not isinstance(size, int)
