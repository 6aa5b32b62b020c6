"""Kernels that came with the package as LLVM's code, so that a first call needs neither numba nor its seconds.

`make dist` writes an archive for each kind of processor; a checkout has none, and its kernels go through numba. What
is here is of no processor's own yet: machine code is made of it at the first use, as of what numba gives.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import llvmlite.binding as llvm

from .processor import processor

FOLDER = Path(__file__).parent / "llvm"
_HEAD = "head.json"


def archive(folder: Path | None = None) -> Path:
    """The archive for this system and this kind of processor."""
    kind = f"{processor().width}{'-permute' if processor().permute else ''}"  # all that kernels depend on
    return (folder or FOLDER) / f"{llvm.get_process_triple()}-{kind}.zip"


def read(name: str, sources: str) -> str | None:
    """LLVM's code of kernel `name`, made of the same sources by the same LLVM; None where there is none."""
    try:
        with zipfile.ZipFile(archive()) as file:
            if _head(sources) != json.loads(file.read(_HEAD)):
                return None
            return file.read(f"{name}.ll").decode("ascii")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def write(folder: Path, code: Mapping[str, str], sources: str) -> Path:
    """The archive of these kernels; the same bytes for the same kernels."""
    folder.mkdir(parents=True, exist_ok=True)
    path = archive(folder)
    entries = {_HEAD: json.dumps(_head(sources)), **{f"{name}.ll": code[name] for name in sorted(code)}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, text in entries.items():
            file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # of 1980, as the format has it
    return path


@functools.cache
def _head(sources: str) -> dict[str, object]:
    return {"sources": sources, "llvm": list(llvm.llvm_version_info[:1])}
