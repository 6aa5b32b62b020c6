"""Compiled kernels are kept in a folder of the user's own, and a damaged file is compiled anew."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsernn.runtime import costs
from sparsernn.runtime import tune as tune_module
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import processor
from sparsernn.runtime.tune import tune

RUN = """
import sys, torch
from sparsernn.runtime.compiled import function
x, y = torch.tensor([3, 1, 2]), torch.zeros(3, dtype=torch.int64)
stop = torch.zeros(1, dtype=torch.int64)
fields = torch.tensor([x.data_ptr(), y.data_ptr(), 3, 4, stop.data_ptr()])
function("chain.tokens", 1)(fields.data_ptr())
assert torch.equal(x, y)
print("numba" in sys.modules)
"""


def run(folder: Path | str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPARSERNN_CACHE": str(folder), "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    assert run(folder).stdout.strip() == "True"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.glob("*.kernel"))
    assert len(files) == 1
    assert run(folder).stdout.strip() == "False"
    # A truncated, a foreign and a changed file are compiled again, and written whole.
    whole = files[0].read_bytes()
    for damaged in (whole[:-7], b"something else", whole[:-1] + bytes([whole[-1] ^ 1])):
        files[0].write_bytes(damaged)
        done = run(folder)
        assert done.stdout.strip() == "True" and done.returncode == 0, done.stderr
    assert run(folder).stdout.strip() == "False"
    for file in folder.glob("*.kernel"):
        header = file.read_bytes().split(b"\n", 2)[1]
        assert set(json.loads(header)) == {"symbol", "sha256"}


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="another owner needs root")
def test_a_folder_of_somebody_else_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    done = run(folder)
    assert "which others can write to" in done.stderr and done.stdout.strip() == "True"
    assert not list(folder.iterdir())


def test_an_open_folder_is_not_read_and_none_can_be_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    done = run(folder)
    assert "chmod 700" in done.stderr and done.stdout.strip() == "True"
    assert not list(folder.iterdir())
    assert run("").stdout.strip() == "True"
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "below")
    assert "can't be kept" in done.stderr and done.stdout.strip() == "True"


def test_widths_are_checked() -> None:
    done = run("", SPARSERNN_VECTOR_WIDTH="5")
    assert "SPARSERNN_VECTOR_WIDTH is '5': expected 4, 8 or 16." in done.stderr


def test_tuned_costs_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "costs.json"
    for module in (costs, tune_module):
        monkeypatch.setattr(module, "tuned_file", lambda: kept)
    costs.current.cache_clear()
    try:
        assert costs.current() == costs.Costs()
        measured = tune()
        assert costs.current() == measured != costs.Costs()
        for name in costs.offered("float32"):
            assert all(part >= 0 for part in getattr(measured, name)) and max(getattr(measured, name)) > 0
        kept.write_text(kept.read_text()[:50])
        costs.current.cache_clear()
        assert costs.current() == costs.Costs()
    finally:
        costs.current.cache_clear()


@pytest.mark.skipif(not processor().vnni, reason="this processor can't do what the test takes away")
def test_int8_without_the_instructions_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    without = replace(processor(), vnni=False)
    monkeypatch.setattr(costs, "processor", lambda: without)
    model = nn.GRU(5, 6).eval()
    x = torch.randn(3, 2, 5)
    with pytest.warns(RuntimeWarning, match="no AVX-512 VNNI"):
        fast = accelerate(model, "int8")
    assert torch.allclose(fast(x)[0], model(x)[0], atol=1e-6)
