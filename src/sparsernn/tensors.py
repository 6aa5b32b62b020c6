"""Reading safetensors files into memory of one's own: safetensors checks the header, plain reads bring the values.

A file that is mapped instead ends the process (SIGBUS) when somebody cuts it short, and counts twice in memory.
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

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
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
}
_TYPES = {name: dtype for dtype, name in DTYPES.items()}


class TensorFile:
    """An open safetensors file: `metadata`, and `shapes` and `dtypes` (safetensors' names) by tensor; `read()` brings
    the values. Raises ValueError for a file that is damaged, foreign or out of proportion, OSError where it can't be
    read. The length of the header is looked at before anything is parsed; `share` widens what is allowed, for files
    that hold more text than tensors.
    """

    def __init__(self, path: Path, share: int = 1) -> None:
        self._share = share
        self._file = path.open("rb")
        try:
            self._open(path)
        except BaseException:
            self._file.close()
            raise

    def _open(self, path: Path) -> None:
        size = path.stat().st_size
        start = self._file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
                raise ValueError("a pickle (torch.save), which is never read here; load it with torch.load.")
            raise ValueError(f"{size} bytes are too few for its header: it is cut short, or no safetensors file.")
        header = self._file.read(length) if length <= self._share * most_bytes(size) else b""
        if not header or _values(header) > self._share * most_values(size):
            raise ValueError(f"a header of {length} bytes in a file of {size}, far more than its content needs.")
        try:
            with safe_open(path, framework="pt") as checked:  # every offset and size, and that nothing is left over
                self.metadata: dict[str, str] = checked.metadata() or {}
                slices = {name: checked.get_slice(name) for name in checked.keys()}  # noqa: SIM118 (not a mapping)
                self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                self.dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
            entries = json.loads(header)
            self._places = {name: 8 + length + entries[name]["data_offsets"][0] for name in self.shapes}
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            raise ValueError(f"cut short, damaged or no safetensors file ({str(error)[:200]}).") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def read(self) -> dict[str, Tensor]:
        """Every tensor, on the CPU, in memory of its own."""
        values: dict[str, Tensor] = {}
        for name in sorted(self.shapes, key=self._places.__getitem__):
            dtype = _TYPES.get(self.dtypes[name])
            if dtype is None:
                raise ValueError(f"tensor {name[:100]!r} is {self.dtypes[name]}, which is not read here.")
            value = torch.empty(self.shapes[name], dtype=dtype, device="cpu")
            if value.numel():
                self._file.seek(self._places[name])
                bytes_ = value.reshape(-1).view(torch.uint8).numpy()
                if self._file.readinto(bytes_.data) != len(bytes_):
                    raise ValueError(f"cut short: it ends within the tensor {name[:100]!r}.")
            values[name] = value
        return values


def fits(content: bytes) -> bool:
    """Whether the header of a whole file is in proportion to it, so that `TensorFile` reads it."""
    length, size = int.from_bytes(content[:8], "little"), len(content)
    return length <= most_bytes(size) and _values(content[8 : 8 + length]) <= most_values(size)


def most_bytes(size: int) -> int:
    """The longest header that a file of `size` bytes may have."""
    return 2 * 2**20 + size // 16


def most_values(size: int) -> int:
    """As many values a header may have: parsing takes memory for each."""
    return 100_000 + size // 64


def _values(header: bytes) -> int:
    return header.count(b",") + header.count(b"[") + header.count(b"{")


def short(value: object) -> str:
    """`value` for an error message, at most 60 characters."""
    text = reprlib.repr(value)  # of limited depth
    return text if len(text) <= 60 else text[:57] + "..."
