"""What a sweep ends with: the table of its trials on the terminal, as JSON, and in a report on the best one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from sparsernn.analysis.sparsity import inspect
from sparsernn.analysis.trials import best, front
from sparsernn.files import write_atomically

from ..recipes import find
from ..results import surroundings
from .plan import Plan, Sweep
from .progress import short, words
from .space import Range
from .trial import Outcome


def as_table(plan: Plan, outcomes: Sequence[Outcome]) -> Table:
    """One line for each trial; a star marks those that nothing as small beats."""
    data = as_data(plan, outcomes)
    ahead, first = front(data["trials"], data["more"]), best(data["trials"], data["more"])
    caption = "*: no trial as small is better." + ("" if first is None else f" The best is trial {first}.")
    table = Table(title=f"{plan.recipe}, {plan.scale}: a sweep", caption=caption, title_justify="left")
    table.caption_justify = "left"
    for title in ("trial", *(axis.key for axis in plan.axes), _words(data["quality"]), _words(data["size"])):
        table.add_column(title, justify="right")
    table.add_column("")
    for outcome in outcomes:
        figures = [
            "-" if v is None else f"{v:.4g}" if abs(v) < 1e4 else f"{v:,.0f}" for v in (outcome.quality, outcome.size)
        ]
        note = "*" if outcome.number in ahead else "" if outcome.state == "done" else outcome.state
        note += f": {outcome.reason}" if outcome.reason else ""
        table.add_row(str(outcome.number), *map(short, outcome.point.values()), *figures, note)
    return table


def as_data(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The trials as `Report.html` takes them."""
    done = next((outcome for outcome in outcomes if outcome.metric), None)
    return {
        "trials": [
            {
                "number": o.number,
                "settings": {key: _value(text) for key, text in o.point.items()},
                "state": o.state,
                "quality": o.quality,
                "size": o.size,
                **({"reason": o.reason} if o.reason else {}),
            }
            for o in outcomes
        ],
        "quality": done.metric if done else "quality",
        "more": done.more if done else True,
        "size": done.size_metric if done else "size",
        "log": [axis.key for axis in plan.axes if isinstance(axis, Range) and axis.log],
    }


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def write_json(path: Path, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Write the sweep and its trials, with what they were made with; the same trials give the same "trials"."""
    content = {"sweep": asdict(plan), **surroundings(), "threads": 1, **as_data(plan, outcomes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_report(sweep: Sweep, outcomes: Sequence[Outcome], command: str) -> Path | None:
    """Write report.html in the sweep's folder: all trials, and the best one's model. None if no trial was done."""
    data = as_data(sweep.plan, outcomes)
    first = next((o for o in outcomes if o.number == best(data["trials"], data["more"])), None)
    if first is None:
        return None
    loaded = find(sweep.plan.recipe)(sweep.trial(first.number, first.point).run()).loaded()
    path = sweep.folder / "report.html"
    report = inspect(loaded.models[loaded.sparsified], loaded.example_inputs)
    report.html(
        path,
        title=f"{sweep.plan.recipe}: a sweep of {len(outcomes)} trials",
        verdict=f"The best of {len(outcomes)} trials is number {first.number} ({words(first.point)}): "
        f"{_words(first.metric)} {first.quality:.4g}. Of its model: {report.verdict}",
        command=command,
        sweep=data,
    )
    return path


def _words(metric: str) -> str:
    return metric.replace("_", " ")
