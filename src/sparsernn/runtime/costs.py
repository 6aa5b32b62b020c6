"""Which layout a matrix gets: a small table of costs, in nanoseconds, and what it predicts.

The numbers were measured on one core with AVX-512; only their proportions matter, and those travel. `measure` in
tune.py takes them anew on the machine at hand.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from .compiled import cache_folder
from .pack import WIDTH, Arrangement, Packed, best_slots, pack_blocks, pack_panels, pack_permuted, pack_rows
from .processor import processor

LAYOUTS = {"panel": pack_panels, "blocks": pack_blocks, "rows": pack_rows, "permuted": pack_permuted}


@dataclass(frozen=True)
class Costs:
    """Nanoseconds for one vector of weights (panel, blocks), one weight (rows) or one slot of a table (permuted):
    `*_load` however many inputs share it, `*_use` for each input. `rows_use` is for each WIDTH inputs, `left_use` for
    each weight that found no slot, `move` for bringing one number of one input into the layout's order.
    """

    panel_load: float = 0.55
    panel_use: float = 0.135
    blocks_load: float = 1.15
    blocks_use: float = 0.31
    rows_load: float = 0.12
    rows_use: float = 0.30
    permuted_load: float = 1.1
    permuted_use: float = 0.42
    left_use: float = 0.8
    move: float = 0.35
    near_bytes: float = 60.0  # bytes a nanosecond from the second-level cache
    far_bytes: float = 30.0  # and from beyond


NEAR = 1 << 20


@dataclass(frozen=True)
class Counts:
    """What the costs depend on, of one matrix in one arrangement."""

    columns: int
    block_rows: int
    blocks: int  # WIDTH x 1 blocks with a non-zero weight
    weights: int
    slots: int
    left: int

    @property
    def tables(self) -> int:
        return self.block_rows * -(-self.columns // (2 * WIDTH))


def count(weight: Tensor, arrangement: Arrangement) -> Counts:
    """Count what stays of `weight`."""
    full = torch.cat([weight != 0, torch.zeros(1, weight.shape[1], dtype=torch.bool)])[arrangement.rows]
    tall = full.any(1)
    alive = tall.any(1)
    padded = torch.nn.functional.pad(full[alive], (0, -weight.shape[1] % (2 * WIDTH)))
    cells = padded.view(padded.shape[0], WIDTH, padded.shape[2] // (2 * WIDTH), 2 * WIDTH).sum(-1)
    histogram = torch.bincount(cells.view(-1), minlength=1)
    slots = best_slots(histogram, cells.shape[0] * cells.shape[2])
    left = int(((torch.arange(len(histogram)) - slots).clamp(min=0) * histogram).sum())
    return Counts(weight.shape[1], int(alive.sum()), int(tall.sum()), int(full.sum()), slots, left)


def predict(layout: str, counts: Counts, inputs: int, costs: Costs) -> float:
    """Nanoseconds of one product of `inputs` rows."""
    c = counts
    if layout == "panel":
        vectors = c.block_rows * c.columns
        compute, size, moves = vectors * max(costs.panel_load, costs.panel_use * inputs), vectors * WIDTH * 4, 0
    elif layout == "blocks":
        compute = c.blocks * max(costs.blocks_load, costs.blocks_use * inputs)
        size, moves = c.blocks * (WIDTH * 4 + 4), inputs if inputs > 1 else 0
    elif layout == "rows":
        each = costs.rows_load * math.ceil(inputs / 2 / WIDTH) + costs.rows_use * math.ceil(inputs / WIDTH)
        compute = 1.05 * c.weights * each
        size, moves = 8 * c.weights, inputs
    else:
        compute = (
            c.tables * c.slots * max(costs.permuted_load, costs.permuted_use * inputs)
            + c.left * costs.left_use * inputs
        )
        size, moves = c.tables * c.slots * WIDTH * 5 + 12 * c.left, inputs
    rate = costs.near_bytes if size <= NEAR else costs.far_bytes
    return max(compute, size / rate) + moves * c.columns * costs.move


@functools.cache
def current() -> Costs:
    """The costs of this machine where `tune` measured them, else the built-in ones."""
    path = tuned_file()
    try:
        said = json.loads(path.read_text()) if path else {}
        return Costs(**{f.name: float(said[f.name]) for f in fields(Costs)})
    except (OSError, ValueError, KeyError, TypeError):
        return Costs()


def tuned_file() -> Path | None:
    """Where measured costs are kept; None without a cache folder."""
    folder = cache_folder()
    return None if folder is None else folder / f"costs-{processor().width}.json"


def as_json(costs: Costs) -> str:
    return json.dumps(asdict(costs), indent=1)


@dataclass(frozen=True)
class Choice:
    layout: str
    nanoseconds: float


def choose(counts: Counts, inputs: int, costs: Costs | None = None) -> Choice:
    """The layout that costs least for products of `inputs` rows."""
    costs = costs or current()
    known = [name for name in LAYOUTS if name != "permuted" or processor().permute]
    cost = {name: predict(name, counts, inputs, costs) for name in known}
    best = min(known, key=cost.__getitem__)
    # Dense panels are the surest: another layout has to be worth it.
    if cost[best] > 0.9 * cost["panel"]:
        best = "panel"
    return Choice(best, cost[best])


class Matrix:
    """One weight matrix: packed in a layout at the first batch that asks for it, and kept."""

    def __init__(self, weight: Tensor, arrangement: Arrangement) -> None:
        self.weight, self.arrangement = weight.float(), arrangement
        self.counts = count(self.weight, arrangement)
        self._packed: dict[str, Packed] = {}

    def choose(self, inputs: int) -> Choice:
        return choose(self.counts, inputs)

    def packed(self, layout: str) -> Packed:
        if layout not in self._packed:
            self._packed[layout] = LAYOUTS[layout](self.weight, self.arrangement)
        return self._packed[layout]
