"""The same bits on every processor: x86 of three widths, Cortex-M4, aarch64, RISC-V, WebAssembly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from export_machines import TARGETS, Emulated, built, need, run
from export_programs import chain, thinned
from sparsernn.export.export_c import export_program
from sparsernn.runtime.program.program import Program
from test_export_operations import PROGRAMS


def nets() -> dict[str, tuple[Program, str]]:
    torch.manual_seed(0)
    parts = [nn.Embedding(11, 9), nn.GRU(9, 37), nn.LSTM(37, 20), nn.RNN(20, 16), nn.Linear(16, 5), nn.Softmax(-1)]
    made = {f"dense_{p}": (chain(nn.Sequential(*parts)), p) for p in ("float32", "int8")}
    thin = chain(thinned(nn.Sequential(nn.GRU(24, 40), nn.LSTM(40, 33), nn.Linear(33, 5)), 0.9))
    made |= {f"thin_{p}": (thin, p) for p in ("float32", "int8")}
    return made | {name: (PROGRAMS[name](), "float32") for name in ("unary", "rings", "clocks")}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nets in one file; `all_test` is 0, or 1000 times the number of the first that differs, plus the step."""
    need("ziglang")
    folder = tmp_path_factory.mktemp("targets")
    made = nets()
    for name, (program, precision) in made.items():
        export_program(program, folder, name, precision)
    included = [f'#include "{name}{end}"' for name in made for end in (".c", "_test.c")]
    calls = [f"    if ((step = {name}_test()) != 0) return {1000 * k} + step;" for k, name in enumerate(made, 1)]
    body = ["int all_test(void);", "int all_test(void)", "{", "    int step;", *calls, "    return 0;", "}", ""]
    (folder / "all.c").write_text("\n".join([*included, *body]))
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_every_processor_gives_the_bits_of_the_oracle(together, target):
    assert run(built(together, together / "all.c", "all_test", target), "all_test", target) == 0


def test_the_instructions_of_a_step_on_a_cortex_m4(tmp_path):
    """Of the C code, not of its time: dense, blocks, int8."""
    need("ziglang", "unicorn")
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(40, 48), nn.Linear(48, 10))
    made = {"dense": (chain(model), "float32")}
    made["bytes"] = (chain(model), "int8")
    made["blocks"] = (chain(thinned(copy.deepcopy(model), 0.8)), "float32")
    counts, adds = {}, {}
    for name, (program, precision) in made.items():
        adds[name] = export_program(program, tmp_path, name, precision)["multiply_adds"]
        step = f"static {name}_state s; static float x[40], y[10];\nint one(void);\n"
        step += f"int one(void) {{ return {name}_step(&s, x, y); }}"
        (tmp_path / f"one_{name}.c").write_text(f'#include "{name}.c"\n{step}\n')
        emulated = Emulated(built(tmp_path, tmp_path / f"one_{name}.c", "one", "Cortex-M4"), "Cortex-M4")
        assert emulated.call(count=True) == 0
        counts[name] = emulated.instructions
    print(counts, adds)
    assert counts["dense"] < 4.5 * adds["dense"]
    assert counts["blocks"] < 0.45 * counts["dense"]
    assert counts["bytes"] < 0.75 * counts["dense"]
