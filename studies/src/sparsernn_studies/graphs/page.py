"""The page on graph studies, made from the results of darji-graphs and darji-prune-graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ..results import Result
from . import analysis
from .families import FAMILIES, NULLS
from .properties import EXTRAS, PROPERTIES

CELLS = {"tanh": "tanh RNN", "relu": "relu RNN", "lstm": "LSTM", "gru": "GRU"}
FAMILY_NAMES = {"ba": "Barabási-Albert", "ws": "Watts-Strogatz", "er": "Erdős-Rényi"}
# Pearson's r with test accuracy, worked out again from the measurements of Stier and Granitzer (arXiv 2107.12917).
ORIGINAL = {
    "nodes": (0.40, 0.44, 0.44, 0.49),
    "edges": (0.38, 0.43, 0.42, 0.49),
    "source_nodes": (0.35, 0.47, 0.57, 0.74),
    "degree_var": (-0.28, -0.26, -0.39, -0.58),
    "closeness_var": (-0.46, -0.39, -0.51, -0.67),
    "node_betweenness_var": (-0.49, -0.41, -0.56, -0.52),
    "edge_betweenness_var": (-0.34, -0.30, -0.44, -0.26),
    "layers": (0.25, 0.30, 0.28, 0.34),
    "density": (0.29, 0.15, 0.29, 0.34),
    "average_path": (-0.27, -0.25, -0.36, -0.23),
}
ORIGINAL_R2 = {
    "ridge": (0.479, 0.361, 0.372, 0.672),
    "forest": (0.432, 0.615, 0.579, 0.876),
    "adaboost": (0.357, 0.535, 0.595, 0.783),
}
CONTROLS = ("weights", "source_nodes", "layers")


class Study:
    """The results as arrays: accuracy of each cell and graph (mean over seeds), the graphs' properties."""

    def __init__(self, results: Sequence[Result]) -> None:
        rows = {r.row: [q for q in results if q.row == r.row] for r in results}
        self.graphs: Mapping[str, Any] = rows["graphs"][0].measured
        self.settings = rows["graphs"][0].settings
        self.cells = [cell for cell in CELLS if cell in rows]
        self.seeds = sorted({r.seed for cell in self.cells for r in rows[cell]})
        self.accuracy = {c: np.mean([r.measured["test_accuracy"] for r in rows[c]], axis=0) for c in self.cells}
        self.weights = {c: np.array(rows[c][0].measured["weights"], dtype=float) for c in self.cells}
        self.null = np.array(self.graphs["null"])
        self.family = np.array(self.graphs["family"])
        self.plain = self.null == 0

    def of(self, name: str, cell: str) -> np.ndarray:
        """A property (or "weights") of the graphs that are no null model."""
        values = self.weights[cell] if name == "weights" else np.array(self.graphs[name], dtype=float)
        return values[self.plain]

    def quality(self, cell: str) -> np.ndarray:
        return self.accuracy[cell][self.plain]

    def twins(self, null: str) -> list[tuple[int, int]]:
        """(graph, its twin) by their numbers: twins have their graph's seed."""
        first = {seed: n for n, seed in enumerate(self.graphs["graph_seed"]) if self.null[n] == 0}
        chosen = np.flatnonzero(self.null == NULLS.index(null))
        return [(first[self.graphs["graph_seed"][n]], int(n)) for n in chosen]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def shown(c: analysis.Correlation) -> str:
    text = f"{c.r:+.2f} ({c.low:+.2f}..{c.high:+.2f})"
    return f"**{text}**" if c.certain else text


def families_table(study: Study) -> str:
    rows = []
    for cell in study.cells:
        quality, family = study.quality(cell), study.family[study.plain]
        cells = [quality[family == n] for n in range(len(FAMILIES))]
        rows.append(
            [
                CELLS[cell],
                *(f"{q.mean():.3f} ± {q.std():.3f}" if len(q) else "-" for q in cells),
                f"{quality.max():.3f}",
            ]
        )
    return table(["", *FAMILY_NAMES.values(), "best graph"], rows)


def correlations_table(study: Study) -> str:
    rows = []
    for name in PROPERTIES + EXTRAS:
        cells = [shown(analysis.pearson(study.of(name, c), study.quality(c))) for c in study.cells]
        rows.append([name.replace("_", " "), *cells])
    return table(["Pearson's r", *(CELLS[c] for c in study.cells)], rows)


def controls_of(study: Study, cell: str, name: str) -> list[np.ndarray]:
    return [np.log(study.of(c, cell)) for c in CONTROLS if c != name]


def controlled_table(study: Study) -> str:
    rows = []
    for name in PROPERTIES + EXTRAS:
        cells = [
            shown(analysis.partial(study.of(name, c), study.quality(c), controls_of(study, c, name)))
            for c in study.cells
        ]
        rows.append([name.replace("_", " "), *cells])
    return table(["partial r", *(CELLS[c] for c in study.cells)], rows)


def verdict_rows(study: Study) -> list[list[str]]:
    """For each of the original's ten properties and cell: does its sign hold, and does it with sizes controlled?"""
    rows = []
    for name, published in ORIGINAL.items():
        cells = [name.replace("_", " ")]
        for cell, theirs in zip(CELLS, published):
            if cell not in study.cells:
                continue
            plain = analysis.pearson(study.of(name, cell), study.quality(cell))
            rest = analysis.partial(study.of(name, cell), study.quality(cell), controls_of(study, cell, name))
            cells.append(f"{theirs:+.2f}: {_held(theirs, plain)}; controlled {_held(theirs, rest)}")
        rows.append(cells)
    return rows


def _held(theirs: float, ours: analysis.Correlation) -> str:
    if not ours.certain:
        return f"not seen ({ours.r:+.2f})"
    return f"holds ({ours.r:+.2f})" if ours.r * theirs > 0 else f"**reversed** ({ours.r:+.2f})"


def nulls_table(study: Study) -> str:
    rows = []
    words = {"rewired": "degrees kept, edges swapped", "shuffled": "layers kept, edges drawn anew"}
    for null, text in words.items():
        pairs = study.twins(null)
        cells = []
        for cell in study.cells:
            a = study.accuracy[cell]
            mean, half = analysis.paired([a[n] for n, _ in pairs], [a[m] for _, m in pairs])
            inside = f"{mean:+.3f} ± {half:.3f}"
            cells.append(f"**{inside}**" if abs(mean) > half else inside)
        rows.append([f"{text} ({len(pairs)} pairs)", *cells])
    return table(["twin minus graph", *(CELLS[c] for c in study.cells)], rows)


def regressions(study: Study) -> dict[str, dict[str, Any]]:
    """For each cell: R² of each model by cross-validation with all properties and with sizes alone, and held out."""
    found: dict[str, dict[str, Any]] = {}
    family = study.family[study.plain]
    for cell in study.cells:
        names = PROPERTIES + EXTRAS
        columns = np.column_stack([study.of(name, cell) for name in (*names, "weights")])
        sizes = np.column_stack([np.log(study.of(name, cell)) for name in CONTROLS])
        y = study.quality(cell)
        mine: dict[str, Any] = {}
        for kind, model in analysis.models().items():
            mine[kind] = {
                "all": analysis.cross_validated(columns, y, model),
                "sizes": analysis.cross_validated(sizes, y, model),
                "held_out": analysis.held_out(columns, y, family, model),
            }
        scores = analysis.importance(columns, y, analysis.models()["forest"])
        order = np.argsort(-scores)[:5]
        mine["importance"] = [((*names, "weights")[n].replace("_", " "), float(scores[n])) for n in order]
        found[cell] = mine
    return found


def regressions_table(found: Mapping[str, Any]) -> str:
    rows = []
    for cell, mine in found.items():
        for kind in ("ridge", "forest", "adaboost"):
            r2 = mine[kind]
            out = ", ".join(f"{FAMILIES[n].upper()} {value:+.2f}" for n, value in r2["held_out"].items())
            theirs = ORIGINAL_R2[kind][list(CELLS).index(cell)]
            rows.append([f"{CELLS[cell]}, {kind}", f"{theirs:.2f}", f"{r2['all']:+.2f}", f"{r2['sizes']:+.2f}", out])
    return table(["R²", "original", "all properties", "sizes alone", "on a family not fitted to"], rows)


def importance_table(found: Mapping[str, Any]) -> str:
    rows = [[CELLS[c], ", ".join(f"{name} {score:.2f}" for name, score in m["importance"])] for c, m in found.items()]
    return table(["", "random forest: loss of R² when shuffled, the five largest"], rows)


def prune_table(results: Sequence[Result], labels: Mapping[str, str]) -> str:
    order = [row for row in labels if any(r.row == row for r in results)]
    rows = []
    for row in order:
        mine = [r.measured for r in results if r.row == row]
        accuracy, spread = fmean(m["test_accuracy"] for m in mine), fmean(m["deviation"] for m in mine)
        rows.append([labels[row], f"{accuracy:.3f} ± {spread:.3f}", f"{round(fmean(m['nonzero'] for m in mine)):,}"])
    return table(["", "test accuracy", "weights"], rows)


def counted(study: Study) -> dict[str, int]:
    """Over the original's ten properties and the cells: how often its sign holds, with and without controls."""
    found = {"all": 0, "plain": 0, "controlled": 0}
    for name, published in ORIGINAL.items():
        for cell, theirs in zip(CELLS, published):
            if cell in study.cells:
                plain = analysis.pearson(study.of(name, cell), study.quality(cell))
                rest = analysis.partial(study.of(name, cell), study.quality(cell), controls_of(study, cell, name))
                found["all"] += 1
                found["plain"] += plain.certain and plain.r * theirs > 0
                found["controlled"] += rest.certain and rest.r * theirs > 0
    return found
