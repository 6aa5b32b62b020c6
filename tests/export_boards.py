"""A board in qemu: Arm's MPS3 with a Cortex-M55, whose vectors no emulator from pip knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sparsernn.export.machines import MEMORY, zig

START = """\
#include <stdint.h>
int all_test(void);
void start(void);
static intptr_t host(int operation, intptr_t argument);
__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {(void *)0x11200000, (void *)start};
static intptr_t host(int operation, intptr_t argument)
{
    register int r0 __asm__("r0") = operation;
    register intptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
void start(void)
{
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* floating point and vectors on */
    __asm__ volatile("dsb\\n\\tisb");
    char text[8] = "000000\\n";
    int found = all_test();
    for (int i = 5; i >= 0; --i, found /= 10)
        text[i] = (char)('0' + found % 10);
    host(4, (intptr_t)text); /* write it */
    host(0x18, 0x20026);     /* leave */
    for (;;)
        ;
}
"""
PLACES = """\
ENTRY(start)
SECTIONS {
  .vectors 0x10000000 : { KEEP(*(.vectors)) }
  .text 0x11000000 : { *(.text*) *(.rodata*) }
  /DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) }
  .data : { *(.data*) *(.bss*) *(COMMON) }
}
"""


def on_cortex_m55(folder: Path, source: Path, vectors: str) -> int:
    """What `all_test` of this file gives there. vectors: what the compiler is told of them, "+mve_fp" say."""
    texts = {"start.c": START, "memory.c": MEMORY, "places.ld": PLACES}
    for name, text in texts.items():
        (folder / name).write_text(text)
    target = ["-target", "thumb-freestanding-eabihf", f"-mcpu=cortex_m55{vectors}+fp_armv8d16"]
    flags = ["-O2", "-fno-sanitize=all", "-ffreestanding", "-c"]
    objects = []
    for file in (source, folder / "start.c", folder / "memory.c"):
        objects.append(str(file.with_suffix(".m55.o")))
        own = ["-fno-builtin"] if file.stem == "memory" else []
        zig("cc", *target, *flags, *own, str(file), "-o", objects[-1])
    program = str(folder / "m55.elf")
    zig("ld.lld", "-static", "-T", str(folder / "places.ld"), *objects, "-o", program)
    board = ["qemu-system-arm", "-M", "mps3-an547", "-nographic", "-semihosting-config", "enable=on,target=native"]
    done = subprocess.run([*board, "-kernel", program], capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout + done.stderr)
