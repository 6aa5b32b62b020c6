"""What a device that listens all day asks: steps of a long stream, its memory and error, and the start of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn

from .measure import Ceiling, Row

STEPS, UNITS = 10_000, 200
FORMS = (("dense", "float32"), ("16x1 blocks 90%", "float32"), ("dense", "int8"))
CELLS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN, "RHN, depth 5": lambda *sizes: srn.nn.RHN(*sizes, depth=5)}

# Runs in a process of its own: a user's program up to the first output of a stream, the import of torch apart.
_PROGRAM = """
import sys, time
import torch
start = time.perf_counter()
import sparsernn
imported = time.perf_counter()
model = torch.nn.LSTM(200, 200).eval()
stream = sparsernn.accelerate(model, sys.argv[1]).stream(1, torch.zeros(3, 1, 200))
stream.step(torch.zeros(1, 200))
print(imported - start, time.perf_counter() - start)
"""


def endurance(ceiling: Ceiling, rounds: int) -> list[Row]:
    """10,000 steps of a stream of each cell: time of a step, memory, error."""
    return [_stream(cell, weights, precision) for cell in CELLS for weights, precision in FORMS]


def start(ceiling: Ceiling, rounds: int) -> list[Row]:
    """The start of a process up to a stream's first output, with compiled kernels on disk and without."""
    return [_start(precision, max(3, rounds // 3)) for precision in ("float32", "int8")]


def _model(cell: str, weights: str) -> nn.Module:
    torch.manual_seed(0)
    model = CELLS[cell](UNITS, UNITS).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1).mul_(1.2 / p.shape[-1] ** 0.5 if p.dim() > 1 else 0.2)
            if weights != "dense" and p.dim() == 2:
                rows, columns = p.shape
                kept = torch.rand(-(-rows // 16), columns) < 0.1
                p.mul_(kept.repeat_interleave(16, 0)[:rows])
    return model


def _stream(cell: str, weights: str, precision: Any) -> Row:
    """One stream: times of all its steps, memory between the 100th step and the last, error against float64."""
    model = _model(cell, weights)
    x = torch.randn(STEPS, 1, UNITS)
    fast = srn.accelerate(model, precision)
    outputs = torch.zeros(STEPS, UNITS).fill_(1)  # written to, so that its memory is counted before
    stream = fast.stream(1, x[:3])
    lasted = lasting(stream, list(x.unbind(0)), lambda t, y: outputs[t].copy_(y[0]))
    whole: Tensor = fast(x)[0][:, 0]
    exact: Tensor = model.double()(x.double())[0][:, 0]
    return {
        "work": f"{cell}, {UNITS} units, {weights}, {precision}",
        **lasted,
        "from the whole call": float((outputs - whole).abs().max()),
        "from float64": float((outputs - exact).abs().max()),
    }


def lasting(stream: Any, frames: Sequence[Tensor], seen: Callable[[int, Any], Any] = lambda t, y: None) -> Row:
    """Memory between the 100th of these steps and the last, then, from the start again, the times of all of them.

    seen: called with the number and the output of each step.
    """
    times = torch.empty(len(frames), dtype=torch.float64)
    begin, rest = frames[:100], frames[100:]
    tracemalloc.start()
    for t, frame in enumerate(begin):
        seen(t, stream.step(frame))
    held, traced = resident(), tracemalloc.get_traced_memory()[0]  # to look at one takes a bit of the other
    for t, frame in enumerate(rest, start=100):
        seen(t, stream.step(frame))
    held, traced = resident() - held, tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    stream.reset()
    for t, frame in enumerate(frames):
        start = time.perf_counter()
        stream.step(frame)
        times[t] = time.perf_counter() - start
    p50, p99, worst = (float(times.quantile(q)) * 1e6 for q in (0.5, 0.99, 1.0))
    return {
        "steps": len(frames),
        "p50, us": round(p50, 2),
        "p99, us": round(p99, 2),
        "worst, us": round(worst, 1),
        "Python bytes grown": traced,
        "resident bytes grown": held,
    }


def resident() -> int:
    """Bytes of this process in memory, 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _start(precision: str, processes: int) -> Row:
    """Seconds from `import sparsernn` to a stream's first output: the first process and the quickest of later ones."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SPARSERNN_CACHE": folder}
        found = []
        for _ in range(1 + processes):
            command = [sys.executable, "-c", _PROGRAM, precision]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.append([float(word) for word in done.stdout.split()])
    later = min(found[1:], key=lambda pair: pair[1])
    return {
        "work": f"LSTM, {UNITS} units, {precision}",
        "first process, s": round(found[0][1], 3),
        "later process, s": round(later[1], 3),
        "its imports, s": round(later[0], 3),
    }
