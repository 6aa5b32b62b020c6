"""SIGTERM and Ctrl-C during a training: end after the step at hand, with a good checkpoint."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from .errors import StudyError


class Stopped(StudyError):
    """A training was ended from outside; `signal` is the signal's number."""

    def __init__(self, number: int, name: str, step: int, file: Path | None) -> None:
        kept = "nothing was kept: it has no folder" if file is None else f"the same command goes on from {file}"
        super().__init__(f"{name} was stopped by {signal.Signals(number).name} after step {step}; {kept}.")
        self.signal = number
        self.exit_code = 128 + number


class StopSignals:
    """Context in which the first SIGTERM or SIGINT only sets `signal`; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
