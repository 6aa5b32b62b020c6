"""Which layout a matrix gets: a small table of costs, in nanoseconds, and what it predicts.

The built-in numbers were measured on one core with AVX-512; only their proportions matter, and those travel.
`measure` in tune.py takes them anew on the machine at hand.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..structure.coded import dense
from .held import numbers_of, rounded
from .kept import cache_folder
from .pack import (
    WIDTH,
    Arrangement,
    Packed,
    best_slots,
    pack_bitmask,
    pack_blocks,
    pack_blocks_int8,
    pack_panels,
    pack_panels_int8,
    pack_permuted,
    pack_rows,
)
from .processor import processor
from .weights import Weight

Precision = Literal["float32", "bfloat16", "int8"]
Precisions = Precision | Mapping[str, Precision]  # of a module: of all its layers, or by their names ("l0_reverse")
Pair = tuple[float, float]

LAYOUTS: dict[str, Callable[[Any, Arrangement], Packed]] = {
    "panel": pack_panels,
    "blocks": pack_blocks,
    "rows": pack_rows,
    "permuted": pack_permuted,
    "bitmask": pack_bitmask,
    "panel_bfloat16": lambda weight, arrangement: pack_panels(weight, arrangement, half=True),
    "blocks_bfloat16": lambda weight, arrangement: pack_blocks(weight, arrangement, half=True),
    "permuted_bfloat16": lambda weight, arrangement: pack_permuted(weight, arrangement, half=True),
    "bitmask_bfloat16": lambda weight, arrangement: pack_bitmask(weight, arrangement, half=True),
    "panel_int8": pack_panels_int8,
    "blocks_int8": pack_blocks_int8,
}


def precision_of(said: Precisions, layer: str) -> Precision:
    """Of one layer of a module."""
    return said[layer] if isinstance(said, Mapping) else said


def offered(precision: Precision) -> list[str]:
    """Layouts for a precision on this processor; single weights are bfloat16 at the least, by rows float32."""
    ending = "" if precision == "float32" or (precision == "int8" and not processor().vnni) else f"_{precision}"
    half = "_bfloat16" if ending else ""
    single = [f"permuted{half}"] if processor().permute else []
    return [f"panel{ending}", f"blocks{ending}", "rows", *single] + ([f"bitmask{half}"] if processor().expand else [])


@dataclass(frozen=True)
class Costs:
    """Pairs (load, use) in nanoseconds: of one step of the layout however many inputs share it, and for each input;
    the larger of the two counts. A step is one column of one block of rows (panel, blocks), four columns of it
    (int8), one slot of a table (permuted), one column of a block of rows with its mask (bitmask). `rows`: one weight,
    for every 2 WIDTH and for every WIDTH inputs, added. `left`: a weight that found no slot, for each input. `move`:
    bringing one number of an input into a layout's order, or to int8. `gates`: gates and state of one block of WIDTH
    units of a row. `call`: a call of a module in Python, its kernels apart. `bandwidth`: bytes a nanosecond, from the
    second-level cache, from the third and from memory.
    """

    panel: Pair = (0.7, 0.135) if WIDTH == 16 else (0.55, 0.135)
    blocks: Pair = (0.85, 0.31) if WIDTH == 16 else (1.15, 0.31)
    rows: Pair = (0.12, 0.30)
    permuted: Pair = (1.1, 0.42)
    bitmask: Pair = (0.92, 0.43) if WIDTH == 16 else (0.95, 0.75)
    panel_bfloat16: Pair = (0.34, 0.135)
    blocks_bfloat16: Pair = (0.77, 0.31)
    permuted_bfloat16: Pair = (0.9, 0.42)
    bitmask_bfloat16: Pair = (0.95, 0.44) if WIDTH == 16 else (0.95, 0.75)
    panel_int8: Pair = (0.6, 0.155)
    blocks_int8: Pair = (1.0, 0.27)
    left: float = 0.8
    move: float = 0.35
    gates: float = 30.0 if WIDTH == 16 else 20.0
    call: float = 5000.0
    bandwidth: tuple[float, float, float] = (90.0, 60.0, 30.0) if WIDTH == 16 else (60.0, 45.0, 28.0)


NEAR, FAR = 1 << 20, 16 << 20


@dataclass(frozen=True)
class Counts:
    """What the costs depend on, of one matrix in one arrangement."""

    columns: int
    block_rows: int
    blocks: int  # WIDTH x 1 blocks with a non-zero weight
    words: int  # WIDTH x 4 blocks with a non-zero weight
    weights: int
    slots: int
    left: int

    @property
    def tables(self) -> int:
        return self.block_rows * -(-self.columns // (2 * WIDTH))


def count(weight: Tensor, arrangement: Arrangement) -> Counts:
    """Count what stays of `weight`."""
    full = torch.cat([weight != 0, torch.zeros(1, weight.shape[1], dtype=torch.bool, device="cpu")])[arrangement.rows]
    full = full[full.any(2).any(1)]
    tall = full.any(1)
    padded = torch.nn.functional.pad(full, (0, -weight.shape[1] % (2 * WIDTH)))
    tables = padded.shape[2] // (2 * WIDTH)
    histogram = torch.bincount(padded.view(len(full), WIDTH, tables, 2 * WIDTH).sum(-1).view(-1), minlength=1)
    slots = best_slots(histogram, len(full) * tables)
    left = int(((torch.arange(len(histogram), dtype=torch.int64, device="cpu") - slots).clamp(min=0) * histogram).sum())
    words = int(padded.any(1).view(len(full), padded.shape[2] // 4, 4).any(2).sum())
    return Counts(weight.shape[1], len(full), int(tall.sum()), words, int(full.sum()), slots, left)


def predict(layout: str, c: Counts, inputs: int, costs: Costs) -> float:
    """Nanoseconds of one product of `inputs` rows."""
    load, use = getattr(costs, layout)
    each = max(load, use * inputs)
    vector, moves = 4 * WIDTH, inputs
    if layout == "rows":
        each = load * math.ceil(inputs / 2 / WIDTH) + use * math.ceil(inputs / WIDTH)
        compute, size = 1.05 * c.weights * each, 8 * c.weights
    elif layout.startswith("permuted"):
        compute = c.tables * c.slots * each + c.left * costs.left * inputs
        size = c.tables * c.slots * ((vector // 2 if layout.endswith("16") else vector) + WIDTH) + 12 * c.left
    elif layout.startswith("bitmask"):
        steps, moves = c.block_rows * c.columns, 0
        compute, size = steps * each, steps * (WIDTH // 8) + c.weights * (2 if layout.endswith("16") else 4)
    elif layout == "panel_int8":
        steps = c.block_rows * -(-c.columns // 4)
        compute, size = steps * each, steps * vector
    elif layout == "blocks_int8":
        compute, size = c.words * each, c.words * (vector + 4)
    elif layout.startswith("panel"):
        steps, moves = c.block_rows * c.columns, 0
        compute, size = steps * each, steps * (vector // 2 if layout.endswith("16") else vector)
    else:
        moves = inputs if inputs > 1 else 0
        compute, size = c.blocks * each, c.blocks * ((vector // 2 if layout.endswith("16") else vector) + 4)
    return max(compute, size / costs.bandwidth[(size > NEAR) + (size > FAR)]) + moves * c.columns * costs.move


@functools.cache
def current() -> Costs:
    """The costs of this machine where `tune` measured them, else the built-in ones."""
    path = tuned_file()
    found = Costs()
    try:
        said = json.loads(path.read_text()) if path else {}
        for name, usual in asdict(found).items():
            pair = isinstance(usual, tuple)
            numbers = [float(n) for n in (said[name] if pair else [said[name]])]
            fits = len(numbers) == len(usual) and isinstance(said[name], list) if pair else True
            if not fits or not all(0 <= n < math.inf for n in numbers) or (name == "bandwidth" and 0 in numbers):
                return Costs()
            found = replace(found, **{name: tuple(numbers) if pair else numbers[0]})
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Costs()
    return found


def tuned_file() -> Path | None:
    """Where measured costs are kept; None without a cache folder."""
    folder = cache_folder()
    return None if folder is None else folder / f"costs-{processor().width}.json"


def as_json(costs: Costs) -> str:
    return json.dumps(asdict(costs), indent=1) + "\n"


@dataclass(frozen=True)
class Choice:
    layout: str
    nanoseconds: float


def choose(counts: Counts, inputs: int, precision: Precision = "float32", costs: Costs | None = None) -> Choice:
    """The layout that costs least for products of `inputs` rows."""
    known = offered(precision)
    cost = {name: predict(name, counts, inputs, costs or current()) for name in known}
    best = min(known, key=cost.__getitem__)
    # Dense panels are the surest: another layout has to be worth it.
    if cost[best] > 0.9 * cost[known[0]]:
        best = known[0]
    return Choice(best, cost[best])


class Matrix:
    """One weight matrix: packed in a layout at the first batch that asks for it, and kept."""

    def __init__(self, weight: Weight, arrangement: Arrangement, precision: Precision = "float32") -> None:
        # Rounded before any layout is chosen.
        self.source = rounded(weight, precision)
        self.arrangement = arrangement
        self.precision: Precision = precision
        self.counts = count(numbers_of(self.source), arrangement)
        self._packed: dict[str, Packed] = {}

    def choose(self, inputs: int) -> Choice:
        return choose(self.counts, inputs, self.precision)

    def packed(self, layout: str) -> Packed:
        if layout not in self._packed:
            source = self.source if layout.endswith("int8") else dense(self.source).float()
            self._packed[layout] = LAYOUTS[layout](source, self.arrangement)
        return self._packed[layout]
