"""Programs of other processors run in an emulator, unicorn: what they give, their instructions, their stack."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

from ..extras import require

STACK, RETURN = 0x7000000, 0x7800000  # in 128 MiB of memory from 0 on
PAINT, PAINTED = 0xA5, 1 << 16  # bytes below the stack's top that a call is seen to use


class Processor(NamedTuple):
    """What unicorn calls it. registers: of the stack, of the address to return to, of the result; on: what switches
    floating point on."""

    module: str
    architecture: str
    modes: tuple[str, ...]
    registers: tuple[str, str, str]
    on: dict[str, int]
    model: str = ""


_ARM, _ARM64 = ("SP", "LR", "R0"), ("SP", "LR", "X0")
_MICRO, _FPU = ("THUMB", "MCLASS"), {"FPEXC": 0x40000000}
PROCESSORS = {
    "Cortex-M4": Processor("arm", "ARM", _MICRO, _ARM, _FPU, "ARM_CORTEX_M4"),
    "Cortex-M7": Processor("arm", "ARM", _MICRO, _ARM, _FPU, "ARM_CORTEX_M7"),
    "armv7": Processor("arm", "ARM", ("ARM",), _ARM, {"C1_C0_2": 0xF00000, **_FPU}, "ARM_CORTEX_A9"),
    "aarch64": Processor("arm64", "ARM64", ("ARM",), _ARM64, {"CPACR_EL1": 3 << 20}),
    "aarch64 dotprod": Processor("arm64", "ARM64", ("ARM",), _ARM64, {"CPACR_EL1": 3 << 20}, "ARM64_MAX"),
    "RISC-V": Processor("riscv", "RISCV", ("RISCV32",), ("SP", "RA", "A0"), {"MSTATUS": 1 << 13}),
    "PowerPC": Processor("ppc", "PPC", ("PPC32", "BIG_ENDIAN"), ("1", "LR", "3"), {"MSR": 1 << 13}),
}


class Emulated:
    """A program in unicorn: `call` runs it from its entry; `instructions` and `stack` (bytes) say what that took."""

    def __init__(self, program: Path, target: str) -> None:
        unicorn: Any = require("unicorn", "running code of other processors")
        processor = PROCESSORS[target]
        names: Any = importlib.import_module(f"unicorn.{processor.module}_const")
        modes = sum(getattr(unicorn, f"UC_MODE_{mode}") for mode in processor.modes)
        self.machine: Any = unicorn.Uc(getattr(unicorn, f"UC_ARCH_{processor.architecture}"), modes)
        if processor.model:
            self.machine.ctl_set_cpu_model(getattr(names, f"UC_CPU_{processor.model}"))
        self.machine.mem_map(0, 128 << 20)
        self.thumb = "THUMB" in processor.modes
        prefix = f"UC_{processor.architecture}_REG_"
        self.registers = [getattr(names, f"{prefix}{register}") for register in processor.registers]
        self.entry = self._load(program.read_bytes())
        for register, value in processor.on.items():
            self.machine.reg_write(getattr(names, f"{prefix}{register}"), value)
        self.instructions = 0
        self.stack = 0

    def call(self, count: bool = False) -> int:
        if count:
            self.machine.hook_add(importlib.import_module("unicorn").UC_HOOK_CODE, self._counted)
        self.machine.mem_write(STACK - PAINTED, bytes([PAINT]) * PAINTED)
        stack, back, result = self.registers
        self.machine.reg_write(stack, STACK)
        self.machine.reg_write(back, RETURN | self.thumb)
        self.machine.emu_start(self.entry | self.thumb, RETURN)
        below = bytes(self.machine.mem_read(STACK - PAINTED, PAINTED))
        self.stack = len(below.lstrip(bytes([PAINT])))
        return self.machine.reg_read(result) & 0xFFFFFFFF

    def _counted(self, *_: object) -> None:
        self.instructions += 1

    def _load(self, data: bytes) -> int:
        """Copy the segments of an ELF file; its entry."""
        wide, order = data[4] == 2, "<>"[data[5] - 1]
        entry, table = struct.unpack_from(f"{order}{'QQ' if wide else 'II'}", data, 24)
        size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
        for k in range(count):
            at = table + k * size
            if wide:
                kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data, at)
            else:
                kind, offset, address, _, length = struct.unpack_from(f"{order}IIIII", data, at)
            if kind == 1 and length:
                self.machine.mem_write(address, data[offset : offset + length])
        return entry & ~1
