"""`export_c`: a model as one C file that gives the same bits on every processor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from ..runtime.program.program import CONSTANT, Program
from .agreement import Steps, check, sample
from .files import header, source
from .folder import write_all
from .footprint import footprint
from .lowering import Refused
from .plan import KEYWORDS, lower
from .vectors import vectors_source

PRECISIONS = ("float32", "int8")
VECTORS = 32  # steps in NAME_test.c


def export_program(
    program: Program,
    folder: str | Path,
    name: str = "model",
    precision: str = "float32",
    inputs: Steps | None = None,
) -> dict[str, Any]:
    """Write `program` as NAME.h, NAME.c, NAME_test.c and NAME.json; returns the content of NAME.json.

    inputs: of some steps, each an array for every input, which the oracle is compared on; drawn at random by default.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"export_c: got precision={precision!r}, expected one of {', '.join(PRECISIONS)}.")
    check_name(name)
    check_numbers(program)
    try:
        plan = lower(program, precision)
    except Refused as refused:
        raise ValueError(f"export_c: {refused}") from None
    given = sample(plan, VECTORS) if inputs is None else inputs
    outputs, errors = check(plan, given, precision)
    report = footprint(plan, name, precision, errors)
    contents = {
        f"{name}.h": header(plan, name),
        f"{name}.c": source(plan, name),
        f"{name}_test.c": vectors_source(plan, name, given[:VECTORS], outputs[:VECTORS]),
        f"{name}.json": json.dumps(report, indent=2) + "\n",
    }
    write_all(folder, contents)
    return report


def check_name(name: str) -> None:
    """ValueError for a name that C functions can't begin with."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in KEYWORDS:
        raise ValueError(
            f"export_c: got name={name!r}, expected the beginning of C names: a letter, then letters, digits and _."
        )


def check_numbers(program: Program) -> None:
    """ValueError for weights that are not finite: what C makes of them would depend on the processor."""
    for buffer in program.buffers.values():
        value = buffer.value
        if buffer.kind == CONSTANT and value is not None and value.is_floating_point():
            bad = int((~torch.isfinite(value.detach().to(torch.float32))).sum())
            if bad:
                raise ValueError(
                    f"export_c: {buffer.name} has {bad} numbers that are infinite or not a number in float32: "
                    "find out where training went wrong, or load a sound checkpoint."
                )
