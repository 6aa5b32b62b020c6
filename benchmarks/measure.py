"""One row of a benchmark: our engine against another one, interleaved, with error and share of the roofline."""

from __future__ import annotations

import ctypes
import functools
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from sparsernn.files import write_atomically
from sparsernn.timing import benchmark
from sparsernn_studies.results import surroundings

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"
Row = dict[str, Any]


Call = Callable[[], Any]
clock: Callable[[], float] = time.perf_counter


class Engine(NamedTuple):
    """What is timed, and what gives the output to compare: steps that carry a state start from zero there."""

    call: Call
    check: Call
    target: float | None = None


class Ideal(NamedTuple):
    """The least seconds that the work can take on this core, and what bounds it: "bytes" or "operations"."""

    seconds: float
    bound: str

    def times(self, number: int) -> Ideal:
        """The same work again and again."""
        return Ideal(self.seconds * number, self.bound)


def versus(work: str, ours: Engine, others: dict[str, Engine], ideal: Ideal, rounds: int) -> list[Row]:
    """Rows for `ours` against each of `others`. Of engines named "torch ..." only the fastest counts.

    `roofline` is the share of the ideal that we reach; `at_most` the ratio that the ideal would be.
    """
    result = benchmark(
        {"sparsernn": _taking(ours.call), **{name: _taking(other.call) for name, other in others.items()}},
        torch.zeros(1),
        repeats=rounds,
        console=Console(file=io.StringIO()),
        clock=clock,
    )
    mine, first = torch.as_tensor(ours.check()), result.rows[0]
    found: list[Row] = []
    for row in result.rows[1:]:
        other = torch.as_tensor(others[row.name].check())
        # Another width is another net: there is no error to speak of.
        error = float((other.reshape(mine.shape) - mine).abs().max()) if other.numel() == mine.numel() else None
        found.append(
            {
                "work": work,
                "against": row.name,
                "ratio": round(1 / row.ratio, 3),
                "spread": round(row.spread, 3),
                "max_error": error,
                "roofline": round(ideal.seconds / (first.milliseconds * 1e-3), 3),
                "bound": ideal.bound,
                "at_most": round(first.milliseconds * 1e-3 / ideal.seconds / row.ratio, 3),
                "target": others[row.name].target,
                "ms": round(first.milliseconds, 5),
            }
        )
    fastest = min((r for r in found if r["against"].startswith("torch ")), key=lambda r: r["ratio"], default=None)
    return [r for r in found if not r["against"].startswith("torch ") or r is fastest]


def _taking(call: Call) -> Callable[[Any], Any]:
    return lambda _: call()


class Ceiling:
    """What this core can do, measured here: operations a second, bytes a second by the size that is read, and what
    it takes to call a kernel from Python."""

    def __init__(self) -> None:
        from sparsernn.runtime.compiled import function
        from sparsernn.runtime.layouts import LAYOUTS
        from sparsernn.runtime.pack import Arrangement, unit_rows

        rows, where = unit_rows(64, 1, (0,), 1)
        packed = LAYOUTS["panel"].pack(torch.randn(64, 64), Arrangement(rows, where, None, 64))
        x, y, kernel = torch.randn(300, 64), torch.zeros(300, 64), function(packed.name, 7)
        call = lambda: kernel(packed.plan, x.data_ptr(), 256, 300, y.data_ptr(), 256, 0)  # noqa: E731
        self.operations = 2 * 64 * 64 * 300 / quickest(call, 10, 400)  # short ones fit between what else runs
        nothing = function("chain.chain", 1)
        fields = (ctypes.c_int64 * 3)()
        self._kept, argument = fields, ctypes.c_int64(ctypes.addressof(fields))
        self.call = quickest(lambda: nothing(argument), 500, 200)
        self._bandwidth: dict[int, float] = {}

    def bandwidth(self, size: int) -> float:
        """Bytes a second that this core reads of about `size` bytes, again and again."""
        size = 1 << max(14, size.bit_length())
        if size not in self._bandwidth:
            x, number = np.ones(size // 8, np.int64), max(1, (16 << 20) // size)
            read = _reader()
            self._bandwidth[size] = size * number / quickest(lambda: read(x, number), 1, 60)
        return self._bandwidth[size]

    def ideal(self, operations: float, size: int, reads: float, calls: int = 0) -> Ideal:
        """At least `calls` calls and either `operations`, or reading `size` bytes `reads` times, whichever is more."""
        computing, reading = operations / self.operations, size * reads / self.bandwidth(size)
        bound = "operations" if computing > reading else "bytes"
        return Ideal(calls * self.call + max(computing, reading), bound)


def ideal(ceiling: Ceiling, model: nn.Module, x: Tensor, bytes_each: float) -> Ideal:
    """The roofline, matrix by matrix: operations at the peak, or reading the weights, whichever takes longer; one call.

    Input weights are read once; a recurrent matrix waits for the step before, so it is read in every step, from the
    caches that hold it alone, or in a stream the whole net. int8 (about a byte for each weight) has four times the
    peak: one instruction multiplies four times as many.
    """
    peak = ceiling.operations * (4 if bytes_each < 2 else 1)
    sizes = {name: int(p.count_nonzero()) * bytes_each for name, p in model.named_parameters() if p.dim() == 2}
    seconds = {"operations": 0.0, "bytes": 0.0}
    for name, size in sizes.items():
        again = 1 if "ih" in name else len(x)
        computing = 2.0 * size / bytes_each * len(x) * x.shape[1] / peak
        reading = size * again / ceiling.bandwidth(int(sum(sizes.values()) if len(x) == 1 else size))
        seconds["operations" if computing > reading else "bytes"] += max(computing, reading)
    return Ideal(ceiling.call + sum(seconds.values()), max(seconds, key=lambda bound: seconds[bound]))


@functools.cache
def _reader() -> Callable[[Any, int], int]:
    """Reads an array again and again, in compiled code: sums of whole numbers are as quick as loads."""
    from numba import njit

    @njit
    def read(x: Any, number: int) -> int:
        total = 0
        for _ in range(number):
            for n in range(len(x)):
                total += x[n]
        return total

    return read


def quickest(call: Callable[[], Any], number: int = 1, timings: int = 7) -> float:
    """Seconds of one call, the quickest of several timings of `number` calls."""
    found = []
    for _ in range(timings):
        start = clock()
        for _ in range(number):
            call()
        found.append((clock() - start) / number)
    return min(found)


def show(name: str, rows: list[Row]) -> None:
    """Print the rows and write results/benchmarks/NAME.json."""
    compared = "against" in rows[0]
    Console(width=150).print(_comparison(name, rows) if compared else _figures(name, rows))
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "clock": clock.__name__, "rows": rows, **surroundings()}
    write_atomically(RESULTS / f"{name}.json", json.dumps(content, indent=2) + "\n")


def _figures(name: str, rows: list[Row]) -> Table:
    """Rows that compare with nobody, as they are."""
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "work" else "right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def _comparison(name: str, rows: list[Row]) -> Table:
    table = Table(title=f"{name} (times the speed of the other engine)")
    for column in ("work", "against", "ratio", "spread", "target", "max error", "of the roofline", "ms"):
        table.add_column(column, justify="left" if column in ("work", "against") else "right")
    for row in rows:
        error = "" if row["max_error"] is None else f"{row['max_error']:.1e}"
        target = "" if row["target"] is None else f"{row['target']:g}x"
        reached = row["target"] is None or row["ratio"] >= row["target"]
        ratio = f"{row['ratio']:.2f}x" if reached else f"[bold red]{row['ratio']:.2f}x[/]"
        share = f"{100 * row['roofline']:.0f}%"
        table.add_row(
            row["work"], row["against"], ratio, f"±{50 * row['spread']:.0f}%", target, error, share, f"{row['ms']:.4g}"
        )
    return table


def small_weights(model: nn.Module) -> nn.Module:
    """Weights as after training, so that states are alive."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1).mul_(1.7 / p.shape[-1] ** 0.5 if p.dim() > 1 else 0.2)
    return model.eval()
