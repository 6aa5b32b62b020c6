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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from contracts.test_fuzz import check
from contracts.untraceable import changed
from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings
from test_export_fuzz import SETTINGS, differing_steps
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


TOGETHER = 50  # programs that one compiler call takes


def miscompiled(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """How these programs of test_export_fuzz.py, as C, differ from their oracles."""
    found: list[dict[str, Any]] = []
    for begin in range(0, len(numbers), TOGETHER):
        part = numbers[begin : begin + TOGETHER]
        flags = SETTINGS[part[0] // TOGETHER % len(SETTINGS)]
        try:
            found += [{"case": n, "step": step, "flags": flags} for n, step in differing_steps(part, flags).items()]
        except Exception as error:
            if len(part) > 1:  # one by one, to know which
                found += [one for n in part for one in miscompiled([n])]
                continue
            found.append({"case": part[0], "error": f"{type(error).__name__}: {error}"[:1000]})
    return found


def each(one: Callable[[int], dict[str, Any] | None]) -> Callable[[Sequence[int]], list[dict[str, Any]]]:
    return lambda numbers: [found for number in numbers if (found := one(number)) is not None]


OF = {"compositions": each(mismatch), "untraceable": each(untraceable), "programs": each(misstepped), "c": miscompiled}


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
        for found in OF[chosen.of](range(content["cases"], last)):
            content["mismatches"].append(found)
            print(json.dumps(found), flush=True)
        content |= {"cases": last, "seconds": round(content["seconds"] + time.monotonic() - begin, 1), **surroundings()}
        write_atomically(chosen.record, json.dumps(content, indent=2) + "\n")
        print(f"{last} cases, {len(content['mismatches'])} mismatches, {content['seconds']:.0f} s", flush=True)
    return 1 if content["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
