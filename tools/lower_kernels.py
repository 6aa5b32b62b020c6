"""Write LLVM's code of every kernel for the common kinds of x86-64 into the package: python tools/lower_kernels.py SRC

Made for processors that need not be this one: no kernel runs. `make dist` puts the archives into the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Name for LLVM, and what the runtime asks of a processor.
KINDS = {
    "haswell": "sse sse2 sse3 ssse3 sse4.1 sse4.2 avx avx2 fma bmi bmi2 f16c popcnt lzcnt movbe",
    "cascadelake": "avx512f avx512bw avx512vl avx512dq avx512cd avx512vnni",
}


def lower(kind: str, folder: Path) -> None:
    """In a process of its own, since everything reads the processor when it is imported."""
    import llvmlite.binding as llvm

    known = list(KINDS)
    features = [f for name in known[: known.index(kind) + 1] for f in KINDS[name].split()]
    found = llvm.FeatureMap(dict.fromkeys(features, True))
    llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: kind, lambda: found
    os.environ |= {"NUMBA_CPU_NAME": kind, "NUMBA_CPU_FEATURES": found.flatten()}
    from sparsernn.runtime import compiled

    path = compiled.lower(folder)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        lower(sys.argv[2], source / "sparsernn" / "runtime" / "llvm")
        return
    for kind in KINDS:
        command = [sys.executable, __file__, str(source), kind]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
