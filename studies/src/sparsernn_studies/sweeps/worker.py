"""The process of one trial: started by the sweep, tells it how the training goes, and ends when the sweep does."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from sparsernn.files import write_atomically

from ..signals import Stopped
from .trial import Outcome, Show, SweepError, Trial, perform, read_outcome

ATTEMPTS = 5  # a trial whose process dies so often will not end well on this machine
LOOK = 0.2  # seconds between two looks for a signal
PATIENCE = 30.0  # seconds that a process without a sweep has to write its checkpoint
# What trials import, or make torch import: its optimizers load its compiler at their first step.
PRELOADED = ["sparsernn_studies.recipes", "accelerate", "matplotlib.backends.backend_svg", "jinja2", "torch._dynamo"]


class Interrupted(BaseException):
    """The trial at hand was left where it is; no Exception, since those would end the trial for Optuna."""


def processes() -> BaseContext:
    """How trials get their process: forked from a server that has imported everything, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def in_a_process(trial: Trial, context: BaseContext, show: Show, stop: Callable[[], int]) -> Outcome:
    """Run `trial` in a process; one that is killed is followed by another, which goes on from its checkpoint.

    Raises Interrupted, from the error if there is one, when the trial has not ended: `stop()` gave a signal, the trial
    failed for a reason that is not its own (missing data, a full disk), or its process died too often.
    """
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "trial.json", json.dumps(asdict(trial), indent=2) + "\n")
    code = 0
    for _ in range(ATTEMPTS):
        error, code = _attempt(folder, context, show, stop)
        outcome = read_outcome(folder)
        if outcome is not None:
            return outcome
        if error:
            raise Interrupted from SweepError(f"Trial {trial.number}: {error}")
        if stop():
            raise Interrupted
        logging.getLogger("sparsernn").warning("trial %d: its process died (%s); again.", trial.number, _how(code))
    raise Interrupted from SweepError(
        f"Trial {trial.number}: its process died {ATTEMPTS} times, last {_how(code)}; see {folder / 'log.txt'}.\n"
        "If memory ran out, take fewer --jobs."
    )


def _attempt(folder: Path, context: Any, show: Show, stop: Callable[[], int]) -> tuple[str, int]:
    """One process, to its end: what it said was wrong, and its exit code."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(folder), sender), daemon=True)
    process.start()
    sender.close()
    error = ""
    with receiver:
        while True:
            if stop() and process.is_alive():
                process.terminate()
            try:
                if not receiver.poll(LOOK):
                    continue
                told = json.loads(receiver.recv_bytes())
            except (EOFError, OSError):
                break
            error = told.get("error", error)
            if not error:
                show(told)
    process.join()
    return error, process.exitcode or 0


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"


def work(folder: str, sender: Connection) -> None:
    """What the process does: the trial that trial.json in `folder` describes; all it prints goes to log.txt there."""
    _log_to(Path(folder) / "log.txt")
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(what: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # if the sweep is gone, this process is about to be ended
            sender.send_bytes(json.dumps(what).encode())

    trial = Trial(**json.loads((Path(folder) / "trial.json").read_text(encoding="utf-8")))
    tell({"process": os.getpid()})
    try:
        perform(trial, tell)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal)
    except Exception as error:
        logging.getLogger("sparsernn").error("The trial could not go on.", exc_info=error)
        tell({"error": str(error) or type(error).__name__})
        sys.exit(1)


def _log_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)


def _end_with_parent() -> None:
    """When the sweep is killed, stop as if by SIGTERM: with a checkpoint if a training is under way."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os._exit(1)
