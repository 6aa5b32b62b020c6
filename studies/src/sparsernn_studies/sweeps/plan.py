"""What makes a sweep the sweep it is, noted in its folder: one that is resumed must agree with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from sparsernn.files import write_atomically

from ..recipes import find
from ..settings import with_changes
from .space import Axis, Choice, read_over
from .trial import Outcome, SweepError, Trial, read_outcome

Sampler = Literal["grid", "tpe", "random"]


@dataclass(frozen=True)
class Plan:
    """A recipe at one scale and seed, settings that hold for all trials, and what is swept how."""

    recipe: str
    scale: str
    seed: int
    set: tuple[str, ...]
    over: tuple[str, ...]
    sampler: Sampler

    @property
    def command(self) -> str:
        """The command line that repeats the sweep's trials, but for how many."""
        parts = ["--scale", self.scale, "--over", *self.over, *(["--set", *self.set] if self.set else [])]
        return shlex.join(
            ["sparsernn", "sweep", self.recipe, *parts, "--seed", str(self.seed), "--sampler", self.sampler]
        )

    @property
    def axes(self) -> tuple[Axis, ...]:
        return read_over(with_changes(find(self.recipe).at(self.scale), self.set), self.over)

    @property
    def points(self) -> int | None:
        """How many points there are, None if there is a range."""
        axes = self.axes
        return prod(len(axis.values) for axis in axes if isinstance(axis, Choice)) if is_grid(axes) else None


def is_grid(axes: tuple[Axis, ...]) -> bool:
    return all(isinstance(axis, Choice) for axis in axes)


@dataclass(frozen=True)
class Sweep:
    """A plan, and where it is carried out."""

    plan: Plan
    folder: Path
    data: Path | None = None

    def trial(self, number: int, point: Mapping[str, str]) -> Trial:
        plan = self.plan
        data = None if self.data is None else str(self.data.resolve())
        folder = str(self.place(number).resolve())
        return Trial(number, plan.recipe, plan.scale, plan.seed, plan.set, dict(point), folder, data)

    def place(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def outcomes(self) -> list[Outcome]:
        """Of all trials that have ended, in the order of their numbers."""
        found = (read_outcome(path) for path in sorted((self.folder / "trials").glob("*")))
        return sorted((outcome for outcome in found if outcome), key=lambda outcome: outcome.number)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Context of the one process that carries the sweep out: notes the plan in the folder.

        Raises SweepError if another process does so already, or if the folder holds another sweep or something else.
        """
        check(self.folder, self.plan)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SweepError(
                f"Another process carries out the sweep in {self.folder}; wait for it or end it."
            ) from None
        with lock:
            check(self.folder, self.plan)
            write_atomically(self.folder / "sweep.json", json.dumps(asdict(self.plan), indent=2) + "\n")
            yield


def noted(folder: Path) -> Plan | None:
    """The plan of the sweep in `folder`, None if nothing lies there. Raises SweepError if something else does."""
    path = folder / "sweep.json"
    if not path.is_file():
        if folder.is_dir() and {each.name for each in folder.iterdir()} - {"lock"}:
            raise SweepError(f"{folder} is not a sweep: it has no sweep.json, but other files. Name another folder.")
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lists: dict[str, Any] = {key: tuple(content[key]) for key in ("set", "over")}
        return Plan(**{**content, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise SweepError(f"{path} cannot be read ({error}); name another folder.") from error


def check(folder: Path, plan: Plan) -> None:
    """Raises SweepError if `folder` holds something else than the sweep `plan`."""
    before = noted(folder)
    for key, mine in asdict(plan).items():
        if before is not None and getattr(before, key) != mine:
            theirs = getattr(before, key)
            was, now = (" ".join(v) if isinstance(v, tuple) else v for v in (theirs, mine))
            raise SweepError(
                f"{folder} holds another sweep: its {key} is {was or 'empty'}, here it is {now or 'empty'}.\n"
                "Give the same options to go on with it, or name another folder."
            )
