"""Where data sets lie, and the check of every file before it is used."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import StudyError

LARGEST = 1 << 30  # bytes that one file may unfold to


class DataError(StudyError):
    """A data file is missing, damaged or not the one that was expected; the message says which and what to do."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its path in the data folder, its sha256, and the address where it can be had.

    A path that ends in ".gz" may lie there unpacked, too, without that ending: `unpacked` is the sha256 of the content.
    """

    path: str
    sha256: str
    unpacked: str
    address: str


def data_folder(chosen: str | Path | None) -> Path | None:
    """The folder of `--data`, else that of SPARSERNN_DATA, else None. Raises DataError if it is not a folder."""
    named = chosen if chosen is not None else os.environ.get("SPARSERNN_DATA") or None
    if named is None:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"The data folder {folder} does not exist; name one that does with --data or SPARSERNN_DATA.")
    return folder


def read(file: DataFile, folder: Path | None) -> bytes:
    """The content of `file` in `folder`, unpacked, after its sha256 was checked.

    Raises DataError, which names the file and where to get it, if it is missing, damaged or too large.
    """
    if folder is None:
        raise DataError(
            f"{file.path} is needed and no data folder is given.\n"
            f"Get it from {file.address}, put it in a folder at that path, and name the folder with --data."
        )
    packed = folder / file.path
    plain = packed.with_suffix("") if packed.suffix == ".gz" else packed
    if packed.is_file():
        return unpack(checked(packed.read_bytes(), file.sha256, packed), packed)
    if plain.is_file():
        return checked(plain.read_bytes(), file.unpacked, plain)
    either = file.path if plain == packed else f"{file.path} (or {plain.name})"
    raise DataError(f"{folder} lacks {either}.\nGet it from {file.address} and put it there.")


def checked(content: bytes, sha256: str, path: Path) -> bytes:
    """`content` if its sha256 is as given; raises DataError otherwise."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not the expected file: its sha256 is {found[:16]}..., expected {sha256[:16]}...\n"
            "Fetch it again; results on other data could not be compared."
        )
    return content


def unpack(content: bytes, path: Path, largest: int = LARGEST) -> bytes:
    """`content` of the file `path`, unpacked if it is gzip, at most `largest` bytes."""
    if path.suffix != ".gz":
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        plain = file.read(largest + 1)
    if len(plain) > largest:
        raise DataError(f"{path} unfolds to more than {largest} bytes; it was not read.")
    return plain
