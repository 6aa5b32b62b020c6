"""What a training with `Rewire` takes of memory, with dense and with sparse storage."""

from __future__ import annotations

import json
import subprocess
import sys

from .measure import Ceiling, Row

UNITS, LAYERS, SPARSITY = 1500, 2, 0.9
KINDS = (("dense", "random"), ("sparse", "random"), ("dense", "gradient"), ("sparse", "gradient"))

# Runs in a process of its own: four steps, the second and the fourth of which move weights.
_PROGRAM = """
import ctypes, gc, json, os, sys
import torch
import sparsernn as srn

torch.set_num_threads(1)
torch.manual_seed(0)
storage, grow, units, layers, sparsity = *sys.argv[1:3], *map(int, sys.argv[3:5]), float(sys.argv[5])


def size(found):
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


def of_process(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1]) * 1024


def peak_begins():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")


def step(model, optimizer):
    peak_begins()
    optimizer.zero_grad()
    model(x)[0].square().mean().backward()
    optimizer.step()
    return of_process("VmHWM") - before


def tensors():
    gc.collect()
    return [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]


x = torch.randn(5, 8, units)
small = torch.nn.LSTM(units, 16)
step_of = torch.optim.Adam(small.parameters())
before = 0
step(small, step_of)  # code that is loaded once is no model's
del small, step_of
peak_begins()
before, others = of_process("VmRSS"), size(tensors())
model = torch.nn.LSTM(units, units, layers)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
rewiring = srn.Rewire(model, None, sparsity, steps=100, every=2, grow=grow, storage=storage).attach(optimizer)
peaks = [step(model, optimizer) for _ in range(4)]
own = list(model.parameters())
state = [v for p in own for v in optimizer.state[p].values()]
parts = [size(own), size([p.grad for p in own]), size(state)]
peak_begins()
print(json.dumps([*parts, size(tensors()) - others - sum(parts), of_process("VmRSS") - before, peaks[2], peaks[3]]))
"""
COLUMNS = ("parameters", "gradients", "state", "beside", "process", "peak", "peak, moving")


def storage(ceiling: Ceiling, rounds: int) -> list[Row]:
    """MiB of a training by Adam that is sparse from the first step: what is held after a step, and its peak."""
    rows: list[Row] = []
    for kind, grow in KINDS:
        command = [sys.executable, "-c", _PROGRAM, kind, grow, str(UNITS), str(LAYERS), str(SPARSITY)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = dict(zip(COLUMNS, (size / 2**20 for size in json.loads(done.stdout.splitlines()[-1]))))
        held = sum(found[name] for name in COLUMNS[:3])
        row: Row = {"work": f"LSTM, {LAYERS} x {UNITS} units, {100 * SPARSITY:g}% gone, Adam, {kind}, grow by {grow}"}
        dense = rows[-1] if kind == "sparse" else None
        row |= {name: round(size, 1) for name, size in found.items()}
        row["held, MiB"], row["held with what is beside, MiB"] = round(held, 1), round(held + found["beside"], 1)
        for name in ("held", "held with what is beside"):
            row[f"{name}, of dense"] = round(row[f"{name}, MiB"] / dense[f"{name}, MiB"], 3) if dense else 1.0
        rows.append(row)
    return rows
