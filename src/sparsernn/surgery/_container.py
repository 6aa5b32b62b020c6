"""The file of a saved model: safetensors with one JSON text and its digest in the metadata.

Nothing in it can execute. Sizes are compared with the safetensors header, and that with the file's length, before
any tensor is read; a SHA-256 over the JSON text and all tensors finds every flipped bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from ..files import write_atomically
from ..tensors import DTYPES, TensorFile, fits, short

FORMAT = 2  # the newest that is read; what needs nothing of it is written as 1
NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES if not dtype.is_complex}


class Fault(Exception):
    """A field of the file that is not as it should be."""

    def __init__(self, field: str, words: str) -> None:
        text = _printable(f"{field[:200]}: {words}")
        super().__init__(text if len(text) <= 600 else text[:597] + "...")


def write_container(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write atomically. `tensors`: contiguous, on the CPU, none sharing memory with another.

    Raises ValueError for a header that `read_container` would refuse: a model of far more modules than weights.
    """
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    metadata = {"sparsernn": text, "sha256": digest(text, tensors)}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first.")
    content = safetensors_torch.save(dict(tensors), metadata)
    if not fits(content):
        raise ValueError(f"{path}: a model of {len(tensors)} tensors has too many parts for one file; save its parts.")
    write_atomically(path, content)


def _printable(text: str) -> str:
    """Names come from the file: no line breaks, no codes for terminals, nothing that can't be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON text and of every tensor's bytes, in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def open_container(path: Path) -> TensorFile:
    """The file, its outer header checked. Raises `Fault`, or OSError where it can't be read."""
    try:
        return TensorFile(path)
    except ValueError as error:
        raise Fault("file", str(error)) from None


def read_header(file: TensorFile) -> dict[str, Any]:
    """The JSON header of an open file. Raises `Fault`."""
    metadata = file.metadata
    if "sparsernn" not in metadata:
        raise Fault(
            "metadata.sparsernn", "missing, so sparsernn.save did not write this; use safetensors.torch.load_file."
        )
    text = metadata["sparsernn"]
    header = parse(text)
    version = header.get("format")
    if type(version) is int and version > FORMAT:
        by = header.get("sparsernn")
        raise Fault(
            "format", f"{short(version)}, written by sparsernn {short(by)}; this one reads up to {FORMAT}: upgrade it."
        )
    if type(version) is not int or version < 1:
        raise Fault("format", f"got {short(version)}, expected a whole number from 1 to {FORMAT}.")
    return header


def read_tensors(file: TensorFile) -> dict[str, Tensor]:
    """Every tensor of an open file; raises `Fault` if the digest differs."""
    try:
        values = file.read()
    except ValueError as error:
        raise Fault("file", str(error)) from None
    if digest(file.metadata["sparsernn"], values) != file.metadata.get("sha256"):
        raise Fault("metadata.sha256", "does not fit the content: the file was damaged or edited.")
    return values


def parse(text: str) -> dict[str, Any]:
    """Strict JSON: no NaN or infinity, no key twice."""

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


def mapping(header: dict[str, Any], field: str, kind: type) -> dict[str, Any]:
    value = header.get(field)
    if not isinstance(value, dict) or not all(isinstance(part, kind) for part in value.values()):
        raise Fault(field, f"got {short(value)}, expected an object of {kind.__name__} values.")
    return value
