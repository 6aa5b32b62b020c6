"""Random step programs in C give the bits of their oracle, which agrees with the program in float64.

Some here, 5,000 by `python tests/compositions.py --of c --cases 5000 --record FILE`.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export_programs import FLAGS, STRICT, Clock, Sketch, compiled, needs_compiler
from sparsernn.export.export_c import export_program
from sparsernn.runtime.program.program import Program, View

PROGRAMS = int(os.environ.get("EXPORT_PROGRAMS", "25"))
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


def first_differing_step(seed: int) -> int:
    """0 if program `seed` gives the bits of its oracle, with the flags and the precision that go with its number."""
    flags = FLAGS[seed // 2 % len(FLAGS)]
    flags = ["-Dnet_W=1" if flag == "-DPORTABLE" else flag for flag in flags]
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_program(Writer(seed).program(), folder, "net", ("float32", "int8")[seed % 2])
        except RuntimeError as error:
            if "does not bear it" in str(error):
                return 0
            raise
        program = Path(folder) / "net"
        sources = [f"{program}.c", f"{program}_test.c"]
        subprocess.run(["cc", *STRICT, *flags, "-Dnet_MAIN", *sources, "-o", str(program)], check=True)
        return subprocess.run([str(program)]).returncode


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_random_programs_give_the_bits_of_their_oracle(tmp_path, precision):
    """All in one file, compiled once."""
    names = []
    for seed in range(PROGRAMS):
        program = Writer(seed).program()
        try:
            export_program(program, tmp_path, f"p{seed}", precision)
        except RuntimeError as error:  # a random net may well be one that int8 spoils
            if precision != "int8" or "does not bear it" not in str(error):
                raise
            continue
        names.append(f"p{seed}")
    assert len(names) > 0.7 * PROGRAMS
    included = "".join(f'#include "{name}{end}"\n' for name in names for end in (".c", "_test.c"))
    (tmp_path / "all.c").write_text(included)
    (tmp_path / "all_test.c").write_text("int none(void);\nint none(void) { return 0; }\n")
    library = compiled(tmp_path, ["all"], ["-O0", "-march=native"])
    assert {name: step for name in names if (step := getattr(library, f"{name}_test")())} == {}


@needs_compiler
@pytest.mark.parametrize("seed", [9001, 9004])
def test_one_program_alone_is_judged_as_all_together_are(seed):
    assert first_differing_step(seed) == 0
