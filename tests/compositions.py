"""Random models by the thousand, with a record: the cases of contracts/test_fuzz.py, drawn by number.

    python tests/compositions.py --cases 10000 --record FILE   goes on where FILE ends
    python tests/compositions.py --of untraceable --cases 2000 --record FILE   models whose Python code looks at units
    python tests/compositions.py --of programs --cases 10000 --record FILE   causal models, streamed
    python tests/compositions.py --of c --cases 5000 --record FILE   step programs in C, compiled by cc here

Case n is the same on every machine. Prints each mismatch with its seed, which then belongs into FAILED_ONCE; the exit
status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from contracts.test_fuzz import check
from contracts.untraceable import changed
from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings
from test_export_fuzz import first_differing_step
from test_program_random import check as streamed

SHARES = (0.0, 0.3, 0.7, 1.0)
EVERY = 100  # cases between two writings


def case(number: int) -> tuple[int, int, float]:
    """Seed, steps and share of dead slices of case `number`."""
    draw = random.Random(number)
    return draw.randrange(2**32), draw.randrange(8), draw.choice(SHARES)


def mismatch(number: int) -> dict[str, Any] | None:
    """What went wrong with case `number`, None if nothing did."""
    seed, steps, share = case(number)
    try:
        check(seed, steps, share)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return {"case": number, "seed": seed, "steps": steps, "share": share, "error": text[:1000]}
    return None


def untraceable(number: int) -> dict[str, Any] | None:
    """How the function of model `number` of contracts/untraceable.py changed, None if it did not."""
    try:
        text = changed(number)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return {"case": number, "error": text[:1000]} if text else None


def misstepped(number: int) -> dict[str, Any] | None:
    """How the steps of model `number` of test_program_random.py differ from its whole call, None if they do not."""
    try:
        streamed(number)
    except Exception as error:
        return {"case": number, "error": f"{type(error).__name__}: {error}"[:1000]}
    return None


def miscompiled(number: int) -> dict[str, Any] | None:
    """How program `number` of test_export_fuzz.py, as C, differs from its oracle, None if it does not."""
    try:
        step = first_differing_step(number)
    except Exception as error:
        return {"case": number, "error": f"{type(error).__name__}: {error}"[:1000]}
    return {"case": number, "step": step} if step else None


OF = {"compositions": mismatch, "untraceable": untraceable, "programs": misstepped, "c": miscompiled}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tests/compositions.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--of", choices=list(OF), default="compositions")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--record", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("error")  # as in the tests
    warnings.filterwarnings("ignore", message="LSTM with projections")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    content: dict[str, Any] = {"name": chosen.of, "cases": 0, "seconds": 0.0, "mismatches": []}
    if chosen.record.exists():
        content |= json.loads(chosen.record.read_text(encoding="utf-8"))
        if content["commit"] != surroundings()["commit"]:
            parser.error(f"{chosen.record} was begun at commit {content['commit']}, this is another: name a new file")
    while content["cases"] < chosen.cases:
        begin = time.monotonic()
        last = min(content["cases"] + EVERY, chosen.cases)
        for number in range(content["cases"], last):
            found = OF[chosen.of](number)
            if found is not None:
                content["mismatches"].append(found)
                print(json.dumps(found), flush=True)
        content |= {"cases": last, "seconds": round(content["seconds"] + time.monotonic() - begin, 1), **surroundings()}
        write_atomically(chosen.record, json.dumps(content, indent=2) + "\n")
        print(f"{last} cases, {len(content['mismatches'])} mismatches, {content['seconds']:.0f} s", flush=True)
    return 1 if content["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
