"""The page on graph studies, made from the results of darji-graphs and darji-prune-graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ..results import Result
from . import analysis
from .families import FAMILIES, NULLS
from .paper import CELLS, CORRELATIONS, R2
from .properties import EXTRAS, PROPERTIES

FAMILY_NAMES = {"ba": "Barabási-Albert", "ws": "Watts-Strogatz", "er": "Erdős-Rényi"}
CONTROLS = ("weights", "source_nodes", "layers")
MISSING = "Not measured yet.\n"


class Study:
    """The results as arrays: accuracy of each cell and graph (mean over seeds), the graphs' properties.

    `inputs`: the nodes that read the input, "sources" or "all".
    """

    def __init__(self, results: Sequence[Result], inputs: str = "sources") -> None:
        ending = "" if inputs == "sources" else f"-{inputs}"
        rows = {cell: [r for r in results if r.row == cell + ending] for cell in CELLS}
        described = next(r for r in results if r.row == "graphs")
        self.graphs: Mapping[str, Any] = described.measured
        self.settings = described.settings
        self.cells = [cell for cell in CELLS if rows[cell]]
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

    def pearson(self, name: str, cell: str) -> analysis.Correlation:
        """A property and quality."""
        return analysis.pearson(self.of(name, cell), self.quality(cell))

    def partial(self, name: str, cell: str) -> analysis.Correlation:
        """The same with sizes controlled, but for the one that the property is."""
        sizes = [np.log(self.of(size, cell)) for size in CONTROLS if size != name]
        return analysis.partial(self.of(name, cell), self.quality(cell), sizes)

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
    if not study.cells:
        return MISSING
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


def by_cell(study: Study, title: str, rows: Sequence[Sequence[str]]) -> str:
    """A table with a column for each cell."""
    if not study.cells:
        return MISSING
    return table([title, *(CELLS[c] for c in study.cells)], rows)


def correlations_table(study: Study, title: str, found: Callable[[str, str], analysis.Correlation]) -> str:
    """What `found` says of each property and cell."""
    names = PROPERTIES + EXTRAS
    rows = [[name.replace("_", " "), *(shown(found(name, cell)) for cell in study.cells)] for name in names]
    return by_cell(study, title, rows)


def verdicts(study: Study) -> dict[str, list[tuple[str, str, str]]]:
    """For each of the original's ten properties, cell by cell: its r; whether its sign is as there; whether with
    sizes controlled."""
    return {
        name: [
            (f"{r:+.2f}", _held(r, study.pearson(name, cell)), _held(r, study.partial(name, cell)))
            for cell, r in zip(CELLS, published)
            if cell in study.cells
        ]
        for name, published in CORRELATIONS.items()
    }


def verdicts_table(study: Study, found: Mapping[str, Sequence[tuple[str, str, str]]]) -> str:
    cells = {name: [f"{r}: {plain}; controlled {rest}" for r, plain, rest in by] for name, by in found.items()}
    return by_cell(study, "", [[name.replace("_", " "), *texts] for name, texts in cells.items()])


def _held(theirs: float, ours: analysis.Correlation) -> str:
    if not ours.certain:
        return f"not seen ({ours.r:+.2f})"
    return f"as there ({ours.r:+.2f})" if ours.r * theirs > 0 else f"**reversed** ({ours.r:+.2f})"


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
    return by_cell(study, "twin minus graph", rows)


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
            theirs = R2[kind][list(CELLS).index(cell)]
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
