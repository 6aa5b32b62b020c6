"""The file of a saved model: safetensors with one JSON text and its digest in the metadata.

Nothing in it can execute. Sizes are compared with the safetensors header, and that with the file's length, before
any tensor is read; a SHA-256 over the JSON text and all tensors finds every flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from .._files import write_atomically

FORMAT = 1
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


class Fault(Exception):
    """A field of the file that is not as it should be."""

    def __init__(self, field: str, words: str) -> None:
        super().__init__(f"{field}: {words}")


def write_container(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write atomically. `tensors`: contiguous, on the CPU, none sharing memory with another."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    metadata = {"sparsernn": text, "sha256": digest(text, tensors)}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first.")
    write_atomically(path, safetensors_torch.save(dict(tensors), metadata))


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON text and of every tensor's bytes, in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def read_container(path: Path) -> tuple[dict[str, Any], OpenTensors]:
    """The JSON header and the tensors, not yet read. Raises `Fault`, or OSError where the file can't be opened."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8 or int.from_bytes(start, "little") > size - 8:
        if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
            raise Fault("file", "a pickle (torch.save), which is never read here; load it with torch.load.")
        raise Fault("file", f"{size} bytes are too few for its header: it is cut short, or no safetensors file.")
    try:
        file = safe_open(path, framework="pt", device="cpu")
        metadata = file.metadata() or {}
        names = list(file.keys())
    except (SafetensorError, UnicodeError) as error:
        raise Fault("file", f"cut short, damaged or no safetensors file ({error}).") from None
    if "sparsernn" not in metadata:
        raise Fault(
            "metadata.sparsernn", "missing, so sparsernn.save did not write this; use safetensors.torch.load_file."
        )
    text = metadata["sparsernn"]
    header = parse(text, 100_000 + size // 64)
    version = header.get("format")
    if type(version) is int and version > FORMAT:
        by = header.get("sparsernn")
        raise Fault("format", f"{version}, written by sparsernn {by}; this one reads up to {FORMAT}: upgrade it.")
    if type(version) is not int or version < 1:
        raise Fault("format", f"got {short(version)}, expected a whole number from 1 to {FORMAT}.")
    return header, OpenTensors(file, names, text, metadata.get("sha256"))


class OpenTensors:
    """The tensors of an open file: shapes and dtypes at once, values (all together) when asked for."""

    def __init__(self, file: Any, names: list[str], text: str, sha256: str | None) -> None:
        self._file, self._text, self._sha256 = file, text, sha256
        slices = {name: file.get_slice(name) for name in names}
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self.dtypes = {name: part.get_dtype() for name, part in slices.items()}

    def read(self) -> dict[str, Tensor]:
        """Every tensor, in memory of its own; raises `Fault` if the digest differs."""
        # clone: what safetensors gives is a window on the file, which may change later.
        values = {name: self._file.get_tensor(name).clone() for name in self.shapes}
        if digest(self._text, values) != self._sha256:
            raise Fault("metadata.sha256", "does not fit the content: the file was damaged or edited.")
        return values


def parse(text: str, most: int) -> dict[str, Any]:
    """Strict JSON: no NaN or infinity, no key twice, at most about `most` values."""
    if text.count(",") + text.count("[") + text.count("{") > most:
        raise Fault("metadata.sparsernn", f"more than {most} values, far more than a model of this size has.")

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        header = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Fault("metadata.sparsernn", f"no valid JSON ({error}).") from None
    if not isinstance(header, dict):
        raise Fault("metadata.sparsernn", f"got {short(header)}, expected a JSON object.")
    return header


def short(value: object) -> str:
    """`value` for an error message, at most 60 characters."""
    text = reprlib.repr(value)  # of limited depth
    return text if len(text) <= 60 else text[:57] + "..."
