"""Atomic writes: a reader finds the old file or the whole new one, at any instant of a crash."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: str | Path, write: Callable[[BinaryIO], object] | bytes | str, mode: int | None = None
) -> None:
    """Write `path` through a temporary file beside it, fsync and rename.

    `write` is the content (str as UTF-8) or a function that writes it to the open binary file. On any error the old
    file is untouched and the temporary one is gone. `mode`: the file's permissions, where they are not the old file's
    or those of `open`.
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(write, (bytes, str)):
                file.write(write.encode() if isinstance(write, str) else write)
            else:
                write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target) if mode is None else mode)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _mode(target: Path) -> int:
    # mkstemp makes 0600; keep what the old file had, else what open() would give.
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
