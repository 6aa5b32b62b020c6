"""What the figures of several studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from sparsernn.analysis.pruning import Curve


def curve(seeds: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """Percentages, means and deviations over the seeds of all that is named `metric` and a percentage."""
    names = [name for name in seeds[0] if name.startswith(metric) and all(name in seed for seed in seeds)]
    percentages = sorted(int(name.removeprefix(metric)) for name in names)
    values = [[seed[f"{metric}{percent}"] for seed in seeds] for percent in percentages]
    return percentages, [fmean(v) for v in values], [stdev(v) if len(v) > 1 else 0.0 for v in values]
