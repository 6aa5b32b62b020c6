"""Kernels that came with the package as LLVM's code are what numba makes of the sources, and need no numba."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sparsernn.runtime import compiled, lowered

NAME = "chain.tokens"
RUN = """
import sys, torch
from pathlib import Path
from sparsernn.runtime import compiled, lowered
lowered.FOLDER = Path(sys.argv[1])
x, y = torch.tensor([3, 1, 2]), torch.zeros(3, dtype=torch.int64)
stop = torch.zeros(1, dtype=torch.int64)
fields = torch.tensor([x.data_ptr(), y.data_ptr(), 3, 4, stop.data_ptr()])
compiled.function("chain.tokens", 1)(fields.data_ptr())
assert torch.equal(x, y)
print("numba" in sys.modules)
"""


@pytest.fixture(scope="module")
def code() -> str:
    return str(compiled._by_numba(NAME))


def test_a_first_call_needs_no_numba(code: str, tmp_path: Path) -> None:
    lowered.write(tmp_path, {NAME: code}, compiled._SOURCES or "")
    environment = os.environ | {"SPARSERNN_CACHE": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr


def test_the_same_kernels_are_the_same_bytes(code: str, tmp_path: Path) -> None:
    one, two = (lowered.write(tmp_path / name, {"b": "2", NAME: code}, "s").read_bytes() for name in "xy")
    assert one == two


def test_only_code_of_these_sources_and_this_llvm_is_taken(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowered, "FOLDER", tmp_path)
    assert lowered.read(NAME, "s") is None
    path = lowered.write(tmp_path, {NAME: code}, "s")
    assert lowered.read(NAME, "s") == code
    assert lowered.read(NAME, "t") is None and lowered.read("cells.one_of_a_user", "s") is None
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("head.json", json.dumps({"sources": "s", "llvm": [1]}))
        file.writestr(f"{NAME}.ll", code)
    assert lowered.read(NAME, "s") is None
    path.write_bytes(path.read_bytes()[:100])
    assert lowered.read(NAME, "s") is None


def test_every_kernel_that_is_called_is_among_those_to_be_lowered() -> None:
    every = set(compiled._every())
    assert all(callable(compiled._kernel(name)) for name in every)
    called: set[str] = set()
    for file in Path(compiled.__file__).parent.rglob("*.py"):
        called |= set(re.findall(r'(?:address|function)\("([a-z0-9_.]+)"', file.read_text(encoding="utf-8")))
    assert len(called) > 5 and called <= every
