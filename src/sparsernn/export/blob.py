"""Tables in a file of their own, NAME.bin: loaded by the caller, checked by NAME_open, handed to each step.

16 bytes of head (SRNC, format, size of all, hash), then the tables, each at a multiple of 16; little-endian.
"""

from __future__ import annotations

import struct

import numpy as np

from .products import Tables

MAGIC = b"SRNC"
HEAD, ALIGNED = 16, 16
FORMAT = 1


def offsets(tables: Tables) -> dict[str, int]:
    """Where each table begins, and under "" where the file ends."""
    found, at = {}, HEAD
    for name, array in tables.arrays.items():
        found[name] = at
        at += -(-array.nbytes // ALIGNED) * ALIGNED
    return {**found, "": at}


def blob(tables: Tables) -> bytes:
    """The content of the file."""
    places = offsets(tables)
    data = bytearray(places[""])
    for name, array in tables.arrays.items():
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        data[places[name] : places[name] + len(raw)] = raw
    struct.pack_into("<4sIII", data, 0, MAGIC, FORMAT, len(data), hashed(bytes(data[HEAD:])))
    return bytes(data)


def hashed(data: bytes) -> int:
    """32 bits of the little-endian words of `data`: h = (h xor word) * 16777619, and h ^= h >> 15."""
    h = 2166136261
    for word in np.frombuffer(data, "<u4").tolist():
        h = (h ^ word) * 16777619 & 0xFFFFFFFF
        h ^= h >> 15
    return h


def names(tables: Tables, types: dict[str, str]) -> list[str]:
    """C: each table's name as a place in the file."""
    places = offsets(tables)
    return [f"#define {n} ((const {types[a.dtype.name]} *)(weights + {places[n]}))" for n, a in tables.arrays.items()]


DECLARED = """
/* Whether these are the weights of this model, NAME.bin as it was written, at a multiple of 4 bytes: 0, or
   1: another size, 2: not aligned, 3: another file, format or byte order, 4: damaged, or of another model. */
int $open(const void *file, uint32_t size);
"""


def opened(tables: Tables) -> str:
    """C: the function that checks the file."""
    data = blob(tables)
    first, _, size, own = struct.unpack_from("<IIII", data)
    return f"""\
int $open(const void *file, uint32_t size)
{{
    const uint32_t *const words = (const uint32_t *)file;
    uint32_t h = 2166136261u;
    if (size != {size}u)
        return 1;
    if ((uintptr_t)file % 4u != 0u)
        return 2;
    if (words[0] != {first}u || words[1] != {FORMAT}u || words[2] != size)
        return 3;
    for (uint32_t k = {HEAD // 4}; k < size / 4u; ++k) {{
        h = (h ^ words[k]) * 16777619u;
        h ^= h >> 15;
    }}
    return h == {own}u && words[3] == h ? 0 : 4;
}}
"""
