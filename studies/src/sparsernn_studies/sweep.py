"""Sweeps: a recipe run again and again with other settings, to see which of them matter and what size costs.

`sparsernn sweep RECIPE --over key=values` is this from the command line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from .data import data_folder
from .recipes import find
from .runs import MOST_SEED
from .settings import with_changes
from .sweeps.cluster import carry_out_on_ray, require_ray
from .sweeps.local import carry_out
from .sweeps.plan import Plan, Sampler, Sweep, is_grid, noted
from .sweeps.space import Axis, SpaceError, read_over
from .sweeps.trial import Outcome, SweepError

TRIALS = 20


def sweep(
    recipe: str,
    over: Sequence[str],
    *,
    scale: str = "cpu",
    set: Sequence[str] = (),
    seed: int = 0,
    trials: int | None = None,
    jobs: int | None = None,
    sampler: Sampler | None = None,
    ray: str | None = None,
    stopping: Literal["asha", "none"] = "asha",
    data: str | Path | None = None,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
) -> tuple[Sweep, list[Outcome]]:
    """Run `trials` trials of `recipe` and return the sweep with what came of each, in the order of their numbers.

    `over`: "key=a,b,c", "key=low:high" or "key=log:low:high", one for each setting that is swept; values are read by
    the setting's type. `set` are settings of all trials, as in `sparsernn run`. `trials`: the whole grid if there are
    only lists, otherwise 20. `jobs` trials run side by side, each in a process of its own with one thread: 1 here, as
    many as there are CPUs on Ray.

    `sampler`: "grid" where there are only lists; otherwise "tpe" for one job and "random" for several, since TPE looks
    at the trials before, which for several jobs would depend on who ends first. In both cases a sweep that was killed
    and resumed ends with the same table as one that was left alone.

    `ray`: the address of a Ray cluster, or "local" to start one on this machine: the sweep then runs on Ray Tune, and
    with `stopping` "asha" trials whose loss lags behind are stopped early.

    The sweep lies in `folder` (a folder of its own under `runs` otherwise), which all machines of a cluster have to
    see. The same call goes on with a sweep that was stopped or killed: trials that have ended are not repeated, others
    go on from their checkpoints. A script that calls this needs `if __name__ == "__main__":` around it, as everything
    that starts processes.

    Raises SettingsError and SpaceError for settings that do not exist or values that they cannot have, SweepError for a
    folder of another sweep or when a trial cannot go on, SweepStopped after SIGTERM or Ctrl-C, ImportError if an extra
    is missing. Nothing is written before all arguments were checked.
    """
    axes = read_over(with_changes(find(recipe).at(scale), set), over)
    for name, value, least in (("trials", trials, 1), ("jobs", jobs, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise SpaceError(f"{name} is {value}, expected a whole number from {least} on.")
    if seed > MOST_SEED:
        raise SpaceError(f"seed is {str(seed)[:40]}, expected a whole number from 0 to {MOST_SEED}.")
    one_by_one = ray is None and (jobs or 1) == 1
    usual: Sampler = "grid" if is_grid(axes) else "tpe" if one_by_one else "random"
    plan = Plan(recipe, scale, seed, tuple(set), tuple(over), usual)
    where = place(plan, folder, runs)
    before = noted(where)
    plan = replace(plan, sampler=sampler or (before.sampler if before else usual))
    check_sampler(plan.sampler, axes, one_by_one)
    count = min(trials or plan.points or TRIALS, plan.points or 10**9)
    made = Sweep(plan, where, data_folder(data))
    if ray is None:
        with made.begun():
            carry_out(made, count, jobs or 1)
    else:
        require_ray(ray)
        with made.begun():
            carry_out_on_ray(made, count, jobs, address=ray, stopping=stopping)
    return made, made.outcomes()


def check_sampler(chosen: Sampler, axes: tuple[Axis, ...], one_by_one: bool) -> None:
    """Raises SpaceError for a sampler that cannot draw from these axes, or not for trials side by side."""
    if (chosen == "grid") != is_grid(axes):
        expected = "grid, since there are only lists" if is_grid(axes) else "tpe or random, since there is a range"
        raise SpaceError(f"sampler is {chosen}, expected {expected}.")
    if chosen == "tpe" and not one_by_one:
        raise SpaceError(
            "sampler is tpe, which learns from the trials before: with several jobs its points would depend on who "
            "ends first.\nTake jobs=1, or sampler random (in another folder, if the sweep has begun)."
        )


def place(plan: Plan, folder: str | Path | None, runs: str | Path) -> Path:
    """`folder`, or one under `runs` whose name tells recipe, scale and seed, and by a digest what is swept."""
    if folder is not None:
        return Path(folder)
    swept = json.dumps([sorted(plan.set), sorted(plan.over)])
    digest = hashlib.sha256(swept.encode()).hexdigest()[:8]
    return Path(runs) / "sweeps" / f"{plan.recipe}-{plan.scale}-seed{plan.seed}-{digest}"


__all__ = ["Outcome", "SpaceError", "Sweep", "SweepError", "sweep"]
