"""How modules that are sparse by design are recorded in a file: split layers and frequency embeddings.

They are built by the caller; a file only says how much of them surgery has left, and is checked against them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import nn

from ..nn.embedding import FrequencyEmbedding
from ._container import Fault, short
from .splits import SPLITS

Shapes = dict[str, tuple[int, ...]]


def describe_sparse(module: nn.Module) -> dict[str, Any] | None:
    """The record of a split layer or a frequency embedding, None for any other module."""
    kind = next((kind for kind in SPLITS if isinstance(module, kind)), None)
    if kind is not None:
        split: Any = module
        segments = [[list(segment) for segment in row] for row in split.segments]
        return {"class": kind.__name__, "input_size": split.input_size, "segments": segments}
    if isinstance(module, FrequencyEmbedding):
        return {"class": "FrequencyEmbedding", "bands": [list(band.shape) for band in module.bands]}
    return None


def check_split(field: str, record: dict[str, Any], module: nn.Module) -> Shapes:
    """The record fits the split layer that the caller built; its components have records of their own."""
    split: Any = module
    kind = next((kind for kind in SPLITS if isinstance(module, kind)), None)
    if kind is None or kind.__name__ != record["class"]:
        raise Fault(f"{field}.class", f"{record['class']}, but the model has a {type(module).__name__} there.")
    size = record.get("input_size")
    if type(size) is not int or not 1 <= size <= split.input_size:
        raise Fault(f"{field}.input_size", f"got {short(size)}, expected a whole number from 1 to {split.input_size}.")
    rows: Any = record.get("segments")
    counts = [len(row) for row in split.segments]
    if not isinstance(rows, list) or [len(row) if isinstance(row, list) else -1 for row in rows] != counts:
        raise Fault(f"{field}.segments", f"got {short(rows)}, expected lists of {counts} segments.")
    for layer, row in enumerate(rows):
        most = split.layer_input_size(layer)
        for n, pair in enumerate(row):
            whole = isinstance(pair, list) and [type(part) for part in pair] == [int, int]
            if not whole or not 0 <= pair[0] < pair[1] <= most:
                expected = f"begin and end within 0 to {most}"
                raise Fault(f"{field}.segments[{layer}][{n}]", f"got {short(pair)}, expected {expected}.")
    return {}


def check_embedding(field: str, record: dict[str, Any], module: nn.Module) -> Shapes:
    """Shapes of the bands and of the table of ranks at the recorded sizes."""
    if not isinstance(module, FrequencyEmbedding):
        raise Fault(f"{field}.class", f"{record['class']}, but the model has a {type(module).__name__} there.")
    bands: Any = record.get("bands")
    dense = [tuple(band.shape) for band in module.bands]
    whole = isinstance(bands, list) and all(
        isinstance(band, list) and [type(part) for part in band] == [int, int] for band in bands
    )
    if not whole or [band[0] for band in bands] != [band[0] for band in dense]:
        raise Fault(f"{field}.bands", f"got {short(bands)}, expected words and columns of {len(dense)} bands.")
    for n, ((_, width), (_, most)) in enumerate(zip(bands, dense)):
        if not min(1, most) <= width <= most:
            raise Fault(f"{field}.bands[{n}]", f"got {width} columns, expected at most {most}.")
    if any(a[1] < b[1] for a, b in pairwise(bands)):
        raise Fault(f"{field}.bands", "a band is wider than the one before it.")
    return {f"band_{n}": (size, width) for n, (size, width) in enumerate(bands)} | {"rank": (module.num_embeddings,)}


def settle(place: str, record: dict[str, Any], module: Any) -> None:
    """After all tensors are in place: a split layer takes its sizes, an embedding's table of ranks is checked."""
    try:
        if isinstance(module, SPLITS):
            module.resize(record["input_size"], record["segments"])
        elif isinstance(module, FrequencyEmbedding):
            module.check_rank()
    except ValueError as error:
        raise Fault(f"modules.{place}", str(error)) from None


CHECKS: dict[str, Callable[[str, dict[str, Any], nn.Module], Shapes]] = {
    **{kind.__name__: check_split for kind in SPLITS},
    "FrequencyEmbedding": check_embedding,
}
