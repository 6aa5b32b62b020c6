"""Random step programs in C give the bits of their oracle, which agrees with the program in float64.

Some here, 5,000 by `python tests/compositions.py --of c --cases 5000 --record FILE`.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export_programs import STRICT, Clock, Sketch, needs_compiler
from sparsernn.export.agreement import sample
from sparsernn.export.export_c import export_program
from sparsernn.export.plan import lower
from sparsernn.runtime.program.program import Program, View

PROGRAMS = int(os.environ.get("EXPORT_PROGRAMS", "300"))
PARTS = 10
STEPS = 10  # of each program: all clocks come round
SETTINGS = (["-O0", "-march=native"], ["-O1", "-march=native"], ["-O0", "-DPORTABLE"], ["-O1"], ["-O0"])
UNARY = ("relu", "tanh", "sigmoid", "silu", "abs", "neg", "softplus", "hardswish", "erf", "sin")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "gt", "le")


class Writer:
    """Writes a program of a few operations down, each of values that are there already."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.sketch = Sketch()
        self.batch = self.random.choice((1, 1, 2))
        width = self.random.randint(1, 40)
        self.values = [self.sketch.input(self.batch, width)]

    def program(self) -> Program:
        for _ in range(self.random.randint(2, 7)):
            rule = self.random.choice((self.linear, self.recurrent, self.unary, self.binary, self.past, self.norm,
                                       self.part, self.softmax, self.layers))  # fmt: skip
            self.values.append(rule(self.random.choice(self.values[-3:])))
        outputs = self.values[-self.random.randint(1, 2) :]
        for view in outputs:
            self.sketch.output(view, Clock(self.random.choice((1, 1, 3)), self.random.choice((0, 0, 2))))
        return self.sketch.program()

    def weight(self, rows: int, columns: int) -> View:
        value = torch.randn(rows, columns) / math.sqrt(columns)
        if self.random.random() < 0.5:
            for block in value.split(self.random.choice((16, 16, 7))):
                block *= torch.rand(1, columns) > self.random.random()
        if self.random.random() < 0.2:  # as constant gates have them
            value[torch.rand(rows) < 0.7] = 0
        found = self.sketch.constant(value)
        assert found is not None
        return found

    def linear(self, x: View) -> View:
        rows = self.random.randint(1, 50)
        bias = self.sketch.constant(torch.randn(rows)) if self.random.random() < 0.7 else None
        return self.sketch.made("linear", (x, self.weight(rows, x.shape[1]), bias), (self.batch, rows))

    def recurrent(self, x: View) -> View:
        mode, gates = self.random.choice((("GRU", 3), ("LSTM", 4), ("RNN_TANH", 1)))
        size = self.random.randint(1, 35)
        names = [self.weight(gates * size, x.shape[1]), self.weight(gates * size, size)]
        biases = [self.sketch.constant(torch.randn(gates * size)) for _ in range(2)]
        states = [self.sketch.state(self.batch, size, value=torch.randn(self.batch, size))]
        states += [self.sketch.state(self.batch, size)] if mode == "LSTM" else []
        clock = Clock(self.random.choice((1, 1, 2)))
        self.sketch.emit("recurrent", (x, *names, *biases, None, *states), states, clock, mode=mode)
        return states[0]

    def layers(self, x: View) -> View:
        return self.linear(self.recurrent(x))

    def unary(self, x: View) -> View:
        kind = self.random.choice(UNARY)
        options = {"beta": 1.0, "threshold": 20.0} if kind == "softplus" else {}
        return self.sketch.made(kind, (x,), x.shape, **options)

    def binary(self, x: View) -> View:
        kind = self.random.choice(BINARY)
        others = [v for v in self.values if v.shape == x.shape]
        narrow = replace(x, strides=(x.strides[0], 0))
        dtype = "bool" if kind in ("gt", "le") else "float"
        out = self.sketch.made(kind, (x, self.random.choice([*others, narrow])), x.shape, dtype)
        return self.sketch.made("where", (out, x, 0.5), x.shape) if dtype == "bool" else out

    def past(self, x: View) -> View:
        """The last frames, read as one row: a causal convolution's window."""
        count = self.random.randint(1, 4)
        ring = self.sketch.state(count, *x.shape)
        self.sketch.emit("push", (x,), (ring,))
        width = x.shape[1]
        if self.batch == 1:
            return replace(ring, shape=(1, count * width), strides=(count * width, 1))
        frames = replace(ring, shape=(self.batch, count, width), strides=(width, x.shape[0] * width, 1))
        return self.sketch.made("mean", (replace(frames, shape=(self.batch, width, count),
                                                 strides=(width, 1, x.shape[0] * width)),),
                                (self.batch, width), axes=1)  # fmt: skip

    def norm(self, x: View) -> View:
        weights = [self.sketch.constant(torch.randn(x.shape[1])) for _ in range(2)]
        return self.sketch.made("normalise", (x, *weights), x.shape, axes=1, eps=0.1, rms=self.random.random() < 0.5)

    def softmax(self, x: View) -> View:
        return self.sketch.made("softmax", (x,), x.shape)

    def part(self, x: View) -> View:
        """Every second feature, from somewhere on."""
        first = self.random.randrange(x.shape[1])
        step = self.random.choice((1, 2))
        count = (x.shape[1] - first + step - 1) // step
        return replace(x, shape=(self.batch, count), strides=(x.strides[0], step * x.strides[1]),
                       offset=x.offset + first * x.strides[1])  # fmt: skip


def differing_steps(seeds: Sequence[int], flags: Sequence[str]) -> dict[int, int]:
    """Of the programs that do not give the bits of their oracle the first such step, -1 where the C did not come to its
    end. Every second one is in int8, every second of these with scales that batches fix. All are one file, compiled
    once."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        made = [seed for seed in seeds if exported(seed, folder)]
        included = "".join(f'#include "p{seed}{end}"\n' for seed in made for end in (".c", "_test.c"))
        told = "".join(f'    printf("{seed} %d\\n", p{seed}_test());\n    fflush(stdout);\n' for seed in made)
        main = f"int main(void)\n{{\n{told}    return 0;\n}}\n"
        (folder / "all.c").write_text(f"#include <stdio.h>\n{included}{main}")
        own = [f"-Dp{seed}_W=1" for seed in made] if "-DPORTABLE" in flags else []
        flags = [flag for flag in flags if flag != "-DPORTABLE"]
        subprocess.run(["cc", *STRICT, *flags, *own, str(folder / "all.c"), "-o", str(folder / "all")], check=True)
        done = subprocess.run([str(folder / "all")], capture_output=True, text=True)
        steps = {int(seed): int(step) for seed, step in map(str.split, done.stdout.splitlines())}
        return {seed: step for seed in made if (step := steps.get(seed, -1))}


def exported(seed: int, folder: Path) -> bool:
    """Whether program `seed` could be written as p{seed}.c: a random net may well be one that int8 spoils."""
    program, precision = Writer(seed).program(), ("float32", "int8")[seed % 2]
    runs = [sample(lower(program), STEPS, n) for n in range(2)]
    calibrate = runs[1:] if seed % 4 == 3 else None
    try:
        export_program(program, folder, f"p{seed}", precision, inputs=runs[0], calibrate=calibrate)
    except RuntimeError as error:
        if precision != "int8" or "does not bear it" not in str(error):
            raise
        return False
    return True


@needs_compiler
@pytest.mark.parametrize("part", range(PARTS))
def test_random_programs_give_the_bits_of_their_oracle(part):
    seeds = range(part, PROGRAMS, PARTS)
    assert differing_steps(seeds, SETTINGS[part % len(SETTINGS)]) == {}


def test_few_programs_are_ones_that_int8_spoils(tmp_path):
    assert sum(exported(seed, tmp_path) for seed in range(1, 41, 2)) >= 14
