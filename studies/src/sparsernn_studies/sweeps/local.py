"""A sweep on one machine: Optuna asks for trials and keeps them in a file, each trial runs in a process of its own.

The file is an SQLite database: locks are the operating system's and die with their process, and a write that was cut
off is rolled back. It holds numbers, text and JSON, and may be deleted: the outcomes in the trials' folders fill it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import quiet
from ..signals import Stopped, StopSignals
from .plan import Sweep
from .progress import SweepProgress
from .sampling import ask, sampler
from .trial import read_outcome
from .worker import Interrupted, in_a_process, processes

NAME = "sweep"


class SweepStopped(Stopped):
    """A sweep was ended from outside; `signal` is the signal's number."""

    def __init__(self, number: int) -> None:
        RuntimeError.__init__(self, "The sweep was stopped; the same command goes on with it.")
        self.signal = number


class _Failed(Exception):
    """The trial ended without a figure."""


def carry_out(sweep: Sweep, trials: int, jobs: int) -> None:
    """Run the trials of `sweep` that have not ended, until there are `trials`, `jobs` of them side by side.

    A trial that an earlier process left half done keeps its number and its point and goes on from its checkpoint.
    Raises SweepError if a trial cannot go on for a reason that is not its own, SweepStopped after SIGTERM or Ctrl-C.
    """
    axes = sweep.plan.axes
    context = processes()
    with StopSignals() as stop, quiet("optuna"), SweepProgress(trials) as progress, _study(sweep) as study:

        def objective(asked: Any) -> float:
            if stop.signal:
                raise Interrupted
            point = ask(asked, axes)
            outcome = read_outcome(sweep.place(asked.number))
            if outcome is None:
                with progress.trial(asked.number, point) as show:
                    outcome = in_a_process(sweep.trial(asked.number, point), context, show, lambda: stop.signal)
                progress.ended(outcome)
            if outcome.loss is None:
                raise _Failed
            return outcome.loss

        ended = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        progress.begin_at(ended)
        try:
            if trials > ended:
                study.optimize(objective, n_trials=trials - ended, n_jobs=jobs, catch=(_Failed,))
        except Interrupted as interrupted:
            if interrupted.__cause__ is not None:
                raise interrupted.__cause__ from None
            raise SweepStopped(stop.signal) from None


def _one_at_a_time(call: Callable[..., Any]) -> Callable[..., Any]:
    lock = threading.Lock()

    @functools.wraps(call)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return call(*args, **kwargs)

    return alone


@contextmanager
def _study(sweep: Sweep) -> Iterator[Any]:
    """The sweep's study, in which no trial is noted as running.

    The caller has the sweep's lock, so what is noted so was left by a process that is dead. It waits again, under its
    number, and is the next to be asked.
    """
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{sweep.folder.resolve() / 'optuna.db'}")
    # SQLite has no lock for a row that is read to be changed: two threads could both be given the trial that waits.
    storage.set_trial_state_values = _one_at_a_time(storage.set_trial_state_values)
    try:
        drawn = sampler(sweep.plan.sampler, sweep.plan.axes, sweep.plan.seed)
        study = optuna.create_study(study_name=NAME, storage=storage, sampler=drawn, load_if_exists=True)
        states = optuna.trial.TrialState
        number = storage.get_study_id_from_name(NAME)
        for left in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            own = storage.get_trial_id_from_study_id_trial_number(number, left.number)
            storage.set_trial_state_values(own, state=states.WAITING)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()
