"""The way of every model of the gallery: equal to the original, folded, fine-tuned by its outputs, saved, timed."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.files import write_atomically

from ..errors import StudyError
from ..results import surroundings
from .engines import steps, timed
from .subject import Subject

SAME = 1e-5  # from the package's own runtime
FORMS = ("float32", "int8")
Size = dict[str, Any]


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
    made = sizes(subject)
    chosen = {form: smallest(subject, [row for row, _ in made], form) for form in FORMS}
    nets = {form: made[chosen[form] or 0][1] for form in FORMS}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        times = timed(steps(subject, nets, Path(folder)), rounds)
    content = {"name": subject.name, "package": f"{subject.package} {metadata.version(subject.package)}"}
    content |= {"file": subject.file, "licence": subject.licence, "data": subject.data, "note": subject.note}
    bar = {"metric": subject.bar.metric, "bound": subject.bar.bound, "at_most": subject.bar.at_most}
    found: dict[str, Any] = {**content, "difference": difference, "bar": bar, "bytes": subject.bytes}
    found["original"] = judged(subject, subject.model)
    found |= {"sizes": [row for row, _ in made], "chosen": chosen, "us": times, **surroundings()}
    return found


def sizes(subject: Subject) -> list[tuple[Size, nn.Module]]:
    """The whole net and each smaller one: what it keeps, its metrics before and after fine-tuning, its bytes."""
    whole = subject.model.eval()
    made = [({"level": None, "share": 1.0, "units": None, "folded": None, **figures(subject, whole)}, whole)]
    example = next(iter(subject.calibration))
    for level, shares in subject.shares.items():
        include = "recurrent" if level == "unit" else "all"
        for folded in srn.fold(whole, subject.calibration, to=list(shares), level=level, include=include):  # type: ignore[arg-type]
            small = srn.compact(folded.model, example) if level == "unit" else folded.model
            units = [int((~gone).sum()) for gone in folded.removed.values()] if level == "unit" else None
            row: Size = {"level": level, "share": folded.share, "units": units, "folded": judged(subject, small)}
            tuned = fine_tuned(subject, small, folded.removed)
            made.append((row | figures(subject, tuned), tuned))
    return made


def fine_tuned(subject: Subject, small: nn.Module, removed: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `small` that learned from the whole net's outputs and, unit by unit, from its layers; or `small` itself
    where that did not help on a tenth of the batches that is kept apart."""
    training = list(subject.training)
    apart = max(1, len(training) // 10)
    if not subject.steps:
        return small
    tuned = copy.deepcopy(small).train()
    part, master = subject.part(tuned), subject.part(subject.model)
    for name, parameter in tuned.named_parameters():
        if name in removed:  # a weight that went stays zero: Adam takes no step where there never was a gradient
            parameter.register_hook(lambda slope, kept=~removed[name]: slope * kept)
    optimizer = torch.optim.Adam(part.parameters(), lr=subject.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / subject.steps)
    optimizer.register_step_post_hook(lambda *_: falling.step())
    hidden = {
        path: ~removed[units] if units in removed else torch.arange(int(part.get_submodule(path).hidden_size))  # type: ignore[arg-type]
        for path, units in subject.hidden.items()
    }
    srn.distill(
        part, master, training[apart:], subject.steps, loss=subject.loss, hidden=hidden, optimizer=optimizer
    )  # fmt: skip
    before, after = (off(subject, model.eval(), training[:apart]) for model in (small, tuned))
    return tuned if after < before else small


def off(subject: Subject, model: nn.Module, batches: Iterable[Any]) -> float:
    """The loss of fine-tuning on batches, summed."""
    part, master, total = subject.part(model), subject.part(subject.model), 0.0
    compare: Any = subject.loss
    with torch.no_grad():
        for batch in batches:
            given = batch if isinstance(batch, tuple) else (batch,)
            ours, theirs = part(*given), master(*given)
            lost: Any = compare(ours, theirs) if callable(compare) else srn.distillation_loss(ours, theirs, compare)
            total += float(lost)
    return total


def judged(subject: Subject, model: Any) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in subject.judge(model).items()}


def figures(subject: Subject, model: nn.Module) -> Size:
    """Metrics and bytes of a file in float32 and in int8."""
    found: Size = {"parameters": sum(p.numel() for p in model.parameters())}
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            fast: Any = srn.accelerate(model, form)  # type: ignore[arg-type]
            path = Path(folder) / form
            srn.save(fast, path)
            found[form] = judged(subject, fast)
            found[f"bytes_{form}"] = path.stat().st_size
    return found


def smallest(subject: Subject, rows: list[Size], form: str) -> int | None:
    """The number of the smallest file that holds the bar, None if no size does."""
    good = [n for n, row in enumerate(rows) if subject.bar.holds(row[form][subject.bar.metric])]
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
    table.caption = "; ".join(f"{name} {us:.1f} us" for name, us in content["us"].items())
    return table
