"""What the processor can do: how wide its vectors are and which instructions the kernels may use."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass

import llvmlite.binding as llvm

WIDTHS = (4, 8, 16)


@dataclass(frozen=True)
class Processor:
    """`width`: floats in one vector. What there is at that width: `vnni` int8 dot products, `permute` two-register
    permutes, `expand` weights spread over the lanes of a mask."""

    name: str
    width: int
    vnni: bool
    permute: bool
    expand: bool
    fingerprint: str


@functools.cache
def processor() -> Processor:
    """The processor we run on. `SPARSERNN_VECTOR_WIDTH` (4, 8 or 16) forces a narrower width than it offers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = dict(llvm.get_host_cpu_features())
    wide = features.get("avx512f") and features.get("avx512bw") and features.get("avx512vl")
    best = 16 if wide else 8 if features.get("avx2") and features.get("fma") else 4
    width = best
    forced = os.environ.get("SPARSERNN_VECTOR_WIDTH")
    if forced:
        if forced not in {str(w) for w in WIDTHS}:
            raise ValueError(f"SPARSERNN_VECTOR_WIDTH is {forced!r}: expected 4, 8 or 16.")
        width = int(forced)
    name = f"{platform.machine()} {llvm.get_host_cpu_name()}"
    available = ",".join(sorted(f for f, there in features.items() if there))
    return Processor(
        name=name,
        width=width,
        vnni=bool(width == 16 and best == 16 and features.get("avx512vnni")),
        permute=bool(width == 16 and best == 16),
        expand=8 <= width <= best,
        fingerprint=f"{name} {width} {available}",
    )
