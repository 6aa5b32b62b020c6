"""What a sweep shows while it runs: a bar for each trial on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .trial import Outcome, Show

log = logging.getLogger("sparsernn")


class SweepProgress:
    """Progress of a sweep of `trials` trials, from any number of threads."""

    def __init__(self, trials: int) -> None:
        self._trials, self._ended = trials, 0
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task("trials", total=trials, figures="")
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __reduce__(self) -> tuple[type[SweepProgress], tuple[int]]:
        """A copy, as Ray makes one for its notes, has nothing on the screen."""
        return SweepProgress, (self._trials,)

    def begin_at(self, ended: int) -> None:
        """So many trials ended in an earlier process."""
        self._ended = ended
        self._bars.update(self._all, completed=ended)

    @contextmanager
    def trial(self, number: int, point: Mapping[str, str]) -> Iterator[Show]:
        """Context of one trial's training; what it gives is to be called with the figures."""
        self.begin(number, point)
        try:
            yield lambda course: self.show(number, course)
        finally:
            self.end(number)

    def begin(self, number: int, point: Mapping[str, str]) -> None:
        self._say("trial %d: %s", number, words(point))
        self._tasks[number] = self._bars.add_task(f"trial {number}: {words(point)}", total=None, figures="")

    def show(self, number: int, course: Mapping[str, Any]) -> None:
        """Show figures of a trial's training ("row", "step", "steps", "loss") or the number of its process."""
        if "process" in course:
            self._say("trial %d: process %d", number, course["process"])
        if "step" not in course:
            return
        self._say(
            "trial %d: %s, step %d of %d  loss %.3f", number, *(course[k] for k in ("row", "step", "steps", "loss"))
        )
        figures = f"{course['row']}  loss {course['loss']:.3f}"
        self._bars.update(self._tasks[number], completed=course["step"], total=course["steps"], figures=figures)

    def died(self, number: int) -> None:
        """The process of a trial is dead; another will go on with it."""
        self._say("trial %d: its process died; again", number)

    def end(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            self._bars.remove_task(task)

    def ended(self, outcome: Outcome) -> None:
        """Show what came of a trial."""
        self._ended += 1
        self._bars.update(self._all, completed=self._ended)
        self._say("trial %d %s (%d of %d)", outcome.number, verdict(outcome), self._ended, self._trials)

    def _say(self, text: str, *values: Any) -> None:
        if not self._console.is_terminal:
            log.info(text, *values)


def words(point: Mapping[str, str]) -> str:
    """A point for people: hidden=32, learning_rate=0.0123."""
    return ", ".join(f"{key}={short(value)}" for key, value in point.items())


def short(value: str) -> str:
    """A number in four digits; other text as it is."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def verdict(outcome: Outcome) -> str:
    if outcome.quality is None:
        return f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
    return f"{outcome.state}: {outcome.metric.replace('_', ' ')} {outcome.quality:.4g}"
