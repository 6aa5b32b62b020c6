"""The way of every model of the gallery: equal to the original, folded, fine-tuned by its outputs, saved, timed."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import sparsernn as srn
from sparsernn.files import write_atomically
from sparsernn.runtime.precision import Wanted

from ..errors import StudyError
from ..results import surroundings
from .engines import steps, timed
from .precision import in_int8, validated
from .subject import STEP, Subject
from .tuning import fine_tuned

SAME = 1e-5  # from the package's own runtime
FORMS = ("float32", "int8")
Size = dict[str, Any]


class Made(NamedTuple):
    """What is said of a size, and its net and precision in each form."""

    row: Size
    nets: Mapping[str, tuple[nn.Module, Wanted]]


class GalleryError(StudyError):
    """A model that is not what its package runs."""


def show(name: str, subjects: Iterable[Subject], folder: Path, rounds: int = 15) -> None:
    """Make, print and write the results of each subject of the command's `name`: FOLDER/SUBJECT.json."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for subject in subjects:
            content = result(subject, rounds) | {"command": name}
            write_atomically(folder / f"{subject.name}.json", json.dumps(content, indent=2) + "\n")
            Console(width=120).print(as_table(content))


def result(subject: Subject, rounds: int = 15) -> dict[str, Any]:
    """Everything that the page says of one model, as it is written. Raises GalleryError if ours gives other outputs."""
    with torch.no_grad():
        difference = subject.difference()
    if not difference <= SAME:
        raise GalleryError(f"{subject.name}: outputs are {difference:.1e} from the package's; at most {SAME:.0e}.")
    original, bar = judged(subject, subject.model), subject.bar
    made = sizes(subject)
    chosen = {form: smallest([each.row for each in made], form) for form in FORMS}
    nets = {form: made[chosen[form] or 0].nets[form] for form in FORMS}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        calls, in_c = steps(subject, nets, Path(folder))
        times = {"us": timed(calls, rounds)}
        if subject.stepwise:
            calls, in_c = steps(subject._replace(call=STEP, **subject.stepwise), nets, Path(folder))
            times["us of a step"] = timed(calls, rounds)
    content = {"name": subject.name, "package": f"{subject.package} {metadata.version(subject.package)}"}
    content |= {name: getattr(subject, name) for name in ("file", "licence", "data", "note", "call")}
    said = {"metric": bar.metric, "bound": bar.at(original[bar.metric]), "at_most": bar.at_most}
    found: dict[str, Any] = {**content, "difference": difference, "bar": said, "bytes": subject.bytes}
    found |= {"original": original, "sizes": [each.row for each in made], "chosen": chosen, "c": in_c}
    return found | times | surroundings()


def sizes(subject: Subject) -> list[Made]:
    """The whole net and each smaller one: what it keeps, its metrics before and after fine-tuning, its bytes."""
    whole = subject.model.eval()
    with torch.no_grad():
        original = float(subject.judge(whole, subject.validation)[subject.bar.metric])
    made = [in_forms(subject, whole, {"level": None, "share": 1.0, "units": None, "folded": None}, original)]
    example = next(iter(subject.calibration))
    for level, shares in subject.shares.items():
        include = "recurrent" if level == "unit" else subject.thinned
        for folded in srn.fold(whole, subject.calibration, to=list(shares), level=level, include=include):  # type: ignore[arg-type]
            small = srn.compact(folded.model, example) if level == "unit" else folded.model
            units = [int((~gone).sum()) for gone in folded.removed.values()] if level == "unit" else None
            row: Size = {"level": level, "share": folded.share, "units": units, "folded": judged(subject, small)}
            made.append(in_forms(subject, fine_tuned(subject, small, folded.removed), row, original))
    return made


def in_forms(subject: Subject, net: nn.Module, row: Size, original: float) -> Made:
    """`net` in float32 and in int8: its metrics on the test, whether it holds the bar on validation, and its bytes.

    original: the whole net's metric on validation.
    """
    good = partial(subject.bar.holds, original=original)
    nets: dict[str, tuple[nn.Module, Wanted]] = {"float32": (net, "float32"), "int8": in_int8(subject, net, good)}
    row = {**row, "parameters": sum(p.numel() for p in net.parameters()), "precision": nets["int8"][1]}
    row["validation"] = {form: validated(subject, *each) for form, each in nets.items()}
    row["good"] = {form: good(value) for form, value in row["validation"].items()}
    with tempfile.TemporaryDirectory() as folder:
        for form, each in nets.items():
            fast, path = srn.accelerate(*each), Path(folder) / form
            srn.save(fast, path)
            row[form] = judged(subject, fast)
            row[f"bytes_{form}"] = path.stat().st_size
    return Made(row, nets)


def judged(subject: Subject, model: Any) -> dict[str, float]:
    """Metrics on the test."""
    with torch.no_grad():
        return {name: float(value) for name, value in subject.judge(model, subject.test).items()}


def smallest(rows: Sequence[Size], form: str) -> int | None:
    """The number of the smallest file that holds the bar on validation, None if no size does."""
    good = [n for n, row in enumerate(rows) if row["good"][form]]
    return min(good, key=lambda n: rows[n][f"bytes_{form}"], default=None)


def as_table(content: Mapping[str, Any]) -> Table:
    """Sizes, then times, for the terminal."""
    metric = content["bar"]["metric"]
    table = Table(title=f"{content['name']}: {content['package']}, {content['licence']}; bar: {metric} "
                        f"{'<=' if content['bar']['at_most'] else '>='} {content['bar']['bound']:g}")  # fmt: skip
    for title in ("kept", "of", f"{metric}: folded", "float32", "int8", "bytes float32", "int8"):
        table.add_column(title, justify="right")
    for row in content["sizes"]:
        cells = [f"{row['share']:.0%}", str(row["units"] or row["level"] or "all")]
        cells += ["-" if row[name] is None else f"{row[name][metric]:.4g}" for name in ("folded", *FORMS)]
        cells += [f"{row[f'bytes_{form}']:,} ({content['bytes'] / row[f'bytes_{form}']:.1f}x)" for form in FORMS]
        table.add_row(*cells)
    stepwise = {f"a step of {name}": us for name, us in content.get("us of a step", {}).items()}
    table.caption = "; ".join(f"{name} {us:.1f} us" for name, us in (content["us"] | stepwise).items())
    return table
