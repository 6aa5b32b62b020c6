"""What a sparse net's units look like, as figures of its row: kinds, living gates, and how far back they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sparsernn.analysis.gates import KINDS
from sparsernn.analysis.sparsity import inspect

from .units import Survivors


def structure_figures(small: nn.Module, example_inputs: Tensor, survivors: Survivors, lags: int) -> dict[str, Any]:
    """Of each recurrent layer: `units`, `gates` (living ones), `gates_i` and so on, `full`, `vanilla` and so on.

    `mult_adds_units`, `mult_adds_gates`: multiply-adds of a time step in the recurrent layers, of all rows and of those
    of living gates. For each layer n: `layern_units`, the numbers of its units in the dense net; `layern_gates`, the
    living gates of each as a sum of 1, 2, 4, ... for the gates in their order; `layern_lag_KIND`, the norm of the
    gradient at each time lag, and `layern_meanlag_KIND`.
    """
    report = inspect(small, example_inputs)
    found = report.snapshot
    lag = report.gradient_lag(lags)
    figures: dict[str, Any] = {"units": [], "gates": []}
    products = {"units": 0, "gates": 0}
    for n, layer in enumerate(found.recurrent):
        kinds, alive_GH = found.kinds[layer.name], found.alive[layer.name]
        lives_H = [kind != "dead" for kind in kinds]
        alive = [[bool(lives and other) for lives, other in zip(row, lives_H)] for row in alive_GH.tolist()]
        figures["units"].append(sum(lives_H))
        figures["gates"].append(sum(map(sum, alive)))
        for gate, row in zip(layer.gates, alive):
            figures.setdefault(f"gates_{gate}", []).append(sum(row))
        for kind in KINDS[:-1]:
            figures.setdefault(kind, []).append(kinds.count(kind))
        inputs = layer.input_size + layer.hidden_size
        products["units"] += inputs * len(layer.gates) * layer.hidden_size
        products["gates"] += inputs * sum(map(sum, alive))
        figures[f"layer{n}_units"] = [u for u, lives in zip(survivors.numbers[layer.name].tolist(), lives_H) if lives]
        figures[f"layer{n}_gates"] = as_sums(alive, lives_H)
        for kind, values in lag[layer.name].get("kinds", {}).items():
            figures[f"layer{n}_lag_{kind}"] = [float(f"{norm:.4g}") for norm in values["norm"]]
            figures[f"layer{n}_meanlag_{kind}"] = round(values["mean_lag"], 3)
    return {**figures, **{f"mult_adds_{name}": count for name, count in products.items()}}


def as_sums(alive: Sequence[Sequence[bool]], lives_H: Sequence[bool]) -> list[int]:
    """For each living unit the sum of 1, 2, 4, ... over its living gates; `alive`: a row a gate."""
    sums = [sum(bit << n for n, bit in enumerate(column)) for column in zip(*alive)]
    return [value for value, lives in zip(sums, lives_H) if lives]


def from_sums(sums: Sequence[int], gates: int) -> list[list[bool]]:
    """The rows, a row a gate, that `as_sums` made numbers of."""
    return [[bool(value >> n & 1) for value in sums] for n in range(gates)]
