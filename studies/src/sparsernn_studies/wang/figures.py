"""From the rows of the MNIST pruning table to the curves and bars of its figures: means and deviations over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparsernn.analysis.pruning import Curve, accuracy_figure, remaining_figure
from sparsernn.structure.cells import recurrent_layers

from ..claims import Measured
from ..figures import curve
from ..models import CELLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # net and variant -> measured, one for each seed


def curves(rows: Rows) -> tuple[dict[str, dict[str, Curve]], dict[str, float]]:
    """Panels cell -> "class-blind, retrained" -> curve, for one layer and all weights; and the dense accuracies."""
    panels: dict[str, dict[str, Curve]] = {}
    dense: dict[str, float] = {}
    for row, seeds in rows.items():
        net, _, variant = row.partition("-")
        if net[-1] != "1":
            continue
        title = net[:-1].upper()
        if variant == "dense":
            dense[title] = fmean(seed["test_accuracy"] for seed in seeds)
        elif variant.endswith("-all"):
            scheme = variant.removesuffix("-all")
            lines = panels.setdefault(title, {})
            lines[f"class-{scheme}, pruned"] = curve(seeds, "before_")
            lines[f"class-{scheme}, retrained"] = curve(seeds, "test_accuracy_")
    return panels, dense


def remaining(rows: Rows, percent: int, hidden: int = 128, inputs: int = 28) -> dict[str, dict[str, tuple[int, int]]]:
    """Panels cell -> block ("ih i") -> weights (remaining, pruned) at `percent`, class-blind, one layer."""
    panels: dict[str, dict[str, tuple[int, int]]] = {}
    for row, seeds in rows.items():
        net, _, variant = row.partition("-")
        if variant != "blind-all" or net[-1] != "1" or f"kept_head_{percent}" not in seeds[0]:
            continue
        bars = {}
        for layer in recurrent_layers(CELLS[net[:-1]](inputs, hidden)):
            for rows_of in layer.rows:
                if rows_of.kind == "bias":
                    continue
                size = hidden * (inputs if rows_of.kind == "ih" else hidden)
                share = fmean(seed[f"kept_{rows_of.kind}0_{rows_of.gate}_{percent}"] for seed in seeds)
                bars[f"{rows_of.kind} {rows_of.gate}"] = (round(share * size), size - round(share * size))
        panels[net[:-1].upper()] = bars
    return panels


def figures(seeds: Sequence[Measured]) -> list[tuple[Figure, str, str]]:
    """The slides' plots from the grouped rows of each seed: (figure, caption, name of a file)."""
    nets = seeds[0] if seeds else ()
    rows = {net: [found[net] for found in seeds] for net in nets if all(net in found for found in seeds)}
    panels, dense = curves(rows)
    blocks = remaining(rows, 95)
    made = []
    if panels:
        caption = "Test accuracy over the percentage pruned, right after pruning (dashed) and retrained; one layer."
        made.append((accuracy_figure(panels, dense, y="test accuracy"), caption, "accuracy"))
    if blocks:
        caption = "Weights remaining and pruned in each gate at 95%, one threshold for all weights; one layer."
        made.append((remaining_figure(blocks), caption, "remaining"))
    return made
