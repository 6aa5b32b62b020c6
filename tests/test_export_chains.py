"""A chain of layers as a C file gives the bits of its oracle, which is as near to the model as torch's float32."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from export_programs import FLAGS, chain, check_symbols, compiled, differing, needs_compiler, thinned
from sparsernn.export.export_c import export_program

pytestmark = needs_compiler

CHAINS = {
    "gru": lambda: [nn.GRU(10, 24, 2), nn.Linear(24, 5)],
    "lstm": lambda: [nn.LSTM(7, 19), nn.Linear(19, 4, bias=False)],
    "projected": lambda: [nn.LSTM(7, 19, 2, proj_size=6), nn.Tanh()],
    "rnn": lambda: [nn.RNN(5, 33, bias=False), nn.ReLU(), nn.RNN(33, 8, nonlinearity="relu"), nn.Sigmoid()],
    "tokens": lambda: [nn.Embedding(11, 9), nn.GRU(9, 17), nn.Linear(17, 11), nn.Softmax(-1)],
    "wide": lambda: [nn.Linear(3, 80), nn.LSTM(80, 20)],
}


def programs(share: float = 0.0, batch: int = 1):
    torch.manual_seed(0)
    return {name: chain(thinned(nn.Sequential(*make()), share), batch) for name, make in CHAINS.items()}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_c_gives_the_bits_of_the_oracle(tmp_path, batch, share):
    assert differing(tmp_path, programs(share, batch), FLAGS if batch == 1 else FLAGS[2:3]) == {}


def test_blocks_with_more_columns_than_a_byte_counts(tmp_path):
    torch.manual_seed(0)
    wide = thinned(nn.Sequential(nn.Linear(300, 20), nn.GRU(20, 30)), 0.8)
    assert differing(tmp_path, {"wide": chain(wide)}, [["-O2", "-march=native"]]) == {}
    assert "uint16_t" in (tmp_path / "wide.c").read_text()


def test_blocks_take_less_flash_and_fewer_multiplications(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(32, 64), nn.Linear(64, 16))
    dense = export_program(chain(model), tmp_path, "dense")
    sparse = export_program(chain(thinned(model, 0.8)), tmp_path, "sparse")
    assert sparse["multiply_adds"] < 0.3 * dense["multiply_adds"]
    assert sparse["flash"]["tables"] < 0.35 * dense["flash"]["tables"]
    assert json.loads((tmp_path / "sparse.json").read_text()) == sparse


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler, g++")
def test_the_file_is_c_plus_plus_as_well(tmp_path):
    made = programs()
    for name, program in made.items():
        export_program(program, tmp_path, name)
    library = compiled(tmp_path, made, ["-O2"], "g++")
    for name in made:  # the test's function has no C linkage of its own there
        assert getattr(library, f"_Z{len(name) + 5}{name}_testv")() == 0


def test_sanitizers_find_nothing(tmp_path):
    for name, program in programs(0.5, 2).items():
        export_program(program, tmp_path, name)
        files = [str(tmp_path / f"{name}{end}") for end in (".c", "_test.c")]
        flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-D{name}_MAIN"]
        subprocess.run(["cc", *flags, *files, "-o", str(tmp_path / "run")], check=True)
        subprocess.run([str(tmp_path / "run")], check=True)


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
def test_nothing_is_allocated_and_no_global_can_be_written(tmp_path):
    for name, program in programs(0.5).items():
        export_program(program, tmp_path, name)
        check_symbols(tmp_path, name)


def test_a_compiler_that_fuses_is_caught(tmp_path):
    torch.manual_seed(0)
    export_program(chain([nn.GRU(40, 64), nn.Linear(64, 10)]), tmp_path)
    text = (tmp_path / "model.c").read_text()
    forbidden = next(line for line in text.splitlines(keepends=True) if "fp-contract=off" in line)
    flags = ["-O2", "-ffp-contract=fast", "-march=native"]
    assert compiled(tmp_path, ["model"], flags).model_test() == 0
    if "fma" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no fused multiplication and addition")
    (tmp_path / "model.c").write_text(text.replace(forbidden, "\n"))
    assert compiled(tmp_path, ["model"], [*flags, "-g"]).model_test() > 0


def test_parts_of_fast_math_change_nothing(tmp_path):
    torch.manual_seed(0)
    export_program(chain([nn.GRU(20, 33), nn.Linear(33, 10), nn.Hardsigmoid()]), tmp_path)
    sources = [str(tmp_path / name) for name in ("model.c", "model_test.c")]
    for n, flag in enumerate(("-funsafe-math-optimizations", "-freciprocal-math", "-fassociative-math")):
        subprocess.run(["cc", "-O2", flag, "-fPIC", "-c", *sources], check=True, cwd=tmp_path)
        # Linked with that flag, a library that is loaded would make this process flush subnormal numbers to zero.
        library = tmp_path / f"{n}.so"
        subprocess.run(["cc", "-shared", "-o", library, "model.o", "model_test.o"], check=True, cwd=tmp_path)
        assert ctypes.CDLL(str(library)).model_test() == 0, flag


def test_halves_that_are_worked_out_as_halves_are_no_obstacle(tmp_path):
    export_program(chain([nn.Linear(3, 2)]), tmp_path)
    flags = ["-std=gnu2x", "-mavx512fp16"]
    if subprocess.run(["cc", *flags, "-E", "-x", "c", "/dev/null"], capture_output=True).returncode:
        pytest.skip("this compiler has no AVX-512 FP16")
    subprocess.run(["cc", *flags, "-c", str(tmp_path / "model.c"), "-o", "/dev/null"], check=True)


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_fast_math_is_refused_by_the_file(tmp_path, flag):
    export_program(chain([nn.Linear(3, 2)]), tmp_path)
    done = subprocess.run(
        ["cc", flag, "-c", str(tmp_path / "model.c"), "-o", "/dev/null"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "compile this file without it" in done.stderr


class Echo(nn.Module):
    """Inputs whose names mean something in C++, in Rust, and in the loops of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.dense = nn.GRU(3, 5, batch_first=True), nn.Linear(3, 5)

    def forward(self, i0: torch.Tensor, state: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        return self.gru(i0)[0] + self.dense(state) * self.dense(ref)


def test_inputs_may_have_any_names(tmp_path):
    torch.manual_seed(0)
    example = tuple(torch.randn(2, 9, 3) for _ in range(3))
    srn.export_c(Echo().eval(), tmp_path, "net", example, batch=2, wrappers=["c++", "rust"])
    subprocess.run(["cc", "-Dnet_MAIN", "net.c", "net_test.c", "-o", "check"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "check"]).returncode == 0
    if not shutil.which("g++"):
        pytest.skip("not installed: g++")
    (tmp_path / "main.cpp").write_text('#include "net.hpp"\nnet_net net;\n')
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", "-c", "main.cpp"], cwd=tmp_path, check=True)
    if shutil.which("rustc"):
        subprocess.run(["rustc", "--crate-type=lib", "--emit=metadata", "net.rs"], cwd=tmp_path, check=True)


class Unbatched(nn.Module):
    """Of features (time, 4), or of tokens (time,)."""

    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(9, 4) if tokens else nn.Identity(), nn.GRU(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.words(x))[0].cumsum(0)


@pytest.mark.parametrize("tokens", [False, True])
def test_sequences_without_a_batch_keep_their_features(tmp_path, tokens):
    torch.manual_seed(0)
    model, x = Unbatched(tokens).eval(), torch.randint(9, (12,)) if tokens else torch.randn(12, 4)
    srn.export_c(model, tmp_path, "fixed", example=x, precision="int8", calibrate=[x[:7]])
    report = srn.export_c(model, tmp_path, "net", example=x)
    assert [port["shape"] for port in report["inputs"] + report["outputs"]] == [[] if tokens else [4], [5]]
    library = compiled(tmp_path, ["net", "fixed"], ["-O1"])
    assert library.net_test() == 0 and library.fixed_test() == 0
    state, y = (ctypes.c_char * report["ram"]["state"])(), (ctypes.c_float * 5)()
    library.net_reset(state)
    for row, expected in zip(x, model(x)):
        given = ctypes.c_int32(int(row)) if tokens else (ctypes.c_float * 4)(*row)
        assert library.net_step(state, ctypes.byref(given), y) == 0
        torch.testing.assert_close(torch.tensor(list(y)), expected.detach(), atol=1e-5, rtol=0)
    assert srn.flash_bytes(model, x)({}) > 0
