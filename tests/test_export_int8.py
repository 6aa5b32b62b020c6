"""Products in int8: the bits of the oracle on every path, near enough to the model, and no number stays none."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export_programs import STRICT, Sketch, chain, check_symbols, compiled, differing, needs_compiler, thinned
from sparsernn.export.agreement import sample
from sparsernn.export.export_c import export_program
from sparsernn.export.integers import pack_int8
from sparsernn.export.places import row_major
from sparsernn.export.plan import lower
from sparsernn.export.products import Tables
from sparsernn.runtime.program.program import Program
from test_export_chains import programs

CHAINS = ("gru", "projected", "tokens")
FLAGS = [["-O2"], ["-O3", "-march=native"], ["-O1", "-DPORTABLE"]]


@needs_compiler
@pytest.mark.parametrize("share, batch", [(0.0, 1), (0.85, 2)])
def test_c_gives_the_bits_of_the_oracle(tmp_path, share, batch):
    made = {name: program for name, program in programs(share, batch).items() if name in CHAINS}
    assert differing(tmp_path, made, FLAGS if share else FLAGS[1:], precision="int8") == {}
    sparse = [name for name in CHAINS if "_gathered8" in (tmp_path / f"{name}.c").read_text()]
    assert bool(sparse) == (share > 0.5)


def thinned_in_words(model: nn.Module) -> nn.Module:
    """Without 80% of the words of 16 rows and 4 columns."""
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.dim() == 2):
            for rows in weight.split(16):
                for word in rows.split(4, 1):
                    word *= float(torch.rand(()) > 0.8)
    return model


LAYOUTS = {
    "bytes": lambda: nn.Sequential(nn.GRU(21, 24), nn.Linear(24, 5)),
    "gathered8": lambda: thinned(nn.Sequential(nn.GRU(24, 40), nn.LSTM(40, 33)), 0.85),
    "gathered16": lambda: thinned(nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 5)), 0.9),
    "words8": lambda: thinned_in_words(nn.Sequential(nn.GRU(40, 40), nn.Linear(40, 300))),
    "words16": lambda: thinned_in_words(nn.Linear(1100, 40)),
}


def layouts() -> dict[str, Program]:
    """A program for each layout of int8 matrices."""
    torch.manual_seed(0)
    return {name: chain([*make()] if name != "words16" else [make()]) for name, make in LAYOUTS.items()}


def kernels_in(folder: Path, names: Iterable[str]) -> set[str]:
    text = "".join((folder / f"{name}.c").read_text() for name in names)
    return {kernel for kernel in LAYOUTS if re.search(rf"_(fixed_)?{kernel}\(", text)}


@needs_compiler
def test_every_layout_gives_the_bits_of_the_oracle(tmp_path):
    made = layouts()
    assert differing(tmp_path, made, FLAGS[:2], precision="int8") == {}
    assert kernels_in(tmp_path, made) == set(LAYOUTS)


@needs_compiler
@pytest.mark.parametrize("flags", [["-O1", "-march=native"], ["-O1", "-DPORTABLE"]], ids=["vectors", "portable"])
@pytest.mark.parametrize("fixed", [False, True])
def test_sanitizers_find_nothing_in_any_layout(tmp_path, flags, fixed):
    made = layouts()
    for name, program in made.items():
        export_program(program, tmp_path, name, "int8", calibrate=some_runs(program) if fixed else None)
    assert kernels_in(tmp_path, made) == set(LAYOUTS)
    calls = "".join(f"    if ({name}_test()) return {k};\n" for k, name in enumerate(made, 1))
    body = "".join(f'#include "{name}{end}"\n' for name in made for end in (".c", "_test.c"))
    (tmp_path / "all.c").write_text(f"{body}int main(void)\n{{\n{calls}    return 0;\n}}\n")
    own = [f for f in flags if f != "-DPORTABLE"] + [f"-D{name}_W=1" for name in made if "-DPORTABLE" in flags]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *STRICT, *own, *sanitizers, str(tmp_path / "all.c"), "-o", str(tmp_path / "run")], check=True)
    assert subprocess.run([str(tmp_path / "run")]).returncode == 0


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
def test_no_layout_allocates_or_has_a_global_that_can_be_written(tmp_path):
    for name, program in layouts().items():
        export_program(program, tmp_path, name, "int8")
        check_symbols(tmp_path, name)


def some_runs(program: Program, scale: float = 1.0) -> list[list[list[np.ndarray]]]:
    """Two sequences of random steps."""
    given = sample(lower(program), 40, seed=3)
    return [[[scale * x for x in step] for step in part] for part in (given[:25], given[25:])]


@needs_compiler
def test_numbers_at_the_ends_of_their_range_do_not_overflow(tmp_path):
    """Every product is 127 * 127: the most that two of them make in the 16 bits of some processors' instructions."""
    s = Sketch()
    x = s.input(1, 64)
    weight = torch.ones(20, 64) * torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)[:, None]
    program = s.program(s.made("linear", (x, s.constant(weight), None), (1, 20)))
    for sign in (1, -1):
        given = [[np.full((1, 64), sign, np.float32)], [np.full((1, 64), -0.5 * sign, np.float32)]]
        export_program(program, tmp_path, precision="int8", inputs=given)
        for flags in FLAGS:
            assert compiled(tmp_path, ["model"], [*flags, f"-DN={sign}"]).model_test() == 0


def test_a_quarter_of_the_flash_and_an_error_of_a_few_percent(tmp_path):
    torch.manual_seed(0)
    program = chain([nn.GRU(40, 96), nn.Linear(96, 10)])
    single, small = (export_program(program, tmp_path, precision=p) for p in ("float32", "int8"))
    assert small["flash"]["tables"] < 0.3 * single["flash"]["tables"]
    assert small["errors"]["relative"] < 0.03 and small["multiply_adds"] == single["multiply_adds"]


@needs_compiler
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-38, 0.0])
def test_what_is_no_number_is_none_behind_it(tmp_path, value):
    s = Sketch()
    x = s.input(1, 8)
    weight = thinned(nn.Linear(8, 40), 0.9).weight
    program = s.program(s.made("linear", (x, s.constant(weight), s.constant(torch.ones(40))), (1, 40)))
    export_program(program, tmp_path, precision="int8")
    library = compiled(tmp_path, ["model"], ["-O2", "-march=native"])
    state, y = (ctypes.c_char * 4096)(), (ctypes.c_float * 40)()
    library.model_reset(state)
    library.model_step(state, (ctypes.c_float * 8)(*[value] * 8), y)
    got = torch.tensor(list(y))
    if np.isfinite(value):
        assert bool((got == 1).all())
    else:
        reached = (weight != 0).any(1)
        assert not bool(got[reached].isfinite().any())


def test_words_are_the_weights_to_half_a_step_of_their_row():
    random = np.random.default_rng(0)
    weight = random.normal(size=(37, 21)).astype(np.float32)
    weight[5] = 0
    packed = pack_int8(weight, 1, Tables(), row_major("q", (21,), 0, "int8"))
    error = np.abs(packed.weight * packed.scales[:, None] - weight)
    assert (error <= packed.scales[:, None] * 0.5001).all() and (packed.weight[5] == 0).all()


def test_sums_that_could_overflow_are_refused(tmp_path):
    s = Sketch()
    x = s.input(1, 140_000)
    program = s.program(s.made("linear", (x, s.constant(torch.zeros(1, 140_000)), None), (1, 1)))
    with pytest.raises(ValueError, match=re.escape("linear (net.py:1) can't be written in C: its sums of 140000")):
        export_program(program, tmp_path, precision="int8")


def test_a_model_that_int8_spoils_is_refused(tmp_path):
    s = Sketch()
    x = s.input(1, 2)
    weight = torch.tensor([[1.0, 1e5]])
    lost = s.made("linear", (x, s.constant(weight), None), (1, 1))
    program = s.program(s.made("sub", (lost, s.made("mul", (_second(x), 1e5), (1, 1))), (1, 1)))
    with pytest.raises(RuntimeError, match="in int8 y0 is off by"):
        export_program(program, tmp_path, precision="int8")
    assert not list(tmp_path.iterdir())


def _second(x):
    return replace(x, shape=(1, 1), offset=1)
