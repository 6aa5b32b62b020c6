"""What an accelerated model takes of memory, beside the bytes of its packed weights."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsernn as srn

from .measure import Ceiling, Row

UNITS, LAYERS = 1500, 2
FORMS = (("dense", "float32"), ("dense", "bfloat16"), ("dense", "int8"), ("16x1 blocks 90%", "float32"))

# Runs in a process of its own. Both files hold the same model, a plain and an accelerated one.
_PROGRAM = """
import ctypes, gc, json, os, sys
import torch
import sparsernn as srn

torch.set_num_threads(1)
plain, fast, precision, how, units, layers = *sys.argv[1:5], *map(int, sys.argv[5:])
x = torch.randn(1, 1, units)
small = torch.nn.LSTM(units, 16).eval()
srn.accelerate(small, precision)(x)  # code that is loaded once is no model's
del small


def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors():
    gc.collect()
    found = [t for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter) and not t.is_meta]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


with torch.device("meta"):
    model = torch.nn.LSTM(units, units, layers)
before = resident(), tensors()
if how == "load":
    model = srn.load(model, fast)
else:
    model = srn.accelerate(srn.load(model, plain).eval(), precision, keep_weights=how == "kept")
model(x)
packed = sum(p.bytes for row in model._engine.layers(model, 1, 1) for layer in row for p in layer.products)
print(json.dumps([packed, tensors() - before[1], resident() - before[0]]))
"""
HOW = {"kept": "accelerate", "once": "accelerate, keep_weights=False", "load": "load"}


def memory(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Memory of an accelerated model over the bytes of its packed weights: its tensors, and growth of the process."""
    return [row for weights, precision in FORMS for row in _rows(weights, precision)]


def _rows(weights: str, precision: Any) -> list[Row]:
    torch.manual_seed(0)
    model = nn.LSTM(UNITS, UNITS, LAYERS).eval()
    if weights != "dense":
        for p in (p for p in model.parameters() if p.dim() == 2):
            kept = torch.rand(4, -(-UNITS // 16), UNITS) < 0.1
            p.view(4, UNITS, UNITS).mul_(kept.repeat_interleave(16, 1)[:, :UNITS])
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plain, fast = Path(folder, "plain"), Path(folder, "fast")
        srn.save(model, plain)
        srn.save(srn.accelerate(model, precision), fast)
        for how, name in HOW.items():
            command = [sys.executable, "-c", _PROGRAM, str(plain), str(fast), precision, how, str(UNITS), str(LAYERS)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            packed, tensors, resident = json.loads(done.stdout.splitlines()[-1])
            found.append(
                {
                    "work": f"LSTM, {LAYERS} x {UNITS} units, {weights}, {precision}",
                    "how": name,
                    "packed, MiB": round(packed / 2**20, 1),
                    "tensors": round(tensors / packed, 3),
                    "process": round(resident / packed, 3),
                }
            )
    return found
