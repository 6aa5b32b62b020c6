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
    "aarch64": ("aarch64-freestanding-none", "generic"),
    "aarch64 dotprod": ("aarch64-freestanding-none", "generic+dotprod"),
    "RISC-V": ("riscv32-freestanding-none", "generic_rv32+m+f+d+c"),
    "WebAssembly": ("wasm32-freestanding-none", "generic"),
    "WebAssembly simd128": ("wasm32-freestanding-none", "generic+simd128"),
}
EMULATED = ("Cortex-M4", "aarch64", "RISC-V")
STACK, RETURN = 0x7000000, 0x7800000  # in 128 MiB of memory from 0 on
PAINT, PAINTED = 0xA5, 1 << 16  # bytes below the stack's top that a call is seen to use


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


class Emulated:
    """A program in unicorn: `call` runs it from its entry; `instructions` and `stack` (bytes) say what that took."""

    def __init__(self, program: Path, target: str) -> None:
        unicorn: Any = require("unicorn", "running code of other processors")
        arm_const, arm64_const, riscv_const = (
            importlib.import_module(f"unicorn.{kind}_const") for kind in ("arm", "arm64", "riscv")
        )
        arm = {
            "Cortex-M4": (unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS, arm_const, "ARM"),
            "aarch64": (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, arm64_const, "ARM64"),
            "RISC-V": (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32, riscv_const, "RISCV"),
        }
        architecture, mode, names, prefix = arm[target.split()[0]]
        self.machine: Any = unicorn.Uc(architecture, mode)
        if target == "Cortex-M4":
            self.machine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        elif target == "aarch64 dotprod":
            self.machine.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        self.machine.mem_map(0, 128 << 20)
        self.thumb = target == "Cortex-M4"
        self.registers = {
            "stack": getattr(names, f"UC_{prefix}_REG_SP"),
            "return": getattr(names, f"UC_{prefix}_REG_{'RA' if prefix == 'RISCV' else 'LR'}"),
            "result": getattr(names, f"UC_{prefix}_REG_{ {'ARM': 'R0', 'ARM64': 'X0', 'RISCV': 'A0'}[prefix] }"),
        }
        self.entry = self._load(program.read_bytes())
        if target == "Cortex-M4":  # coprocessors 10 and 11: the FPU
            self.machine.reg_write(arm_const.UC_ARM_REG_FPEXC, 0x40000000)
        elif target.startswith("aarch64"):
            self.machine.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        else:
            self.machine.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 1 << 13)
        self.instructions = 0
        self.stack = 0

    def call(self, count: bool = False) -> int:
        if count:
            self.machine.hook_add(importlib.import_module("unicorn").UC_HOOK_CODE, self._counted)
        self.machine.mem_write(STACK - PAINTED, bytes([PAINT]) * PAINTED)
        self.machine.reg_write(self.registers["stack"], STACK)
        self.machine.reg_write(self.registers["return"], RETURN | self.thumb)
        self.machine.emu_start(self.entry | self.thumb, RETURN)
        below = bytes(self.machine.mem_read(STACK - PAINTED, PAINTED))
        self.stack = len(below.lstrip(bytes([PAINT])))
        return self.machine.reg_read(self.registers["result"]) & 0xFFFFFFFF

    def _counted(self, *_: object) -> None:
        self.instructions += 1

    def _load(self, data: bytes) -> int:
        """Copy the segments of an ELF file; its entry."""
        wide = data[4] == 2
        entry, table = struct.unpack_from("<QQ" if wide else "<II", data, 24)
        size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
        for k in range(count):
            at = table + k * size
            if wide:
                kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
            else:
                kind, offset, address, _, length = struct.unpack_from("<IIIII", data, at)
            if kind == 1 and length:
                self.machine.mem_write(address, data[offset : offset + length])
        return entry & ~1


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
