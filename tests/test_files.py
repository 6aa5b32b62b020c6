"""Atomic writes: whatever happens there is the old file or the new one, and nothing beside it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsernn import files as _files
from sparsernn.files import write_atomically
from sparsernn.surgery.checkpoint import load, save

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and locks of POSIX")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@posix
def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "far").mkdir()
    real = tmp_path / "far" / "model"
    real.write_text("old")
    for link, to in (("absolute", real), ("relative", Path("far/model")), ("twice", Path("relative"))):
        (tmp_path / link).symlink_to(to)
        write_atomically(tmp_path / link, link)
        assert (tmp_path / link).is_symlink() and real.read_text() == link and names(tmp_path / "far") == {"model"}
    (tmp_path / "dangling").symlink_to("far/new")
    write_atomically(tmp_path / "dangling", "new")
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "far" / "new").read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_atomically(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()


@posix
def test_what_is_no_regular_file_is_refused(tmp_path):
    folder, pipe, link = tmp_path / "folder", tmp_path / "pipe", tmp_path / "link"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    here = os.getcwd()
    os.chdir(tmp_path)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")
            for path in (folder, pipe, link, tmp_path / "socket", Path("/dev/null"), Path("/dev/full")):
                with pytest.raises(FileExistsError, match=rf"{path} is a (folder|device)"):
                    save(nn.Linear(1, 1), path)
    finally:
        os.chdir(here)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and stat.S_ISFIFO(pipe.stat().st_mode) and link.is_symlink()
    for path in (folder, pipe, Path("/dev/zero")):
        with pytest.raises(FileNotFoundError, match="no regular file"):
            load(nn.Linear(1, 1), path)
    assert names(tmp_path) == {"folder", "pipe", "link", "socket"}


@posix
@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, " ", "-", "a\nb", "[x]*?"])
def test_any_name_that_the_file_system_takes(name, tmp_path):
    for content in ("one", "two"):
        write_atomically(tmp_path / name, content)
        assert names(tmp_path) == {name} and (tmp_path / name).read_text() == content


def test_a_name_too_long_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="n" * 256):
        write_atomically(tmp_path / ("n" * 256), "x")
    assert names(tmp_path) == set()


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_permissions_stay(mode, tmp_path):
    path = tmp_path / "m"
    before = os.umask(0o027)
    try:
        write_atomically(path, "one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(mode)
        write_atomically(path, "two")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == "two"


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everything")
def test_a_protected_file_stays(tmp_path):
    path = tmp_path / "m"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="may not be written"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


@posix
def test_another_hard_link_keeps_the_old_content(tmp_path):
    (tmp_path / "a").write_text("old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "b").read_text() == "old"


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(where, error, tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_text("old")

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        if where != "write":
            patch.setattr(os, where, fails)
        with pytest.raises(type(error)):
            write_atomically(path, fails if where == "write" else "new")
    assert names(tmp_path) == {"m"} and path.read_text() == "old"


@posix
def test_a_folder_that_does_not_synchronise_takes_nothing_back(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "m", "new")
    assert names(tmp_path) == {"m"} and (tmp_path / "m").read_text() == "new"


KILLED = """
import runpy, sys, time
write_atomically = runpy.run_path(sys.argv[2])["write_atomically"]  # without torch, which takes seconds
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
write_atomically(sys.argv[1], write)
"""


@posix
def test_what_a_killed_write_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    path = tmp_path / "m"
    call = [sys.executable, "-c", KILLED, str(path), _files.__file__]
    first, second = (subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2))
    for child in (first, second):
        assert child.stdout is not None and child.stdout.readline() == "writing\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(names(tmp_path)) == 2
    write_atomically(tmp_path / "other", "x")
    assert len(names(tmp_path)) == 3
    write_atomically(path, "new")  # the dead one's goes
    assert len(names(tmp_path)) == 3 and {"m", "other"} < names(tmp_path)
    second.kill()
    second.communicate()
    write_atomically(path, "newer")
    assert names(tmp_path) == {"m", "other"} and path.read_text() == "newer"


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "m"
    errors: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(30):
                write_atomically(path, content)
                assert len(set(path.read_bytes())) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(bytes([n]) * 4000,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and names(tmp_path) == {"m"} and path.stat().st_size == 4000


def test_without_locks_it_writes_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "locks", None)
    (tmp_path / "m").write_text("old")
    write_atomically(tmp_path / "m", "new")
    assert names(tmp_path) == {"m"} and (tmp_path / "m").read_text() == "new"


def test_a_model_through_a_link_comes_back(tmp_path):
    model = nn.LSTM(2, 3)
    try:
        (tmp_path / "link").symlink_to("model")
    except OSError:
        pytest.skip("no symbolic links here")
    save(model, tmp_path / "link")
    assert torch.equal(load(nn.LSTM(2, 3), tmp_path / "model").weight_hh_l0, model.weight_hh_l0)
