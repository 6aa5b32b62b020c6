"""What `export_c` does not take, each in a sentence."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from ..runtime.modules import Accelerated
from ..runtime.program.program import CONSTANT, Program
from .identifiers import HEADERS, KEYWORDS, RUST
from .wrappers import WRAPPERS

PRECISIONS = ("float32", "int8")
WEIGHTS = ("source", "file")


def check_choices(precision: str, weights: str, batch: int = 1, calibrated: bool = False) -> None:
    """ValueError for options that there are not."""
    for option, value, known in (("precision", precision, PRECISIONS), ("weights", weights, WEIGHTS)):
        if value not in known:
            raise ValueError(f"export_c: got {option}={value!r}, expected {' or '.join(map(repr, known))}.")
    if calibrated and precision != "int8":
        raise ValueError(f"export_c: got calibrate= with precision={precision!r}, it is for precision='int8'.")
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ValueError(f"export_c: got batch={batch!r}, expected how many sequences a step runs: 1 or more.")


def check_wrappers(wrappers: Sequence[str], weights: str, name: str = "model") -> None:
    """ValueError for wrappers that there are not, that can't hand over a file of weights or whose language has no
    module of that name."""
    several = isinstance(wrappers, Iterable) and not isinstance(wrappers, str)
    if not several or any(not isinstance(w, str) or w not in WRAPPERS for w in wrappers):
        raise ValueError(f"export_c: got wrappers={wrappers!r}, expected several of {', '.join(WRAPPERS)}.")
    if wrappers and weights == "file":
        raise ValueError("export_c: wrappers go with weights='source': theirs is no argument for a file.")
    taken = {"rust": name in RUST, "python": keyword.iskeyword(name) or name in ("ctypes", "numpy")}
    if bad := [language for language in wrappers if taken.get(language)]:
        raise ValueError(f"export_c: {name}.{'rs' if bad[0] == 'rust' else 'py'} can't be a module: give another name.")


def check_model(model: nn.Module, what: str = "export_c") -> None:
    """RuntimeError for a model in training mode or accelerated."""
    for path, module in model.named_modules():
        if isinstance(cast(Any, module), Accelerated):
            raise RuntimeError(
                f"{what}: {path or 'the model'} is accelerated for this processor.\n"
                "Export the model that was given to accelerate."
            )
    if model.training:
        raise RuntimeError(f"{what}: the model is in training mode; what is written only infers: call model.eval().")


def check_name(name: str) -> None:
    """ValueError for a name that C functions can't begin with."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in KEYWORDS:
        raise ValueError(
            f"export_c: got name={name!r}, expected the beginning of C names: a letter, then letters, digits and _."
        )
    if name in HEADERS or name.endswith("_test"):
        why = "a header of C's library has it" if name in HEADERS else "NAME_test.c is the test of NAME"
        raise ValueError(f"export_c: got name={name!r}, but {why}: give another.")


def check_numbers(program: Program, what: str = "export_c") -> None:
    """ValueError for weights that are not finite: what C makes of them would depend on the processor."""
    for buffer in program.buffers.values():
        value = buffer.value
        if buffer.kind == CONSTANT and value is not None and value.is_floating_point():
            bad = int((~torch.isfinite(value.detach().to(torch.float32))).sum())
            if bad:
                raise ValueError(
                    f"{what}: {buffer.name} has {bad} numbers that are infinite or not a number in float32: "
                    "find out where training went wrong, or load a sound checkpoint."
                )
