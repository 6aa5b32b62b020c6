"""The same bits on every processor: x86 of three widths, Cortex-M4, M7 and M55, armv7, aarch64, RISC-V, PowerPC
(big-endian), WebAssembly."""

from __future__ import annotations

import copy
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export_boards import on_cortex_m55
from export_programs import Sketch, chain, thinned
from sparsernn.export.emulator import PROCESSORS
from sparsernn.export.export_c import export_program
from sparsernn.export.machines import EMULATED, TARGETS, built, missing, run
from sparsernn.runtime.program.program import Program
from test_export_gates import with_constant_gates
from test_export_int8 import some_runs
from test_export_operations import PROGRAMS

FLAGS_OF_X86 = {"x86-64": "sse2", "AVX2": "avx2", "AVX-512": "avx512vl", "AVX-512 VNNI": "avx512_vnni"}


def need(*modules: str) -> None:
    """Skip where one of these packages is missing."""
    if lacking := missing(*modules):
        pytest.skip(f"not installed: {', '.join(lacking)}")


def nets() -> dict[str, tuple[Program, str]]:
    torch.manual_seed(0)
    parts = [nn.Embedding(11, 9), nn.GRU(9, 37), nn.LSTM(37, 20), nn.RNN(20, 16), nn.Linear(16, 5), nn.Softmax(-1)]
    made = {f"dense_{p}": (chain(nn.Sequential(*parts)), p) for p in ("float32", "int8")}
    thin = chain(thinned(nn.Sequential(nn.GRU(24, 40), nn.LSTM(40, 33), nn.Linear(33, 5)), 0.9))
    made |= {f"thin_{p}": (thin, p) for p in ("float32", "int8")}
    words = nn.Sequential(nn.GRU(24, 20), nn.Linear(20, 5))
    with torch.no_grad():
        words[0].weight_ih_l0[:, 4:20] *= 0
        words[0].weight_hh_l0[:, 4:] *= 0
    made["words_int8"] = (chain(words), "int8")
    made["subnormal"] = (subnormal(), "float32")
    made["gates"] = (chain(with_constant_gates(nn.Sequential(nn.LSTM(30, 40), nn.GRU(40, 48)), 0.7)), "float32")
    return made | {name: (PROGRAMS[name](), "float32") for name in ("unary", "rings", "clocks")}


def subnormal() -> Program:
    """Sums of numbers below the least normal float, which some processors' vectors take for zero; of all weights, of
    blocks, by hand."""
    s = Sketch()
    x = s.input(2, 24)
    small = s.made("mul", (x, 1e-20), (2, 24))
    for weight in (torch.randn(40, 24), thinned(nn.Linear(24, 40), 0.8).weight * 5):
        y = s.made("linear", (small, s.constant(weight * 1e-19), None), (2, 40))
        s.output(s.made("relu", (s.made("mul", (s.made("sub", (y, 1e-39), (2, 40)), 0.37), (2, 40)),), (2, 40)))
    return s.program()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nets in one file, all.c, and those without `subnormal` in normal.c."""
    need("ziglang")
    folder = tmp_path_factory.mktemp("targets")
    for name, (program, precision) in nets().items():
        export_program(program, folder, name, precision)
        if precision == "int8":
            export_program(program, folder, f"fixed_{name}", precision, calibrate=some_runs(program))
    made = [path.stem for path in sorted(folder.glob("*.json"))]
    in_one(folder / "all.c", made)
    in_one(folder / "normal.c", [name for name in made if name != "subnormal"])
    return folder


def in_one(file: Path, made: list[str]) -> None:
    """`all_test` is 0, or 1000 times the number of the first net that differs, plus the step."""
    included = [f'#include "{name}{end}"' for name in made for end in (".c", "_test.c")]
    calls = [f"    if ((step = {name}_test()) != 0) return {1000 * k} + step;" for k, name in enumerate(made, 1)]
    body = ["int all_test(void);", "int all_test(void)", "{", "    int step;", *calls, "    return 0;", "}", ""]
    file.write_text("\n".join([*included, *body]))


@pytest.mark.parametrize("target", TARGETS)
def test_every_processor_gives_the_bits_of_the_oracle(together, target):
    program = built(together, together / "all.c", "all_test", target)
    if target in FLAGS_OF_X86 and FLAGS_OF_X86[target] not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {target}")
    need(*(["wasmtime"] if target.startswith("Web") else ["unicorn"] if target in PROCESSORS else []))
    assert run(program, "all_test", target) == 0


def test_vectors_of_32_bit_neon_give_the_bits_but_of_subnormal_numbers(together):
    need("ziglang", "unicorn")
    wide = [f"-D{path.stem}_W=4" for path in together.glob("*.json")]
    assert run(built(together, together / "normal.c", "all_test", "armv7", *wide), "all_test", "armv7") == 0


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="not installed: qemu-system-arm")
@pytest.mark.parametrize("nets, vectors", [("normal", "+mve_fp"), ("all", "-mve")], ids=["helium", "scalar"])
def test_a_cortex_m55_gives_the_bits_of_the_oracle(together, nets, vectors):
    """With the vectors that the compiler makes, Helium, which take subnormal numbers for zero; and without."""
    need("ziglang")
    assert on_cortex_m55(together, together / f"{nets}.c", vectors) == 0


def test_the_instructions_and_the_stack_of_a_step_on_a_cortex_m4(tmp_path):
    """Of the C code, not of its time: dense, blocks, int8, and int8 of blocks."""
    need("ziglang", "unicorn")
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(40, 48), nn.Linear(48, 10))
    made = {"dense": (chain(model), "float32")}
    made["bytes"] = (chain(model), "int8")
    made["blocks"] = (chain(thinned(copy.deepcopy(model), 0.8)), "float32")
    made["gathered"] = (made["blocks"][0], "int8")
    counts, adds = {}, {}
    for name, (program, precision) in made.items():
        report = export_program(program, tmp_path, name, precision, measure=True)
        counts[name], adds[name] = report["measured"]["Cortex-M4"]["instructions"], report["multiply_adds"]
        assert report["ram"]["stack"] <= 256, name
    assert counts["dense"] < 4.0 * adds["dense"]
    assert counts["blocks"] < 0.45 * counts["dense"]
    assert counts["bytes"] < 0.75 * counts["dense"]


def test_the_footprint_of_processors_at_hand_is_in_the_report(tmp_path):
    need("ziglang", "unicorn")
    torch.manual_seed(0)
    program = chain(nn.Sequential(nn.GRU(12, 16), nn.Linear(16, 3)))
    guessed, found = (export_program(program, tmp_path, measure=m) for m in (False, True))
    assert guessed["measured"] == {} and guessed["flash"]["code_is"] == "estimated" and "stack" not in guessed["ram"]
    assert set(found["measured"]) == set(EMULATED)
    for taken in found["measured"].values():
        assert 500 < taken["code"] < 10_000 and 0 < taken["stack"] < 600
        assert 1 < taken["instructions"] / found["multiply_adds"] < 10
    assert found["flash"]["code"] == found["measured"]["Cortex-M4"]["code"]
    assert found["flash"]["code_is"] == "measured for Cortex-M4" and found["ram"]["stack"] > 0
    assert guessed["flash"]["code"] == pytest.approx(found["flash"]["code"], rel=0.6)


def test_without_a_compiler_measuring_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'sparsernn[devices]'")):
        export_program(chain(nn.Sequential(nn.Linear(2, 2))), tmp_path, measure=True)
    assert not list(tmp_path.iterdir())
