"""Measuring the costs of the layouts on this machine, for `costs.choose`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from rich.table import Table

from ..files import write_atomically
from .compiled import function
from .costs import FAR, NEAR, Costs, as_json, count, current, tuned_file
from .held import Precision
from .layout import Layout, Pair
from .layouts import LAYOUTS, offered
from .pack import WIDTH, Arrangement, unit_rows
from .processor import processor

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ROWS, COLUMNS, MANY = 1024, 256, 32


def tune(keep: bool = True) -> Costs:
    """Measure the costs of every layout that this processor has (some seconds, one thread) and, with `keep`, write them
    to the cache folder, where this and later processes find them."""
    known = _known()
    generator = torch.Generator("cpu").manual_seed(0)
    bandwidth = _bandwidth(NEAR // 2), _bandwidth(FAR // 2), _bandwidth(4 * FAR)
    call = _call()
    pairs = {name: _pair(each, generator) if name in known else each.costs for name, each in LAYOUTS.items()}
    costs = Costs(pairs, call=call, bandwidth=bandwidth)
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
    known = _known()
    table = Table(title=f"{processor().width} floats a vector", title_justify="left")
    table.add_column("layout")
    for column in ("a step (ns)", "each input (ns)", "built-in"):
        table.add_column(column, justify="right")
    for name in LAYOUTS:
        pair = [f"{value:.3g}" for value in costs.layouts[name]] if name in known else ["not on this processor", ""]
        table.add_row(name, *pair, " / ".join(f"{value:.3g}" for value in built_in.layouts[name]))
    near, middle, far = costs.bandwidth
    table.caption = (
        f"Reads {near:.0f} bytes a nanosecond nearby, {middle:.0f} from the last cache, {far:.0f} from memory."
    )
    return table


def _known() -> set[str]:
    """Names of the layouts that this processor has."""
    return {name for precision in PRECISIONS for name in offered(precision)}


def _pair(layout: Layout, generator: torch.Generator) -> Pair:
    shape = (ROWS // WIDTH, 1 if layout.tall else WIDTH, COLUMNS)
    keep = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < layout.density
    weight = (
        torch.randn(ROWS // WIDTH, WIDTH, COLUMNS, generator=generator, dtype=torch.float32, device="cpu") * keep
    ).view(ROWS, COLUMNS)
    rows, where = unit_rows(ROWS, 1, (0,), 1)
    arrangement = Arrangement(rows, where, None, rows.numel())
    packed, counts = layout.pack(weight, arrangement), count(weight, arrangement)
    kernel = function(packed.name, 7)
    scratch = torch.empty(packed.scratch, dtype=torch.uint8, device="cpu")

    def nanoseconds(inputs: int) -> float:
        x, y = (
            torch.randn(inputs, COLUMNS, generator=generator, dtype=torch.float32, device="cpu"),
            torch.zeros(inputs, rows.numel(), dtype=torch.float32, device="cpu"),
        )
        arguments = (packed.plan, x.data_ptr(), COLUMNS * 4, inputs, y.data_ptr(), y.stride(0) * 4, scratch.data_ptr())
        return _best(lambda: kernel(*arguments), 40)

    return layout.fitted(counts, nanoseconds(1), nanoseconds(MANY), MANY)


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
