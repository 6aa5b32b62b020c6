"""Results: one JSON file for each row of a table and seed, and the table from them."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sparsernn import __version__
from sparsernn.files import write_atomically
from sparsernn.runtime.processor import processor

from .errors import StudyError


class ResultError(StudyError):
    """A result file that cannot be used; the message names file and field."""


@dataclass(frozen=True)
class Result:
    """One row of a table at one seed. `paper` and `measured` map metric names to numbers or lists of numbers."""

    recipe: str
    scale: str
    row: str
    seed: int
    settings: Mapping[str, Any]
    paper: Mapping[str, Any]
    measured: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    threads: int
    seconds: float
    date: str
    commit: str | None

    def to_json(self) -> str:
        content = {name: getattr(self, name) for name in FIELDS}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FIELDS = tuple(field.name for field in fields(Result))


def place(folder: Path, recipe: str, scale: str, row: str, seed: int) -> Path:
    """Where a result lies: RECIPE/SCALE/ROW-seedN.json under `folder`."""
    return folder / recipe / scale / f"{row}-seed{seed}.json"


def write(folder: Path, result: Result) -> Path:
    """Write `result` atomically under `folder` and return its path. Raises ValueError if a figure is not finite."""
    path = place(folder, result.recipe, result.scale, result.row, result.seed)
    content = result.to_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def read(path: Path) -> Result:
    """The result in `path`. Raises ResultError if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read as a result: {str(error)[:120]}.") from error
    if not isinstance(content, dict) or set(content) != set(FIELDS):
        lacking = sorted(set(FIELDS) - set(content)) if isinstance(content, dict) else list(FIELDS)
        raise ResultError(f"{path} is not a result: it lacks {', '.join(lacking) or 'nothing, but has other fields'}.")
    for name in ("settings", "paper", "measured", "versions"):
        if not isinstance(content[name], dict):
            raise ResultError(f"{path} has {name} = {repr(content[name])[:60]}, expected names with values.")
    for name, kinds in {"recipe": str, "scale": str, "row": str, "seed": int, "seconds": (int, float)}.items():
        if not isinstance(content[name], kinds) or isinstance(content[name], bool):
            raise ResultError(f"{path} has {name} = {repr(content[name])[:60]}, which no run writes.")
    return Result(**content)


def collect(folder: Path, recipe: str = "*", scale: str = "*") -> list[Result]:
    """All results under `folder`, or those of a recipe and scale; by recipe, scale, row and seed. Raises ResultError
    where a row was made by other settings at another seed: their mean would be of two things."""
    found = [read(path) for path in sorted(folder.glob(f"{recipe}/{scale}/*-seed*.json"))]
    first: dict[tuple[str, str, str], Result] = {}
    for result in found:
        one = first.setdefault((result.recipe, result.scale, result.row), result)
        for name in one.settings.keys() & result.settings.keys():
            here, there = result.settings[name], one.settings[name]
            chosen = isinstance(here, list) and all(isinstance(v, str) for v in here)  # which rows are made, say
            if here != there and not chosen:
                raise ResultError(
                    f"{result.recipe}: the row {result.row} has {name} = {json.dumps(there)} at seed {one.seed} and "
                    f"{json.dumps(here)} at seed {result.seed}: one table can't hold both, keep them in two folders."
                )
    return found


def surroundings() -> dict[str, Any]:
    """The fields that say where and when: versions, device, threads, date, commit."""
    named = {"sparsernn": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("numpy", "numba"):
        named[package] = metadata.version(package)
    return {
        "versions": named,
        "device": _device(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }


def _device() -> str:
    """The processor's name and what our kernels use of it."""
    own = processor()
    vectors = f"{own.width} floats a vector" + (", VNNI" if own.vnni else "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({vectors})"
    return f"{platform.processor() or platform.machine()} ({vectors})"


def _commit() -> str | None:
    """The commit of the source tree, None for an installed package."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        # Asked for first, since an installed package may lie inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def sizes(model: torch.nn.Module) -> dict[str, int]:
    """`weights` (of matrices; each stored number once, biases apart), `nonzero` of them, `parameters` (all)."""
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.dim() > 1]
    return {
        "weights": sum(p.numel() for p in matrices),
        "nonzero": sum(int(p.count_nonzero()) for p in matrices),
        "parameters": sum(p.numel() for p in parameters),
    }


def as_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results as plain rows, in the form that reports take."""
    return [
        {"row": r.row, "seed": r.seed, "measured": dict(r.measured), "paper": dict(r.paper), "seconds": r.seconds}
        for r in results
    ]


def source(results: Sequence[Result], command: str) -> str:
    """The command that repeats `results`, their seeds, and the machines with how many rows of each, where there are
    several."""
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in results}))
    by_device = {d: [r for r in results if r.device == d] for d in dict.fromkeys(r.device for r in results)}
    places = []
    for device, own in sorted(by_device.items(), key=lambda pair: -len(pair[1])):
        last = max(own, key=lambda r: r.date)
        rows = f" ({len(own)} rows of {len(results)})" if len(by_device) > 1 else ""
        places.append(f"{device}, torch {last.versions['torch']}, {last.date}{rows}")
    return f"Again: `{command}`. Seeds {seeds}; {'; '.join(places)}."
