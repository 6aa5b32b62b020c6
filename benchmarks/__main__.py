"""`python -m benchmarks [names]`: measure, print and keep each work as results/benchmarks/NAME.json."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from . import measure
from .measure import Ceiling, show
from .works import WORKS


def main(arguments: list[str] | None = None) -> int:
    listing = "\n".join(f"  {name:10} {work.__doc__}" for name, work in WORKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Compare with other engines, one thread, interleaved.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="which works (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this thread's own time, on a machine with other work",
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in WORKS]
    if unknown or chosen.rounds < 1:
        what = (
            f"no work is called {unknown[0]!r}; there are {', '.join(WORKS)}"
            if unknown
            else "--rounds must be 1 or more"
        )
        parser.error(what)
    if chosen.cpu_time:
        measure.clock = time.thread_time
    # Thread pools of several engines in one process spoil each other's timings, so there is one thread.
    torch.set_num_threads(1)
    with torch.no_grad():
        ceiling = Ceiling()
        print(f"ceiling of this core: {ceiling.operations / 1e9:.0f} GFLOP/s")
        for name in chosen.names or WORKS:
            show(name, WORKS[name](ceiling, chosen.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
