"""Compiled kernels kept on disk, in a folder that is the user's own.

Machine code is executable by nature, so nothing is read that somebody else could have written: folder and file have to
belong to this user and be closed to the writing of others. What is read has to be whole and made for just this kernel,
of these sources, versions and this processor; whatever does not fit is compiled anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import sys
import time
import warnings
from pathlib import Path

from ..files import write_atomically

_FORMAT = b"sparsernn kernel 2\n"
_MOST = 64 << 20  # bytes; the largest kernel has 200 kB
_MONTH = 30 * 86400


def cache_folder() -> Path | None:
    """The folder of compiled kernels, or None if it can't be the user's own alone (then nothing is kept).

    `SPARSERNN_CACHE` names another one; an empty value turns the cache off.
    """
    chosen = os.environ.get("SPARSERNN_CACHE")
    if chosen == "":
        return None
    try:
        folder = Path(chosen) if chosen is not None else _usual_folder()
    except RuntimeError:
        folder = Path()
    if chosen is None and not folder.is_absolute():
        say("Compiled kernels can't be kept, since this user has no home folder: set SPARSERNN_CACHE.")
        return None
    try:
        # Each folder made on the way is closed too, whatever the umask.
        for missing in (*reversed(folder.parents), folder):
            missing.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        say(f"Compiled kernels can't be kept in {folder} ({error.strerror}): set SPARSERNN_CACHE.")
        return None
    if not _own(found):
        say(f"No compiled kernels are read from {folder}, which others can write to: chmod 700 it.")
        return None
    return folder


def _usual_folder() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        # A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = base if base.is_absolute() else Path.home() / ".cache"
    return base / "sparsernn" / "kernels"


def _own(found: os.stat_result) -> bool:
    """Whether only this user can write there: whoever else could would run code as this user."""
    return os.name != "posix" or (found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022)


def read(name: str, fingerprint: str) -> bytes | None:
    """The kept object code of kernel `name` of that fingerprint.

    None where there is none, and with a warning where a file is there that does not fit.
    """
    folder = cache_folder()
    if folder is None:
        return None
    path = _file(folder, name, fingerprint)
    try:
        content = _content(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        content, why = None, error.strerror or str(error)
    else:
        why = "it is not this user's own file"
    if content is not None:
        size = len(_head(name, fingerprint, b""))
        if content[:size] == _head(name, fingerprint, content[size:]):
            return content[size:]
        why = "it is damaged or another kernel's"
    say(f"A compiled kernel in {folder} is made anew ({path.name}: {why}).")
    return None


def write(name: str, fingerprint: str, code: bytes) -> None:
    """Keep the object code of kernel `name`."""
    folder = cache_folder()
    if folder is None:
        return
    path = _file(folder, name, fingerprint)
    _clear(path)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.unlink()
        write_atomically(path, _head(name, fingerprint, code) + code, mode=0o600)
    except OSError as error:
        say(f"A compiled kernel could not be kept in {folder} ({error.strerror}).")


def _file(folder: Path, name: str, fingerprint: str) -> Path:
    return folder / f"{name}-{fingerprint[:24]}.kernel"


def _head(name: str, fingerprint: str, code: bytes) -> bytes:
    """What stands before the code: the hash of the code, of the kernel's name and of all that it depends on."""
    digest = hashlib.sha256(f"{name} {fingerprint}\n".encode() + code)
    return _FORMAT + digest.hexdigest().encode() + b"\n"


def _content(path: Path) -> bytes | None:
    """The content of a regular file of this user's own; None for anything else (links, pipes, others' files)."""
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # a pipe would let us wait for ever
        flags |= getattr(os, flag, 0)
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        return file.read(_MOST) if stat.S_ISREG(found.st_mode) and _own(found) else None


def _clear(path: Path) -> None:
    """Remove what other versions, and writers killed half-way, left of this kernel a month ago or earlier."""
    name = path.name.rpartition("-")[0]
    for old in (*path.parent.glob(f"{name}-*.kernel"), *path.parent.glob(".sparsernn-*.tmp")):
        with contextlib.suppress(OSError):
            if old != path and time.time() - old.stat().st_mtime > _MONTH:
                old.unlink()


@functools.cache
def say(sentence: str) -> None:
    """A warning, once a process."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=2)
