"""Other processors: a C compiler for all of them (zig's), emulators that run what it makes (unicorn, wasmtime); by pip.

pip install 'sparsernn[devices]'
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..extras import require
from .emulator import Emulated

MEMORY = """\
#include <stddef.h>
void *memset(void *, int, size_t);
void *memcpy(void *, const void *, size_t);
void *memset(void *to, int value, size_t n)
{
    volatile unsigned char *p = (unsigned char *)to;
    while (n--)
        *p++ = (unsigned char)value;
    return to;
}
void *memcpy(void *to, const void *from, size_t n)
{
    volatile unsigned char *p = (unsigned char *)to;
    const unsigned char *q = (const unsigned char *)from;
    while (n--)
        *p++ = *q++;
    return to;
}
#if defined(__arm__) /* the names that compilers for Arm call them by */
void __aeabi_memclr(void *, size_t);
void __aeabi_memclr4(void *, size_t);
void __aeabi_memcpy(void *, const void *, size_t);
void __aeabi_memcpy4(void *, const void *, size_t);
void __aeabi_memclr(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memclr4(void *to, size_t n) { memset(to, 0, n); }
void __aeabi_memcpy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
void __aeabi_memcpy4(void *to, const void *from, size_t n) { memcpy(to, from, n); }
#endif
"""
TARGETS = {
    "x86-64": ("x86_64-freestanding-none", "x86_64"),
    "AVX2": ("x86_64-freestanding-none", "x86_64_v3"),
    "AVX-512": ("x86_64-freestanding-none", "x86_64_v4"),
    "AVX-512 VNNI": ("x86_64-freestanding-none", "x86_64_v4+avx512vnni"),
    "Cortex-M4": ("thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp"),
    "Cortex-M7": ("thumb-freestanding-eabihf", "cortex_m7+fp_armv8d16"),
    "armv7": ("arm-freestanding-eabihf", "cortex_a9"),
    "aarch64": ("aarch64-freestanding-none", "generic"),
    "aarch64 dotprod": ("aarch64-freestanding-none", "generic+dotprod"),
    "RISC-V": ("riscv32-freestanding-none", "generic_rv32+m+f+d+c"),
    "PowerPC": ("powerpc-freestanding-eabihf", "generic"),  # the one that is big-endian
    "WebAssembly": ("wasm32-freestanding-none", "generic"),
    "WebAssembly simd128": ("wasm32-freestanding-none", "generic+simd128"),
}
EMULATED = ("Cortex-M4", "aarch64", "RISC-V")  # those that are measured


def missing(*modules: str) -> list[str]:
    """Which of these packages are not installed."""
    return [module for module in modules if importlib.util.find_spec(module) is None]


def zig(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", *arguments], check=True)


def compiled(source: Path, target: str, *flags: str, level: str = "-O2") -> Path:
    """The object file of `source` beside it. Raises CalledProcessError where the compiler refuses it."""
    triple, processor = TARGETS[target]
    made = source.with_suffix(".o")
    own = ["-fPIC"] if triple.startswith("x86") else []
    zig("cc", "-target", triple, f"-mcpu={processor}", level, "-fno-sanitize=all", "-ffreestanding", "-Werror",
        *own, *flags, "-c", str(source), "-o", str(made))  # fmt: skip
    return made


def built(folder: Path, source: Path, entries: str | Sequence[str], target: str, *flags: str) -> Path:
    """`source` and what it needs of a C library, linked for `target`; the first of `entries` is where it begins."""
    entries = [entries] if isinstance(entries, str) else list(entries)
    triple, _ = TARGETS[target]
    (folder / "memory.c").write_text(MEMORY)
    objects = [str(compiled(source, target, *flags)), str(compiled(folder / "memory.c", target, "-fno-builtin"))]
    program = folder / f"{source.stem}.{triple[:4]}"
    if triple.startswith("wasm"):
        zig("wasm-ld", "--no-entry", *(f"--export={e}" for e in entries), *objects, "-o", str(program))
    elif triple.startswith("x86"):
        zig("ld.lld", "-shared", *objects, "-o", str(program))
    else:
        zig("ld.lld", "-static", f"--entry={entries[0]}", "--image-base=0x100000", *objects, "-o", str(program))
    return program


def run(program: Path, entry: str, target: str) -> int:
    """What the function without arguments gives on that processor."""
    if target.startswith("Web"):
        return _in_wasmtime(program, entry)
    if TARGETS[target][0].startswith("x86"):
        return getattr(ctypes.CDLL(str(program)), entry)()
    return Emulated(program, target).call()


def _in_wasmtime(program: Path, entry: str) -> int:
    wasmtime: Any = require("wasmtime", "running WebAssembly")
    store = wasmtime.Store()
    module = wasmtime.Module.from_file(store.engine, str(program))
    instance = wasmtime.Instance(store, module, [])
    function: Any = instance.exports(store)[entry]
    return function(store)


def code_bytes(data: bytes) -> int:
    """Bytes of the instructions in an ELF file, literals among them; tables lie in other sections."""
    wide = data[4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", data, 58 if wide else 46)
    total = 0
    for k in range(count):
        flags, _, _, length = struct.unpack_from("<QQQQ" if wide else "<IIII", data, table + k * size + 8)
        total += length if flags & 4 else 0  # SHF_EXECINSTR
    return total
