"""A write that is stopped at any instant leaves the old file whole or the new one, and nothing else after the next."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sparsernn as srn
from sparsernn import files
from sparsernn.runtime import kept
from sparsernn_studies import checkpoint

# What an instant between the system's call and Python's first hold of it leaves open is closed when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OLD, NEW = nn.GRU(3, 4, batch_first=True).eval(), nn.GRU(3, 5, batch_first=True).eval()
FAULTS: dict[str, Callable[[], BaseException]] = {
    "Ctrl-C": KeyboardInterrupt,
    "disk full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "input/output error": lambda: OSError(errno.EIO, "Input/output error"),
}
FATAL = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


def _cached(number: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        os.environ["SPARSERNN_CACHE"] = str(path.parent)
        kept.write("a.b", "f" * 64, bytes([number]) * 500)

    return write


def _weights(path: Path) -> int:
    """Of a whole file, the columns of the recurrent matrix; a file that was cut is an error of the reader."""
    return load_file(path)["weight_hh_l0"].shape[1]


# Name of what writes -> the file's name, the writing of the old and of the new one, and what tells them apart, which is
# not always their bytes: the order of a safetensors file's metadata is random.
WRITERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object], Callable[[Path], object]]] = {
    "save": ("m", lambda path: srn.save(OLD, path), lambda path: srn.save(NEW, path), _weights),
    "checkpoint": (
        "m",
        lambda path: checkpoint.write(path, {"step": 1, "model": OLD.state_dict()}),
        lambda path: checkpoint.write(path, {"step": 2, "model": NEW.state_dict()}),
        lambda path: checkpoint.read(path)["step"],
    ),
    "export_onnx": (
        "m.onnx",
        lambda path: srn.export_onnx(OLD, path, torch.zeros(1, 4, 3)),
        lambda path: srn.export_onnx(NEW, path, torch.zeros(1, 4, 3)),
        Path.read_bytes,
    ),
    "cache": (f"a.b-{'f' * 24}.kernel", _cached(1), _cached(2), Path.read_bytes),
}


class At:
    """Does `act` at event `instant` of what files.py does: calls and returns, Python's and the system's."""

    def __init__(self, instant: int, act: Callable[[], None]) -> None:
        self.instant, self.act, self.seen = instant, act, 0

    def __call__(self, frame: Any, event: str, _argument: Any) -> None:
        if frame.f_code.co_filename == files.__file__:
            self.seen += 1
            if self.seen - 1 == self.instant:
                self.act()

    def __enter__(self) -> At:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def faults(writer: str, fault: str, folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fault` at so many instants, spread over all that the writing of a file has."""
    monkeypatch.setenv("SPARSERNN_CACHE", str(folder))
    name, write_old, write_new, read = WRITERS[writer]
    path = folder / name
    write_old(path)
    old = read(path)
    with At(-1, lambda: None) as every:
        write_new(path)
    new = read(path)
    assert every.seen > 30 and old != new
    found = set()
    for instant in sorted({round((n + 0.5) * every.seen / count) for n in range(count)}):
        write_old(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the cache says that it could not be kept
            stop(lambda: write_new(path), instant, fault)
        assert read(path) in (old, new), instant
        found.add(read(path) == new)
        write_new(path)
        assert [one.name for one in folder.iterdir()] == [name] and read(path) == new, instant
    assert found == {False, True} or count < 20  # before its name was given to the new file, and after


def stop(write: Callable[[], object], instant: int, fault: str) -> None:
    if fault in FAULTS:
        try:
            with At(instant, lambda: _raise(fault)):
                write()
        except (KeyboardInterrupt, OSError):
            pass
        return
    child = os.fork()
    if child == 0:
        with At(instant, lambda: os.kill(os.getpid(), FATAL[fault])):
            write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == FATAL[fault], instant


def _raise(fault: str) -> None:
    raise FAULTS[fault]()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "export_onnx"])
def test_a_fault_leaves_a_whole_file(writer: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults(writer, fault, tmp_path, 5, monkeypatch)


@pytest.mark.nightly
@pytest.mark.counts("faults_of_writes", 50)
@pytest.mark.parametrize("fault", [*FAULTS, *(FATAL if hasattr(os, "fork") else ())])
@pytest.mark.parametrize("writer", WRITERS)
def test_fifty_faults_leave_a_whole_file(
    writer: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(writer, fault, tmp_path, 50, monkeypatch)
