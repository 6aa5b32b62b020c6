"""What a training shows while it runs: a bar on a terminal, a few log lines elsewhere.

The records of those lines carry their figures as `course`, for handlers that follow a training (sweeps do).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("sparsernn")
EVERY = 0.2  # seconds between two updates of the bar


def make_console() -> Console:
    """Where tables are shown."""
    plain = Console(quiet=int(os.environ.get("RANK", "0")) > 0)  # of several processes only the first speaks
    # A table that a pipe cuts to 80 columns could not be read.
    return plain if plain.is_terminal else Console(width=140, quiet=plain.quiet)


@contextmanager
def quiet(name: str = "") -> Iterator[None]:
    """Context in which only errors of the logger `name`, usually all loggers, are shown."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class TrainingProgress:
    """Progress of one training of `steps` steps, from step `begun`: loss, learning rate, density, time left."""

    def __init__(self, name: str, steps: int, begun: int = 0, *, quiet: bool = False) -> None:
        self._name, self._steps, self._begun = name, steps, begun
        self._console = Console(stderr=True, quiet=quiet)
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=steps, completed=begun, figures="")
        self._shown = 0.0
        self._logged = begun * 10 // max(steps, 1)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def due(self, step: int) -> bool:
        """Whether the figures of `step` would be shown; they cost a little to compute."""
        if self._console.is_terminal:
            return time.monotonic() - self._shown >= EVERY or step == self._steps
        return step * 10 // max(self._steps, 1) > self._logged

    def show(self, step: int, loss: float, rate: float, density: float | None) -> None:
        """Show the figures after `step` steps."""
        kept = "" if density is None else f"  density {density:.3f}"
        figures = f"loss {loss:.3f}  rate {rate:.1e}{kept}"
        if self._console.is_terminal:
            self._shown = time.monotonic()
            self._bar.update(self._task, completed=step, figures=figures)
        else:
            self._logged = step * 10 // max(self._steps, 1)
            if not self._quiet:
                course = {"row": self._name, "step": step, "steps": self._steps, "loss": loss}
                log.info("%s: step %d of %d  %s", self._name, step, self._steps, figures, extra={"course": course})
