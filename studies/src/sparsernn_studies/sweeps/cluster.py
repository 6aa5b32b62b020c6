"""A sweep on a cluster: Ray Tune places the trials, stops those that lag behind (ASHA), and repeats those that die.

Each trial works in its folder under the sweep's, which all machines see, and goes on from the checkpoint there wherever
it is placed next. Ray keeps pickled notes of its own under `ray/`; nothing here ever reads them: a sweep goes on from
the outcomes and checkpoints of its trials.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from sparsernn.extras import require

from .local import SweepStopped
from .plan import Sweep
from .progress import SweepProgress
from .sampling import points
from .trial import Outcome, SweepError, Trial, perform, read_outcome, write_outcome

FAILURES = 4  # times that a trial may die before it counts as failed
GRACE = 3  # reports (ten to a training) before a trial may be stopped
FACTOR = 3  # of so many trials one goes on at each rung (Li et al., arXiv 1810.05934)


def require_ray(address: str) -> None:
    """Import Ray; raises ImportError with the install command if it is missing.

    A cluster of this machine alone is bound to 127.0.0.1, and no cluster reports its use: Ray reads both from the
    environment when it is imported.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: addresses are 127.0.0.1
    require("ray.tune", "sweeps on a cluster")


def carry_out_on_ray(
    sweep: Sweep, trials: int, jobs: int | None, *, address: str, stopping: Literal["asha", "none"]
) -> None:
    """Run the trials of `sweep` that have not ended, until there are `trials`, on the cluster at `address`.

    "local" starts a cluster on this machine, bound to 127.0.0.1. At most `jobs` trials run at a time (None: as many as
    there are CPUs). Raises SweepError if there is no cluster at the address, or when trials could not end; SweepStopped
    after Ctrl-C.
    """
    plan = sweep.plan
    drawn = enumerate(points(plan.sampler, plan.axes, plan.seed, trials))
    todo = [sweep.trial(number, point) for number, point in drawn if read_outcome(sweep.place(number)) is None]
    with SweepProgress(trials) as progress:
        progress.begin_at(trials - len(todo))
        if not todo:
            return
        with _cluster(address, jobs):
            errors = _tuned(sweep, todo, jobs, stopping, progress)
    left = [trial for trial in todo if read_outcome(Path(trial.folder)) is None]
    if errors:
        number, error = min(errors.items())
        raise SweepError(f"{len(errors)} of {trials} trials could not end; trial {number}: {error}")
    if left:
        raise SweepStopped(2)


def _tuned(
    sweep: Sweep, todo: list[Trial], jobs: int | None, stopping: Literal["asha", "none"], progress: SweepProgress
) -> dict[int, str]:
    """Run `todo` on Ray Tune; trials that did not end, with the reason."""
    tune = require("ray.tune", "sweeps on a cluster")
    schedulers = require("ray.tune.schedulers", "sweeps on a cluster")
    asha = schedulers.ASHAScheduler(
        metric="loss", mode="min", max_t=10**6, grace_period=GRACE, reduction_factor=FACTOR, stop_last_trials=False
    )
    tuner = tune.Tuner(
        tune.with_resources(_perform, {"cpu": 1}),
        param_space={"trial": tune.grid_search([asdict(trial) for trial in todo])},
        tune_config=tune.TuneConfig(
            scheduler=asha if stopping == "asha" else None,
            max_concurrent_trials=jobs,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(sweep.folder.resolve()),
            failure_config=tune.FailureConfig(max_failures=FAILURES),
            callbacks=[_watcher(progress)],
            verbose=0,
        ),
    )
    found = tuner.fit()
    return {
        result.config["trial"]["number"]: str(result.error).strip().splitlines()[-1]
        for result in found
        if result.error is not None and read_outcome(Path(result.config["trial"]["folder"])) is None
    }


def _name(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:04d}"


def _perform(config: Mapping[str, Any]) -> None:
    """One trial, in a process that Ray has placed somewhere."""
    tune = require("ray.tune", "sweeps on a cluster")

    def show(course: Mapping[str, Any]) -> None:
        tune.report(dict(course))

    perform(Trial(**config["trial"]), show)


def _watcher(progress: SweepProgress) -> Any:
    """Ray Tune's callback that shows progress, and notes a trial that was stopped early as ended."""
    tune = require("ray.tune", "sweeps on a cluster")

    class Watcher(tune.Callback):
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            about = trial.config["trial"]
            progress.begin(about["number"], about["point"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            progress.show(trial.config["trial"]["number"], result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            about = trial.config["trial"]
            last = trial.last_result
            reason = f"its loss was {last['loss']:.3g} at {last['row']}, step {last['step']}" if "loss" in last else ""
            stopped = Outcome(about["number"], about["point"], "stopped", reason=reason)
            progress.end(about["number"])
            progress.ended(write_outcome(Path(about["folder"]), stopped))

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            progress.died(trial.config["trial"]["number"])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            progress.end(trial.config["trial"]["number"])

    return Watcher()


@contextmanager
def _cluster(address: str, jobs: int | None) -> Iterator[None]:
    """Context of a connection to the cluster at `address`, or of one that is started here."""
    ray = require("ray", "sweeps on a cluster")
    if ray.is_initialized():
        raise SweepError("This process has a Ray connection already; ray.shutdown() ends it.")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init("local", num_cpus=jobs or os.cpu_count() or 1, include_dashboard=False, **quiet)
        else:
            _ask(address)
            ray.init(address, **quiet)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SweepError(f"There is no Ray cluster at {address} ({reason}); `ray start --head` starts one.") from error
    try:
        yield
    finally:
        ray.shutdown()


def _ask(address: str) -> None:
    """Raise OSError where nobody answers: Ray itself would go on trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
