"""Other processors: zig's C compiler for all of them, unicorn and wasmtime to run what it makes (all by pip)."""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import pytest

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
    "Cortex-M4": ("thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp"),
    "aarch64": ("aarch64-freestanding-none", "generic"),
    "RISC-V": ("riscv32-freestanding-none", "generic_rv32+m+f+d+c"),
    "WebAssembly": ("wasm32-freestanding-none", "generic"),
    "WebAssembly simd128": ("wasm32-freestanding-none", "generic+simd128"),
}
STACK, RETURN = 0x7000000, 0x7800000  # in 128 MiB of memory from 0 on


def need(*modules: str) -> None:
    """Skip where one of these packages is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def zig(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", *arguments], check=True)


def built(folder: Path, source: Path, entry: str, target: str, *flags: str) -> Path:
    """`source` and what it needs of a C library, linked for `target`."""
    triple, processor = TARGETS[target]
    (folder / "memory.c").write_text(MEMORY)
    own = ["-fPIC"] if triple.startswith("x86") else []
    objects = []
    for file, extra in ((source, flags), (folder / "memory.c", ("-fno-builtin",))):
        objects.append(str(folder / f"{file.stem}.o"))
        zig("cc", "-target", triple, f"-mcpu={processor}", "-O2", "-fno-sanitize=all", "-ffreestanding", "-Werror",
            *own, *extra, "-c", str(file), "-o", objects[-1])  # fmt: skip
    program = folder / f"{source.stem}.{triple[:4]}"
    if triple.startswith("wasm"):
        zig("wasm-ld", "--no-entry", f"--export={entry}", *objects, "-o", str(program))
    elif triple.startswith("x86"):
        zig("ld.lld", "-shared", *objects, "-o", str(program))
    else:
        zig("ld.lld", "-static", f"--entry={entry}", "--image-base=0x100000", *objects, "-o", str(program))
    return program


def run(program: Path, entry: str, target: str) -> int:
    """What the function without arguments gives on that processor."""
    if target.startswith("Web"):
        return _in_wasmtime(program, entry)
    if target in ("x86-64", "AVX2", "AVX-512"):
        _has(target)
        return getattr(ctypes.CDLL(str(program)), entry)()
    return Emulated(program, target).call()


def _has(target: str) -> None:
    flag = {"AVX2": "avx2", "AVX-512": "avx512vl"}.get(target, "sse2")
    if flag not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {target}")


def _in_wasmtime(program: Path, entry: str) -> int:
    need("wasmtime")
    import wasmtime

    store = wasmtime.Store()
    module = wasmtime.Module.from_file(store.engine, str(program))
    instance = wasmtime.Instance(store, module, [])
    return instance.exports(store)[entry](store)


class Emulated:
    """A program in unicorn."""

    def __init__(self, program: Path, target: str) -> None:
        need("unicorn")
        import unicorn
        from unicorn import arm64_const, arm_const, riscv_const

        arm = {
            "Cortex-M4": (unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS, arm_const, "ARM"),
            "aarch64": (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, arm64_const, "ARM64"),
            "RISC-V": (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32, riscv_const, "RISCV"),
        }
        architecture, mode, names, prefix = arm[target]
        self.machine = unicorn.Uc(architecture, mode)
        if target == "Cortex-M4":
            self.machine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
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
        elif target == "aarch64":
            self.machine.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        else:
            self.machine.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 1 << 13)
        self.instructions = 0

    def call(self, count: bool = False) -> int:
        import unicorn

        if count:
            self.machine.hook_add(unicorn.UC_HOOK_CODE, self._counted)
        self.machine.reg_write(self.registers["stack"], STACK)
        self.machine.reg_write(self.registers["return"], RETURN | self.thumb)
        self.machine.emu_start(self.entry | self.thumb, RETURN)
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
