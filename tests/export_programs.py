"""Step programs written by hand, and the C compiler of this machine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsernn.export.export_c import export_program
from sparsernn.runtime.program.program import (
    BOOL,
    CONSTANT,
    FLOAT,
    INPUT,
    INT,
    STATE,
    WORK,
    Buffer,
    Clock,
    Operation,
    Port,
    Program,
    View,
    whole,
)  # fmt: skip

ALWAYS = Clock()
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wcast-qual",
          "-Wundef", "-Wdouble-promotion", "-Werror"]  # fmt: skip
FLAGS = [["-O0"], ["-O2"], ["-O3", "-march=native"], ["-O2", "-DPORTABLE"]]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler, cc")


class Sketch:
    """A program as it is written down, operation by operation."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.operations: list[Operation] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []

    def buffer(self, kind: str, shape: tuple[int, ...], dtype: str = FLOAT, value: Tensor | None = None) -> View:
        name = f"{kind}{len(self.buffers)}"
        flat = None if value is None else value.detach().flatten()
        self.buffers[name] = Buffer(name, torch.Size(shape).numel(), dtype, kind, flat)
        return whole(name, shape)

    def input(self, *shape: int, dtype: str = FLOAT, name: str = "") -> View:
        view = self.buffer(INPUT, shape, dtype)
        self.inputs.append(Port(name or view.buffer, view))
        return view

    def constant(self, value: Tensor | None) -> View | None:
        if value is None:
            return None
        return self.buffer(CONSTANT, tuple(value.shape), FLOAT if value.is_floating_point() else INT, value)

    def state(self, *shape: int, value: Tensor | None = None) -> View:
        return self.buffer(STATE, shape, value=value)

    def emit(self, kind: str, inputs: Iterable[Any], outputs: Iterable[View], clock: Clock = ALWAYS, **options: Any):
        self.operations.append(Operation(kind, tuple(inputs), tuple(outputs), options, clock, "net.py:1"))

    def made(
        self, kind: str, inputs: Iterable[Any], shape: tuple[int, ...], dtype: str = FLOAT, **options: Any
    ) -> View:
        """The output, a buffer of its own."""
        out = self.buffer(WORK, shape, dtype)
        self.emit(kind, inputs, (out,), **options)
        return out

    def output(self, view: View, clock: Clock = ALWAYS) -> None:
        self.outputs.append(Port(f"y{len(self.outputs)}", view, clock))

    def program(self, *outputs: View) -> Program:
        for view in outputs:
            self.output(view)
        return Program(self.buffers, tuple(self.operations), tuple(self.inputs), tuple(self.outputs))


def chain(parts: Iterable[nn.Module], batch: int = 1) -> Program:
    """Embedding, recurrent layers, Linear and activations one after the other."""
    sketch = Sketch()
    parts = list(parts)
    first = parts[0]
    tokens = isinstance(first, nn.Embedding)
    width = () if tokens else (getattr(first, "input_size", 0) or getattr(first, "in_features", 0),)
    x = sketch.input(batch, *width, dtype=INT if tokens else FLOAT)
    for part in parts:
        if isinstance(part, nn.Embedding):
            x = sketch.made("lookup", (x, sketch.constant(part.weight)), (batch, part.embedding_dim))
        elif isinstance(part, nn.Linear):
            weights = sketch.constant(part.weight), sketch.constant(part.bias)
            x = sketch.made("linear", (x, *weights), (batch, part.out_features))
        elif isinstance(part, nn.RNNBase):
            for layer in range(part.num_layers):
                x = _layer(sketch, part, layer, x, batch)
        else:
            x = sketch.made(type(part).__name__.lower(), (x,), x.shape)
    return sketch.program(x)


def _layer(sketch: Sketch, part: nn.RNNBase, layer: int, x: View, batch: int) -> View:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    weights = [sketch.constant(getattr(part, f"{name}_l{layer}", None)) for name in names]
    states = [sketch.state(batch, part.proj_size or part.hidden_size)]
    states += [sketch.state(batch, part.hidden_size)] if part.mode == "LSTM" else []
    sketch.emit("recurrent", (x, *weights, *states), states, mode=part.mode)
    return states[0]


def thinned(model: nn.Module, share: float) -> nn.Module:
    """`model` with this share of the blocks of 16 rows and a column of its matrices zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                for block in parameter.split(16):
                    block *= torch.rand(1, block.shape[1]) >= share
    return model


def compiled(
    folder: Path, names: Iterable[str], flags: Iterable[str], compiler: str = "cc", vectors: Path | None = None
) -> ctypes.CDLL:
    """The sources of these names as a library, compiled as one file: by itself each is no other, and takes longer.

    vectors: their tests, where those are compiled.
    """
    flags = list(flags)
    names = list(names)
    if "-DPORTABLE" in flags:  # no vectors: what a compiler without GNU's extensions sees
        flags = [f for f in flags if f != "-DPORTABLE"] + [f"-D{name}_W=1" for name in names]
    library = folder / f"{abs(hash((tuple(flags), compiler)))}.so"
    strict = STRICT if compiler == "cc" else ["-x", "c++", *STRICT[1:]]
    sources = [_together(folder, names, (".c",) if vectors else (".c", "_test.c")), *([vectors] if vectors else [])]
    made = [compiler, *strict, *flags, "-shared", "-fPIC", "-o", str(library), *map(str, sources)]
    subprocess.run(made, check=True)
    return ctypes.CDLL(str(library))


def _together(folder: Path, names: Iterable[str], ends: Iterable[str]) -> Path:
    source = folder / f"all{''.join(ends)}"
    source.write_text("".join(f'#include "{name}{end}"\n' for name in names for end in ends))
    return source


def differing(
    folder: Path, programs: Mapping[str, Program], flags: Iterable[Iterable[str]] = FLAGS, **options: Any
) -> dict[str, int]:
    """Export the programs, compile them as the flags say; of those that differ somewhere the first such step."""
    for name, program in programs.items():
        export_program(program, folder, name, **options)
    vectors, found = folder / "vectors.o", {}  # numbers, which take longer than code, and once is enough
    tests = _together(folder, programs, ("_test.c",))
    subprocess.run(["cc", *STRICT, "-O0", "-fPIC", "-c", "-o", str(vectors), str(tests)], check=True)
    for one in flags:
        library = compiled(folder, programs, one, vectors=vectors)
        steps = {f"{name} {' '.join(one)}": getattr(library, f"{name}_test")() for name in programs}
        found.update({name: step for name, step in steps.items() if step})
    return found


def check_symbols(folder: Path, name: str) -> None:
    """NAME.c defines its two functions and constants, and asks for no more than copying and clearing memory."""
    subprocess.run(["cc", "-O2", "-c", str(folder / f"{name}.c"), "-o", str(folder / "x.o")], check=True)
    symbols = subprocess.run(["nm", str(folder / "x.o")], capture_output=True, text=True, check=True).stdout
    kinds = {tuple(line.split()[-2:]) for line in symbols.splitlines()}
    assert {s for k, s in kinds if k == "T"} == {f"{name}_reset", f"{name}_step"}
    assert {s for k, s in kinds if k == "U"} <= {"memset", "memcpy", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    assert {k for k, _ in kinds} <= {"T", "t", "r", "R", "U"}


__all__ = ["BOOL", "FLAGS", "INT", "Clock", "Sketch", "chain", "compiled", "differing", "needs_compiler", "thinned"]
