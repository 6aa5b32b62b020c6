"""Measuring the costs of the layouts on this machine, for `costs.choose`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from rich.table import Table

from ..files import write_atomically
from .compiled import function
from .costs import FAR, LAYOUTS, NEAR, Costs, Precision, as_json, count, current, offered, tuned_file
from .pack import WIDTH, Arrangement, unit_rows
from .processor import processor

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ROWS, COLUMNS, MANY = 1024, 256, 32


def tune(keep: bool = True) -> Costs:
    """Measure the costs of every layout that this processor has (some seconds, one thread) and, with `keep`, write them
    to the cache folder, where this and later processes find them."""
    known = {name for precision in PRECISIONS for name in offered(precision)}
    generator = torch.Generator("cpu").manual_seed(0)
    measured: dict[str, Any] = {"bandwidth": tuple(_bandwidth(size) for size in (NEAR // 2, FAR // 2, 4 * FAR))}
    measured["call"] = _call()
    defaults = Costs()
    for name in LAYOUTS:
        measured[name] = _pair(name, generator) if name in known else getattr(defaults, name)
    costs = Costs(**{f.name: measured.get(f.name, f.default) for f in fields(Costs)})
    if keep:
        keep_costs(costs)
    return costs


def keep_costs(costs: Costs) -> Path | None:
    """Write `costs` to the cache folder, where this and later processes find them; None without such a folder.

    Raises OSError where the file can't be written.
    """
    path = tuned_file()
    if path is not None:
        write_atomically(path, as_json(costs))
        current.cache_clear()
    return path


def as_table(costs: Costs, built_in: Costs) -> Table:
    """The costs beside the built-in ones, in nanoseconds; bandwidth in bytes a nanosecond."""
    known = {name for precision in PRECISIONS for name in offered(precision)}
    table = Table(title=f"{processor().width} floats a vector", title_justify="left")
    table.add_column("layout")
    for column in ("a step (ns)", "each input (ns)", "built-in"):
        table.add_column(column, justify="right")
    for name in LAYOUTS:
        pair = [f"{value:.3g}" for value in getattr(costs, name)] if name in known else ["not on this processor", ""]
        table.add_row(name, *pair, " / ".join(f"{value:.3g}" for value in getattr(built_in, name)))
    near, middle, far = costs.bandwidth
    table.caption = (
        f"Reads {near:.0f} bytes a nanosecond nearby, {middle:.0f} from the last cache, {far:.0f} from memory."
    )
    return table


def _pair(layout: str, generator: torch.Generator) -> tuple[float, float]:
    density = 1.0 if layout.startswith("panel") else 0.4 if layout.startswith("bitmask") else 0.1
    shape = (ROWS // WIDTH, 1, COLUMNS) if layout.startswith("blocks") else (ROWS // WIDTH, WIDTH, COLUMNS)
    keep = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < density
    weight = (
        torch.randn(ROWS // WIDTH, WIDTH, COLUMNS, generator=generator, dtype=torch.float32, device="cpu") * keep
    ).view(ROWS, COLUMNS)
    rows, where = unit_rows(ROWS, 1, (0,), 1)
    arrangement = Arrangement(rows, where, None, rows.numel())
    packed, counts = LAYOUTS[layout](weight, arrangement), count(weight, arrangement)
    kernel = function(packed.name, 7)
    scratch = torch.empty(packed.scratch, dtype=torch.uint8, device="cpu")

    def nanoseconds(inputs: int) -> float:
        x, y = (
            torch.randn(inputs, COLUMNS, generator=generator, dtype=torch.float32, device="cpu"),
            torch.zeros(inputs, rows.numel(), dtype=torch.float32, device="cpu"),
        )
        arguments = (packed.plan, x.data_ptr(), COLUMNS * 4, inputs, y.data_ptr(), y.stride(0) * 4, scratch.data_ptr())
        return _best(lambda: kernel(*arguments), 40)

    one, many = nanoseconds(1), nanoseconds(MANY)
    if layout == "rows":
        # One group of inputs costs load + use, the MANY = 2 WIDTH of two groups load + 2 use (on 16 lanes).
        groups, pairs = math.ceil(MANY / WIDTH), math.ceil(MANY / 2 / WIDTH)
        use = max(0.0, (many - pairs * one) / max(groups - pairs, 1)) / counts.weights
        return max(0.0, one / counts.weights - use), use
    steps = {
        "permuted": counts.tables * counts.slots,
        "permuted_bfloat16": counts.tables * counts.slots,
        "bitmask": counts.block_rows * COLUMNS,
        "bitmask_bfloat16": counts.block_rows * COLUMNS,
        "panel_int8": counts.block_rows * -(-COLUMNS // 4),
        "blocks_int8": counts.words,
    }.get(layout, counts.blocks)
    return one / steps, many / MANY / steps


def _call() -> float:
    """Nanoseconds that a call of the smallest layer takes, nearly all of them in Python."""
    from .classes import put_on_kernels  # the modules need the costs

    layer = torch.nn.GRU(1, 1, dtype=torch.float32, device="cpu").eval().requires_grad_(False)
    x = torch.zeros(1, 1, 1, dtype=torch.float32, device="cpu")
    put_on_kernels(layer)
    with torch.no_grad():
        return _best(lambda: layer(x), 200)


def _bandwidth(size: int) -> float:
    """Bytes a nanosecond that one core reads from `size` bytes, again and again."""
    x = torch.ones(size // 4, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return size / _best(x.sum, max(3, (8 << 20) // size))
    finally:
        torch.set_num_threads(threads)


def _best(call: Callable[[], Any], number: int) -> float:
    """Nanoseconds of the quickest of several timings."""
    found = []
    for _ in range(9):
        start = time.perf_counter_ns()
        for _ in range(number):
            call()
        found.append((time.perf_counter_ns() - start) / number)
    return min(found)
