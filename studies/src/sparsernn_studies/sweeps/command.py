"""`sparsernn sweep`: a sweep from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..progress import make_console


def sweep_recipe(
    recipe: str,
    /,
    over: tuple[str, ...] = (),
    scale: Literal["smoke", "cpu", "paper"] = "cpu",
    set: tuple[str, ...] = (),
    trials: int | None = None,
    jobs: int | None = None,
    seed: int = 0,
    sampler: Literal["grid", "tpe", "random"] | None = None,
    ray: str | None = None,
    stopping: Literal["asha", "none"] = "asha",
    data: Path | None = None,
    folder: Path | None = None,
    runs: Path = Path("runs"),
    results: Path | None = None,
) -> None:
    """Run a recipe with many settings, show the table of all trials, write a report. The same command resumes a sweep.

    Args:
        recipe: name, as `sparsernn list` shows it.
        over: what is swept: key=a,b,c (values), key=a:b (a range) or key=log:a:b; several may follow.
        scale: smoke (seconds), cpu (minutes on a laptop) or paper (the published sizes), of each trial.
        set: settings of all trials, each key=value.
        trials: how many; the whole grid if there are only lists, otherwise 20.
        jobs: how many side by side, each a process with one thread: 1 here, as many as there are CPUs on Ray.
        seed: the one number that decides all random choices, of the trials and of where they lie.
        sampler: grid for lists; otherwise tpe (one job), or random (several).
        ray: address of a Ray cluster, or local to start one here: the sweep runs on Ray Tune.
        stopping: on Ray, asha stops trials early whose loss lags behind; none lets all go to their end.
        data: folder with data sets; SPARSERNN_DATA otherwise.
        folder: the sweep's folder; one under `runs` otherwise. All machines of a cluster have to see it.
        runs: folder for what sweeps leave.
        results: folder for the table as JSON, as sweeps/RECIPE-SCALE-SWEPT.json; inside the sweep's folder otherwise.
    """
    from ..sweep import sweep
    from .table import as_table, write_json, write_report

    made, outcomes = sweep(
        recipe,
        over,
        scale=scale,
        set=set,
        seed=seed,
        trials=trials,
        jobs=jobs,
        sampler=sampler,
        ray=ray,
        stopping=stopping,
        data=data,
        folder=folder,
        runs=runs,
    )
    console = make_console()
    console.print(as_table(made.plan, outcomes))
    write_json(made.folder / "table.json", made.plan, outcomes)
    if results is not None:
        swept = "-".join(axis.key for axis in made.plan.axes)  # a recipe may be swept over several things
        write_json(results / "sweeps" / f"{recipe}-{scale}-{swept}.json", made.plan, outcomes)
    path = write_report(made, outcomes, made.plan.command)
    console.print("No trial was done, so there is no report." if path is None else f"Report: {path}", soft_wrap=True)
