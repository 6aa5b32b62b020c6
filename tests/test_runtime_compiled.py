"""Compiled kernels are kept in a folder of the user's own, and a damaged file is compiled anew."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsernn.runtime import compiled, costs, kept, layouts
from sparsernn.runtime import tune as tune_module
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import processor
from sparsernn.runtime.tune import tune
from sparsernn.structure.grids import integers

RUN = """
import sys, torch
from pathlib import Path
from sparsernn.runtime import lowered
from sparsernn.runtime.compiled import function
lowered.FOLDER = Path("none")  # as in a checkout
x, y = torch.tensor([3, 1, 2]), torch.zeros(3, dtype=torch.int64)
stop = torch.zeros(1, dtype=torch.int64)
fields = torch.tensor([x.data_ptr(), y.data_ptr(), 3, 4, stop.data_ptr()])
function("chain.tokens", 1)(fields.data_ptr())
assert torch.equal(x, y)
print("numba" in sys.modules)
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPARSERNN_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kernels"
    assert run(folder).stdout.strip() == "True"
    assert [stat.S_IMODE(f.stat().st_mode) for f in (folder.parent, folder)] == [0o700, 0o700]
    done = run(folder)
    assert done.stdout.strip() == "False" and done.returncode == 0 and not done.stderr, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of our own, in which nothing was said yet."""
    monkeypatch.setenv("SPARSERNN_CACHE", str(tmp_path / "kernels"))
    kept.say.cache_clear()
    return tmp_path / "kernels"


CODE = bytes(range(256))


def damaged(whole: bytes) -> Iterator[bytes]:
    yield from (whole[:n] for n in range(0, len(whole), 23))
    for n in range(0, len(whole), 29):
        yield whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :]
    yield whole + b"\0"
    yield b"something else"
    yield kept._head("a.b", "e" * 64, CODE) + CODE  # the same kernel of other sources
    yield kept._head("a.c", "f" * 64, CODE) + CODE  # another kernel
    yield kept._FORMAT + b"[" * 100_000


def test_only_a_whole_file_of_just_this_kernel_is_read(folder: Path) -> None:
    assert kept.read("a.b", "f" * 64) is None
    kept.write("a.b", "f" * 64, CODE)
    assert kept.read("a.b", "f" * 64) == CODE
    assert kept.read("a.c", "f" * 64) is None and kept.read("a.b", "e" * 64) is None
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for content in damaged(whole):
        file.write_bytes(content)
        kept.say.cache_clear()
        with pytest.warns(RuntimeWarning, match="is made anew .*damaged or another kernel's") as said:
            assert kept.read("a.b", "f" * 64) is None
            assert kept.read("a.b", "f" * 64) is None
        assert len(said) == 1
        kept.write("a.b", "f" * 64, CODE)
        assert file.read_bytes() == whole


@pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes are POSIX's")
@pytest.mark.parametrize("what", ("link", "pipe", "folder", "writable", "foreign"))
def test_only_a_file_of_our_own_is_read(folder: Path, tmp_path: Path, what: str) -> None:
    kept.write("a.b", "f" * 64, CODE)
    (file,) = folder.iterdir()
    if what == "writable":
        file.chmod(0o666)
    elif what == "foreign":
        if os.getuid() != 0:
            pytest.skip("another owner needs root")
        os.chown(file, 12345, 12345)
    else:
        elsewhere = file.rename(tmp_path / "elsewhere")
        {"link": lambda: file.symlink_to(elsewhere), "pipe": lambda: os.mkfifo(file), "folder": file.mkdir}[what]()
    with pytest.warns(RuntimeWarning, match="is made anew"):
        assert kept.read("a.b", "f" * 64) is None
    if what == "folder":
        with pytest.warns(RuntimeWarning, match="could not be kept"):
            kept.write("a.b", "f" * 64, CODE)
        return
    kept.write("a.b", "f" * 64, CODE)
    assert kept.read("a.b", "f" * 64) == CODE
    found = file.lstat()
    assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == os.geteuid()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_is_made_is_closed_whatever_the_umask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERNN_CACHE", str(folder / "deep" / "kernels"))
    before = os.umask(0)
    try:
        kept.write("a.b", "f" * 64, CODE)
    finally:
        os.umask(before)
    assert kept.read("a.b", "f" * 64) == CODE
    for made in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(made.stat().st_mode) == (0o700 if made.is_dir() else 0o600), made


def test_without_a_home_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSERNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("LOCALAPPDATA", "")
    monkeypatch.chdir(tmp_path)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for home in (homeless, lambda: Path("relative")):
        monkeypatch.setattr(kept.Path, "home", home)
        kept.say.cache_clear()
        with pytest.warns(RuntimeWarning, match="this user has no home folder: set SPARSERNN_CACHE"):
            kept.write("a.b", "f" * 64, CODE)
            assert kept.read("a.b", "f" * 64) is None
    assert not list(tmp_path.iterdir())


def test_a_change_of_any_source_file_is_another_fingerprint(tmp_path: Path) -> None:
    own = Path(kept.__file__).parent
    copy = shutil.copytree(own, tmp_path / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    seen = {compiled._hash_of_sources()}
    assert compiled._hash_of_sources(copy) in seen
    files = sorted(file for folder in (".", "kernels", "layouts") for file in (copy / folder).glob("*.py"))
    for file in files:
        text = file.read_text(encoding="utf-8")
        file.write_text(text + "# changed\n", encoding="utf-8")
        seen.add(compiled._hash_of_sources(copy))
        file.write_text(text, encoding="utf-8")
    a, b = copy / "fields.py", copy / "tiles.py"
    moved = a.read_text(encoding="utf-8"), b.read_text(encoding="utf-8")
    b.write_text(moved[0], encoding="utf-8")
    a.write_text(moved[1], encoding="utf-8")
    seen.add(compiled._hash_of_sources(copy))
    assert len(seen) == len(files) + 2
    assert compiled._hash_of_sources(tmp_path) is None  # without sources nothing can be known by them


def test_threads_compile_a_kernel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def slow(name: str) -> bytes:
        time.sleep(0.05)
        made.append(name)
        return b"code"

    monkeypatch.setattr(compiled, "_compile", slow)
    monkeypatch.setattr(compiled, "_load", lambda name, code: len(made))
    monkeypatch.setattr(compiled, "_addresses", {})
    monkeypatch.setenv("SPARSERNN_CACHE", "")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(compiled.address, ["a.b"] * 8)) == [1] * 8
    assert made == ["a.b"]


NAME = "chain.tokens"


@pytest.fixture(scope="module")
def code() -> bytes:
    return compiled._compile(NAME)


@pytest.fixture
def made(code: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a process that has no kernel yet: those that it compiles."""
    found: list[str] = []
    monkeypatch.setattr(compiled, "_compile", lambda name: (found.append(name), code)[1])
    monkeypatch.setattr(compiled, "_addresses", {})
    return found


def address_anew() -> int:
    """The kernel's address, as another process finds it."""
    compiled._addresses.clear()
    kept.say.cache_clear()
    return compiled.address(NAME)


def test_another_kernels_file_under_this_name_is_compiled_again_and_written_whole(
    made: list[str], folder: Path
) -> None:
    assert address_anew() and made == [NAME]
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    assert address_anew() and made == [NAME]
    file.write_bytes(kept._head("chain.product", "0" * 64, b"code") + b"code")
    with pytest.warns(RuntimeWarning, match="is made anew") as said:
        assert address_anew() and made == [NAME] * 2
    assert len(said) == 1 and file.read_bytes() == whole
    assert address_anew() and made == [NAME] * 2


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="another owner needs root")
def test_a_folder_of_somebody_else_is_not_read(made: list[str], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    for count in (1, 2):
        with pytest.warns(RuntimeWarning, match="which others can write to"):
            assert address_anew() and len(made) == count
    assert not list(folder.iterdir())


def test_an_open_folder_is_not_read_and_none_can_be_wanted(
    made: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write(NAME, compiled._fingerprint(), b"not to be read")
    folder.chmod(0o777)
    before = [file.read_bytes() for file in folder.iterdir()]
    with pytest.warns(RuntimeWarning, match="chmod 700"):
        assert address_anew() and len(made) == 1
    assert [file.read_bytes() for file in folder.iterdir()] == before
    monkeypatch.setenv("SPARSERNN_CACHE", "")
    assert address_anew() and len(made) == 2
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("SPARSERNN_CACHE", str(folder.parent / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="can't be kept"):
        assert address_anew() and len(made) == 3


def test_widths_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERNN_VECTOR_WIDTH", "5")
    with pytest.raises(ValueError, match=r"SPARSERNN_VECTOR_WIDTH is '5': expected 4, 8 or 16\."):
        processor.__wrapped__()


WRONG: tuple[dict[str, object], ...] = (
    {"panel": [1.0]}, {"panel": 1.0}, {"panel": [-1.0, 1.0]}, {"panel": [float("nan"), 1.0]}, {"gates": [1.0]},
    {"gates": 10**400}, {"move": None}, {"bandwidth": [1, 0, 1]}, {"bandwidth": [1, 1]}, {"rows": "12"},
)  # fmt: skip


def test_tuned_costs_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "costs.json"
    for module in (costs, tune_module):
        monkeypatch.setattr(module, "tuned_file", lambda: file)
    costs.current.cache_clear()
    try:
        assert costs.current() == costs.Costs()
        measured = tune()
        assert costs.current() == measured != costs.Costs()
        for name in layouts.offered("float32"):
            assert all(part >= 0 for part in measured.layouts[name]) and max(measured.layouts[name]) > 0
        said = json.loads(file.read_text())
        wrong = (file.read_text()[:50], "[]", "[" * 100_000, *(json.dumps(said | change) for change in WRONG))
        for content in wrong:
            file.write_text(content)
            costs.current.cache_clear()
            assert costs.current() == costs.Costs(), content[:80]
    finally:
        costs.current.cache_clear()


def test_int8_without_the_instructions_runs_its_weights_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    without = replace(processor(), vnni=False)
    monkeypatch.setattr(layouts, "processor", lambda: without)
    model = nn.GRU(5, 6).eval()
    x = torch.randn(3, 2, 5)
    with pytest.warns(RuntimeWarning, match="no AVX-512 VNNI"):
        fast = accelerate(model, "int8")
    with torch.no_grad():
        for weight in (model.weight_ih_l0, model.weight_hh_l0):
            numbers, scales = integers(weight)
            weight.copy_(numbers * scales[:, None])
    assert torch.allclose(fast(x)[0], model(x)[0], atol=1e-6)
