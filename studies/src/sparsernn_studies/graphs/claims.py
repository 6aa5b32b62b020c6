"""What Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917) say of graphs, with its controls.

Each number is of one seed's nets on the same graphs, so that its interval says how far weights and batches matter. A
claim about a property has to hold over the graphs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..claims import Claim, Guard, Measured, Value, more, stands_out
from .analysis import Correlation, pearson
from .families import NULLS
from .paper import CELLS


def correlation(row: str, name: str) -> Callable[[Measured], Correlation]:
    """Of a property of the graphs that are no null model and the accuracy of their nets."""

    def value(rows: Measured) -> Correlation:
        described, accuracy = rows["graphs"], rows[row]["test_accuracy"]
        _check(described, accuracy)
        plain = [n for n, null in enumerate(described["null"]) if null == 0]
        values = [described[name][n] for n in plain]
        if len(plain) < 4 or len(set(values)) == 1:
            raise KeyError(f"{name} is the same in all graphs, or they are fewer than four")
        return pearson(values, [accuracy[n] for n in plain])

    return value


def _together(row: str, name: str, text: str) -> Claim:
    """The claim that more of a property goes with more accuracy, over seeds and over graphs."""
    found = correlation(row, name)

    def over_graphs(rows: Measured) -> str:
        r = found(rows)
        return "" if r.certain else f"over the graphs r may be zero ({r.low:.2f} to {r.high:.2f})"

    guards = (*_learnt(row), over_graphs)
    return Claim(text, "r, these graphs", lambda rows: found(rows).r, at_least=0.0, guards=guards)


def _check(described: Mapping[str, Any], accuracy: Sequence[float]) -> None:
    if len(described["null"]) != len(accuracy):
        raise KeyError("these are the accuracies of other graphs")


def _ahead(row: str) -> Value:
    """Points of accuracy by which Watts-Strogatz graphs are ahead of Barabási-Albert ones."""
    return lambda rows: 100 * (rows[row]["accuracy_ws"] - rows[row]["accuracy_ba"])


def _drawn_anew(row: str) -> Value:
    """Points of accuracy that graphs lose where the edges between two layers join others of their nodes."""

    def value(rows: Measured) -> float:
        described, accuracy = rows["graphs"], rows[row]["test_accuracy"]
        _check(described, accuracy)
        first = {seed: n for n, seed in enumerate(described["graph_seed"]) if described["null"][n] == 0}
        twins = [n for n, null in enumerate(described["null"]) if NULLS[null] == "shuffled"]
        if not twins:
            raise KeyError("there is no such null model")
        return 100 * fmean(accuracy[first[described["graph_seed"][n]]] - accuracy[n] for n in twins)

    return value


def _learnt(row: str) -> tuple[Guard, ...]:
    return (stands_out("accuracy", row, 0.5, "a guess", more=True, what="the mean net"),)


def _of(cell: str) -> tuple[Claim, ...]:
    name, heard = CELLS[cell], ", where all nodes read the input"
    found: list[Claim] = []
    for row, words in ((cell, ""), (f"{cell}-all", heard)):
        found += [
            _together(row, "source_nodes", f"{name}{words}: more sources go with more accuracy"),
            _together(row, "layers", f"{name}{words}: more layers go with more accuracy"),
            *(
                Claim(f"{name}{words}: {text}", "points, these graphs", value, at_least=0.0, guards=_learnt(row))
                for text, value in (
                    ("Watts-Strogatz graphs do better than Barabási-Albert ones", _ahead(row)),
                    ("other edges between the same layers do worse", _drawn_anew(row)),
                )
            ),
        ]
    less = Claim(
        f"{name}: the number of sources matters less{heard}",
        "less of r's size, these graphs",
        lambda rows: (
            abs(correlation(cell, "source_nodes")(rows).r) - abs(correlation(f"{cell}-all", "source_nodes")(rows).r)
        ),
        at_least=0.0,
        guards=_learnt(cell) + _learnt(f"{cell}-all"),
    )
    return *found, less


OF_GRAPHS = tuple(claim for cell in CELLS for claim in _of(cell))


def _of_pruned(cell: str) -> tuple[Claim, ...]:
    name = CELLS[cell]
    guards = (stands_out("test_accuracy", f"{cell}-dense", 0.5, "a guess", more=True),)
    return tuple(
        Claim(
            f"{name}: {text}",
            "points, these graphs",
            more("test_accuracy", f"{cell}-{first}", f"{cell}-{second}", 100),
            at_least=0.0,
            guards=guards,
        )
        for text, first, second in (
            ("graphs do better than a dense stack with as many weights", "graph", "small"),
            ("a dense stack pruned to as many weights does better than the graphs", "pruned", "graph"),
            ("of pruned graphs and dense stacks pruned as far, the graphs do better", "both", "fewer"),
        )
    )


OF_PRUNED = tuple(claim for cell in CELLS for claim in _of_pruned(cell))
