"""Which layout a matrix gets: a small table of costs, in nanoseconds, and what it predicts.

The built-in numbers were measured on one core with AVX-512; only their proportions matter, and those travel.
`tune` in tune.py takes them anew on the machine at hand.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..structure.coded import dense, uncut
from .held import Numbers, Precision, finite, numbers_of, rounded
from .kept import cache_folder
from .layout import Counts, Pair
from .layouts import LAYOUTS, offered
from .order import WIDTH
from .pack import Arrangement, Packed
from .processor import processor
from .weights import Weight


def _built_in() -> dict[str, Pair]:
    return {name: layout.costs for name, layout in LAYOUTS.items()}


@dataclass(frozen=True)
class Costs:
    """`layouts`: of each layout its pair (load, use) in nanoseconds, of which `Layout.compute` says what they are for.
    `move`: bringing one number of an input into a layout's order, or to int8. `gates`: gates and state of one block of
    WIDTH units of a row. `call`: a call of a module in Python, its kernels apart. `bandwidth`: bytes a nanosecond, from
    the second-level cache, from the third and from memory.
    """

    layouts: Mapping[str, Pair] = field(default_factory=_built_in)
    move: float = 0.35
    gates: float = 30.0 if WIDTH == 16 else 20.0
    call: float = 5000.0
    bandwidth: tuple[float, float, float] = (90.0, 60.0, 30.0) if WIDTH == 16 else (60.0, 45.0, 28.0)

    def as_dict(self) -> dict[str, Any]:
        """All costs by name, those of the layouts first."""
        return {**self.layouts, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "layouts"}}


NEAR, FAR = 1 << 20, 16 << 20


def count(weight: Tensor, arrangement: Arrangement) -> Counts:
    """Count what stays of `weight`, (O, I)."""
    full = torch.cat([weight != 0, torch.zeros(1, weight.shape[1], dtype=torch.bool, device="cpu")])[arrangement.rows]
    full = full[full.any(2).any(1)]
    tall = full.any(1)
    fours = torch.nn.functional.pad(tall, (0, -weight.shape[1] % 4))
    words = int(fours.view(len(full), fours.shape[1] // 4, 4).any(2).sum())
    own = {kind: layout.count(full) for kind, layout in {type(each): each for each in LAYOUTS.values()}.items()}
    return Counts(weight.shape[1], len(full), int(tall.sum()), words, int(full.sum()), own)


def predict(name: str, counts: Counts, inputs: int, costs: Costs) -> float:
    """Nanoseconds of one product of `inputs` rows."""
    layout = LAYOUTS[name]
    compute, size = layout.compute(counts, inputs, costs.layouts[name]), layout.read(counts)
    whole = max(compute, size / costs.bandwidth[(size > NEAR) + (size > FAR)])
    return whole + layout.moved(inputs) * counts.columns * costs.move


@functools.cache
def current() -> Costs:
    """The costs of this machine where `tune` measured them, else the built-in ones."""
    path = tuned_file()
    found: dict[str, Any] = {}
    try:
        said = json.loads(path.read_text()) if path else {}
        for name, usual in Costs().as_dict().items():
            pair = isinstance(usual, tuple)
            numbers = [float(n) for n in (said[name] if pair else [said[name]])]
            fits = len(numbers) == len(usual) and isinstance(said[name], list) if pair else True
            if not fits or not all(0 <= n < math.inf for n in numbers) or (name == "bandwidth" and 0 in numbers):
                return Costs()
            found[name] = tuple(numbers) if pair else numbers[0]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Costs()
    layouts = {name: found.pop(name) for name in LAYOUTS}
    return Costs(layouts, **found)


def tuned_file() -> Path | None:
    """Where measured costs are kept; None without a cache folder."""
    folder = cache_folder()
    # 2: rows count what each begins with.
    return None if folder is None else folder / f"costs-2-{processor().width}.json"


def as_json(costs: Costs) -> str:
    return json.dumps(costs.as_dict(), indent=1) + "\n"


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
        self._source: Numbers | None = rounded(weight, precision)
        self._shape, self._like = self._source.shape, _without_numbers(self._source)
        self.arrangement = arrangement
        self.precision: Precision = precision
        self.counts = count(numbers_of(self._source), arrangement)
        self._packed: dict[str, Packed] = {}

    @property
    def source(self) -> Numbers:
        """The weights, rounded; once they are packed, as they are read back from there."""
        source = self._source
        return self._read_back() if source is None else source

    def _read_back(self) -> Numbers:
        layout, packed = next(iter(self._packed.items()))
        values = LAYOUTS[layout].unpacked(packed, self.arrangement, *self._shape)
        scales, dtype = self._like
        if scales is None or values.dtype == torch.int8:
            return values.to(dtype) if scales is None else uncut(values, scales)
        safe = torch.where(scales > 0, scales, 1.0)
        return uncut((values / safe.unsqueeze(1)).round().to(torch.int8), scales)

    @property
    def parts(self) -> tuple[Matrix, ...]:
        """The matrices that it is made of: itself alone (thin.py has those of two)."""
        return (self,)

    def choose(self, inputs: int) -> Choice:
        return choose(self.counts, inputs, self.precision)

    def packed(self, layout: str) -> Packed:
        if layout not in self._packed:
            own = LAYOUTS[layout]
            source = self.source
            self._packed[layout] = own.pack(
                source if own.weights == "int8" else dense(source).float(), self.arrangement
            )
            if self._source is not None and _is_read_back(self._source):
                self._source = None
        return self._packed[layout]


def _without_numbers(source: Numbers) -> tuple[Tensor | None, torch.dtype]:
    """What a packed matrix has to be read back by: scales, and the type of numbers without any."""
    if isinstance(source, Tensor):
        return None, source.dtype
    return source.scales, {16: torch.bfloat16}.get(source.form.bits, torch.float32)


_TINY = 2.0**-100  # beyond such a scale a bfloat16 may have lost digits


def _is_read_back(source: Numbers) -> bool:
    """Whether the packed matrix gives the numbers again, and holding them as well takes bytes: float32 that a parameter
    holds anyway takes none."""
    if isinstance(source, Tensor):
        return source.dtype != torch.float32
    return finite(source) and (source.scales is None or bool(((source.scales == 0) | (source.scales > _TINY)).all()))
