"""Do two sparse nets from one dense net keep the same gates? Overlaps against units permuted at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsernn.structure.cells import recurrent_layers

GATES = ("i", "f", "g", "o")


@dataclass(frozen=True)
class Overlap:
    """How many of `first` and of `second` units are the same, out of `population`."""

    first: int
    second: int
    both: int
    population: int

    @property
    def expected(self) -> float:
        """What units permuted at random have in common in the mean."""
        return self.first * self.second / self.population

    @property
    def deviation(self) -> float:
        """The standard deviation of what units permuted at random have in common; 0 where they can't differ."""
        n = self.population
        spread = self.expected * (n - self.first) * (n - self.second) / (n * max(1, n - 1))
        return spread**0.5

    @property
    def excess(self) -> float:
        """By how many standard deviations more units are the same than by chance; 0 where nothing can differ."""
        return (self.both - self.expected) / self.deviation if self.deviation else 0.0

    @property
    def p_value(self) -> float:
        """Probability that units permuted at random have at least as many in common (hypergeometric, exact)."""
        from scipy.stats import hypergeom

        return float(hypergeom.sf(self.both - 1, self.population, self.first, self.second))


def overlap(first: set[int], second: set[int], among: set[int]) -> Overlap:
    """The overlap of the units of both nets that lie in `among`. Raises KeyError where `among` is empty."""
    if not among:
        raise KeyError("no units to compare")
    a, b = first & among, second & among
    return Overlap(len(a), len(b), len(a & b), len(among))


def living(measured: Mapping[str, Any], layer: int, gate: str) -> set[int]:
    """Numbers in the dense net of the units whose `gate` lives."""
    bit = 1 << GATES.index(gate)
    units, gates = measured[f"layer{layer}_units"], measured[f"layer{layer}_gates"]
    return {unit for unit, sums in zip(units, gates) if sums & bit}


def gate_overlap(
    dense: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any], layer: int, gate: str
) -> Overlap:
    """Units whose `gate` lives in both nets, out of all units of the dense net."""
    return overlap(living(first, layer, gate), living(second, layer, gate), set(dense[f"layer{layer}_units"]))


def gate_overlap_within(first: Mapping[str, Any], second: Mapping[str, Any], layer: int, gate: str) -> Overlap:
    """The same out of the units that both nets keep: do they agree about the gates once they agree about the units?"""
    kept = set(first[f"layer{layer}_units"]) & set(second[f"layer{layer}_units"])
    return overlap(living(first, layer, gate), living(second, layer, gate), kept)


def gate_norms(dense: nn.Module) -> dict[str, list[float]]:
    """For each layer n and gate the norm of each unit's weights of that gate: `layern_norms_GATE`."""
    found = {}
    for n, layer in enumerate(recurrent_layers(dense)):
        rows = [dense.get_parameter(name).detach().unflatten(0, (len(layer.gates), -1)) for name in layer.matrices()]
        for g, gate in enumerate(layer.gates):
            norms_H = torch.cat([weight[g] for weight in rows], 1).norm(dim=1)
            found[f"layer{n}_norms_{gate}"] = [float(f"{norm:.6g}") for norm in norms_H.tolist()]
    return found


def size_overlap_within(
    dense: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any], layer: int, gate: str
) -> Overlap:
    """What size alone tells of `first`: its units whose `gate` lives, against as many as `second` has among those that
    both keep, but the ones where the dense net's weights of that gate are largest."""
    kept = set(first[f"layer{layer}_units"]) & set(second[f"layer{layer}_units"])
    norms = dense[f"layer{layer}_norms_{gate}"]
    ranked = sorted(kept, key=lambda unit: -norms[unit])
    return overlap(living(first, layer, gate), set(ranked[: len(living(second, layer, gate) & kept)]), kept)
