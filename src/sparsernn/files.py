"""Atomic writes: a reader finds the old file or the whole new one, at any instant of a crash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

locks: ModuleType | None
try:
    import fcntl as locks
except ImportError:  # Windows
    locks = None


def write_atomically(
    path: str | Path, write: Callable[[BinaryIO], object] | bytes | str, mode: int | None = None
) -> None:
    """Write `path` through a temporary file beside it, fsync and rename.

    `write` is the content (str as UTF-8) or a function that writes it to the open binary file. On any error the old
    file is untouched and the temporary one is gone; one that a killed write of the same file left is removed first. A
    symbolic link is followed, the old file's owner and permissions stay (with `mode` they are the writer's and these),
    and other hard links to it keep the old content. Raises OSError, for what is no regular file as well.
    """
    target = Path(os.path.realpath(path))
    old = _regular(path)
    prefix = f".sparsernn-{hashlib.sha256(target.name.encode(errors='surrogateescape')).hexdigest()[:12]}-"
    _remove_abandoned(target.parent, prefix)
    with (
        _naming(path),
        _temporary(target.parent, prefix, 0o666 if old is None and mode is None else 0o600) as (file, temporary),
    ):
        if mode is not None:
            os.chmod(temporary, mode)
        elif old is not None:
            _keep_owner(temporary, old)
        if isinstance(write, (bytes, str)):
            file.write(write.encode() if isinstance(write, str) else write)
        else:
            write(file)
        file.flush()
        os.fsync(file.fileno())
        if locks is None:
            file.close()  # Windows renames no open file; elsewhere it stays locked until it has its name
        os.replace(temporary, target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """An error of the system names `path` where it names none: a full disk says only that it is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def _regular(path: str | Path) -> os.stat_result | None:
    """Of the file at `path`, links followed, or None; FileExistsError for anything that is no regular file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "device, pipe or socket"
        raise FileExistsError(f"{path} is a {kind}: give the path of a file, or one that is free.")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} may not be written (its permissions are {stat.filemode(found.st_mode)}).")
    return found


@contextlib.contextmanager
def _temporary(folder: Path, prefix: str, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file, locked while it is open; gone in the end if it still has its name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        # Short whatever the target's name is, so that no limit of a file system is met.
        temporary = folder / f"{prefix}{secrets.token_hex(6)}.tmp"
        descriptor = os.open(temporary, flags, mode)
        try:  # from here on nothing that stops us leaves it
            with os.fdopen(descriptor, "w+b") as file:
                locked = _lock(file)
                if locked is None or (locked and _same(file, temporary)):
                    yield file, temporary
                    return
                # Another process took it for abandoned before it was locked.
        finally:
            temporary.unlink(missing_ok=True)


def _keep_owner(temporary: Path, old: os.stat_result) -> None:
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only some may give files away
            os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, stat.S_IMODE(old.st_mode) & 0o777)


def _lock(file: BinaryIO) -> bool | None:
    """Lock `file`: whether nobody else has it locked, None where files can't be locked. The kernel unlocks what a
    killed process held."""
    if locks is None:
        return None
    try:
        locks.flock(file.fileno(), locks.LOCK_EX | locks.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Unlink temporary files whose writer is no more; where files can't be locked they stay."""
    if locks is None:
        return
    with contextlib.suppress(OSError):  # a folder that can't be listed, a file that somebody else removes
        for name in [name for name in os.listdir(folder) if name.startswith(prefix)]:
            with contextlib.suppress(OSError), (folder / name).open("rb") as file:
                if _lock(file) and _same(file, folder / name):
                    (folder / name).unlink()


def _sync_folder(folder: Path) -> None:
    # The new file has its name already: a folder that can't be opened or synchronised takes nothing of that back.
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
