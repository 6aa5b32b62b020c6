"""The figures of the study on Reber strings, means over the seeds: accuracy, valid strings, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparsernn.analysis.pruning import Curve, accuracy_figure, distribution_figure, evenly

from ..figures import curve
from .settings import CELL_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Seeds = Sequence[Mapping[str, Mapping[str, Any]]]  # row -> measured, for each seed
PART_CURVES = {"both": "both", "hh": "hidden-to-hidden", "ih": "input-to-hidden"}
SHAPES = {"dense": "histogram", "pruned": "pruned", "retrained": "retrained"}


def of(seeds: Seeds, row: str) -> list[Mapping[str, Any]]:
    """The row of those seeds that have it."""
    return [rows[row] for rows in seeds if row in rows]


def curves(seeds: Seeds, task: str, parts: Mapping[str, str]) -> tuple[dict[str, dict[str, Curve]], dict[str, float]]:
    """Panels cell -> "both, pruned" and "both, retrained" -> curve; and what the dense nets are worth."""
    panels: dict[str, dict[str, Curve]] = {}
    dense: dict[str, float] = {}
    metric = "share_valid" if task == "sentences" else "test_accuracy"
    for cell, title in CELL_NAMES.items():
        for part, name in parts.items():
            rows = of(seeds, f"{cell}-{task}-{part}")
            if rows:
                dense[title] = fmean(row[metric] for row in of(seeds, f"{cell}-{task}-dense"))
                panels.setdefault(title, {})[f"{name}, pruned"] = curve(rows, "before_")
                panels[title][f"{name}, retrained"] = curve(rows, "after_")
    return panels, dense


def distributions(seeds: Seeds) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Panels "LSTM, hidden-to-hidden" -> net -> mean counts of its weights; and the edges between the bins."""
    panels: dict[str, dict[str, list[float]]] = {}
    edges: list[float] = []
    for kind, name in (("ih", "input-to-hidden"), ("hh", "hidden-to-hidden")):
        for cell, title in CELL_NAMES.items():
            dense, both = f"{cell}-strings-dense", f"{cell}-strings-both"
            rows = [{**found[dense], **found.get(both, {})} for found in seeds if dense in found]
            nets = {}
            for net, shape in SHAPES.items():
                counts = [row[f"{shape}_{kind}"] for row in rows if f"{shape}_{kind}" in row]
                if counts:
                    nets[net] = [fmean(place) for place in zip(*counts)]
            if nets:
                panels[f"{title}, {name}"] = nets
                edges = list(rows[0]["histogram_edges"])
    return panels, edges


def figures(seeds: Seeds) -> list[tuple[Figure, str, str]]:
    """(figure, caption, name of a file) of all that the rows of these seeds show."""
    made = []
    for task, parts, y, name, caption in (
        ("strings", PART_CURVES, "test accuracy", "accuracy", "Test accuracy over the percentage pruned"),
        ("sentences", {"both": "both"}, "valid strings", "generation", "Share of valid strings over the percentage"),
    ):
        panels, dense = curves(seeds, task, parts)
        if panels:
            whole = f"{caption}, right after pruning (dashed) and retrained (solid)."
            made.append((accuracy_figure(panels, dense, y=y, place=evenly), whole, name))
    panels, edges = distributions(seeds)
    if panels:
        caption = "Weights that are not zero, by value: dense, pruned to 90% by one threshold for all, and retrained."
        made.append((distribution_figure(panels, edges, columns=len(panels) // 2), caption, "weights"))
    return made
