"""The C of `export_c`, compiled here, against our own stream and onnxruntime: one step of a small net."""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.export.onnx_step import export_onnx_step

from .measure import Ceiling, Engine, Row, ideal, small_weights, versus
from .tiny import onnx_of

LOOP = 20  # steps of a call: one call from Python costs as much as some steps
GONE = 0.8
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
MANY = """
#include "net.h"
void many(net_state *s, const float *x, float *y, int steps);
void many(net_state *s, const float *x, float *y, int steps)
{
    for (int t = 0; t < steps; ++t)
        net_step(s, x, y);
}
"""
EMX = """
#include "step.c"
void reset(void);
void many(const float *x, float *y, int steps);
static float first[2][96], second[2][57];
static int now;
void reset(void)
{
    memset(first, 0, sizeof first);
    memset(second, 0, sizeof second);
    now = 0;
}
void many(const float *x, float *y, int steps)
{
    for (int t = 0; t < steps; ++t, now ^= 1)
        model((const void *)x, (const void *)first[now], (const void *)second[now],
              (void *)y, (void *)first[now ^ 1], (void *)second[now ^ 1]);
}
"""


class Net(nn.Module):
    """Two GRU layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = small_weights(nn.GRU(40, 96)), small_weights(nn.GRU(96, 57))
        self.head = nn.Linear(57, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)[0])[0])


def thinned(model: nn.Module, level: Any) -> nn.Module:
    """A copy without that share of the blocks of 16 rows and a column, or of the words, as `Prune` takes them."""
    model = copy.deepcopy(model)
    srn.Prune(model, None, GONE, level=level, include="all").finish()
    return model


def in_c(model: nn.Module, x: Tensor, precision: str, target: float | None = None) -> Engine:
    """`LOOP` steps of the C file that `model` becomes."""
    with tempfile.TemporaryDirectory() as folder:
        report = srn.export_c(model, folder, "net", precision=precision)
        (Path(folder) / "many.c").write_text(MANY)
        library = Path(folder) / "net.so"
        sources = [str(Path(folder) / name) for name in ("net.c", "many.c")]
        subprocess.run(["cc", *FLAGS, "-o", str(library), *sources], check=True)
        code = ctypes.CDLL(str(library))
    state = (ctypes.c_char * report["ram"]["state"])()
    given, y = x.flatten().contiguous(), torch.zeros(report["outputs"][0]["shape"])
    address = ctypes.c_void_p(given.data_ptr()), ctypes.c_void_p(y.data_ptr())
    code.net_reset(state)

    def check() -> Tensor:
        code.net_reset(state)
        code.net_step(state, *address)
        return y.clone()

    return Engine(lambda: code.many(state, *address, LOOP), check, target)


def emx(model: nn.Module, x: Tensor) -> Engine:
    """emx-onnx-cgen's C of the step, with the states handed on, compiled as ours is."""
    with tempfile.TemporaryDirectory() as folder:
        step, library = Path(folder) / "step.onnx", Path(folder) / "many.so"
        export_onnx_step(model, step)
        options = ["--input-dim", "batch=1", "--large-weight-threshold", "0"]
        command = [sys.executable, "-m", "emx_onnx_cgen", "compile", str(step), str(step.with_suffix(".c")), *options]
        subprocess.run(command, check=True, capture_output=True)
        (Path(folder) / "many.c").write_text(EMX)
        subprocess.run(["cc", *FLAGS, "-o", str(library), str(Path(folder) / "many.c"), "-lm"], check=True)
        code = ctypes.CDLL(str(library))
    given, y = x.flatten().contiguous(), torch.zeros(1, 10)
    address = ctypes.c_void_p(given.data_ptr()), ctypes.c_void_p(y.data_ptr())

    def check() -> Tensor:
        code.reset()
        code.many(*address, 1)
        return y.clone()

    return Engine(lambda: code.many(*address, LOOP), check, 1 / 0.15)


def streamed(model: nn.Module, x: Tensor, precision: str, target: float | None = None) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a processor without VNNI runs int8 in float32
        stream = srn.accelerate(model, precision).stream()  # type: ignore[arg-type]

    def check() -> Tensor:
        stream.reset()
        return stream.step(x[0]).clone()

    def call() -> None:
        for _ in range(LOOP):
            stream.step(x[0])

    return Engine(call, check, target)


def repeated(engine: Engine, target: float | None = None) -> Engine:
    return Engine(lambda: [engine.call() for _ in range(LOOP)], lambda: engine.check()[0], target)


def export_c(ceiling: Ceiling, rounds: int) -> list[Row]:
    """One step of two GRU layers in C against our own stream, onnxruntime, and blocks and int8 against dense."""
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 1, 40)
    dense = in_c(model, x, "float32")
    others = {
        "stream": streamed(model, x, "float32", 1 / 0.8),
        "onnxruntime": repeated(onnx_of(model, x), 1 / 0.25),
    }
    if importlib.util.find_spec("emx_onnx_cgen") is not None:
        others["emx"] = emx(model, x)
    rows = versus("dense", dense, others, ideal(ceiling, model, x, 4).times(LOOP), rounds)
    for name, level, precision, target in (
        ("blocks, 80% gone", "block", "float32", 1 / 0.35),
        ("int8", None, "int8", 1 / 0.45),
        ("int8, 80% of the words gone", "word", "int8", None),
    ):
        small = thinned(model, level) if level else model
        against = {"dense": in_c(model, x, "float32", target), "stream": streamed(small, x, precision)}
        least = ideal(ceiling, small, x, 4 if precision == "float32" else 1).times(LOOP)
        rows += versus(name, in_c(small, x, precision), against, least, rounds)
    return rows
