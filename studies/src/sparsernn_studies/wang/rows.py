"""The rows of the MNIST pruning table, the settings that ask for them, and the author's figures for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from sparsernn.learn.prune import Scope
from sparsernn.learn.scores import Magnitude, Score, StandardDeviation

from ..models import Cell
from ..settings import Count, Is, NotNegative, Positive, Some, Whole, settings
from ..study import Row

# See et al. (arXiv 1606.09274): one threshold for all weights, one for each matrix, one in units of each matrix's
# standard deviation.
SCHEMES: dict[str, tuple[Scope, type[Score]]] = {
    "blind": ("model", Magnitude),
    "uniform": ("matrix", Magnitude),
    "distribution": ("model", StandardDeviation),
}
PARTS = {"all": "all", "recurrent": "recurrent", "hh": "*weight_hh*", "ih": "*weight_ih*"}
PART_NAMES = {
    "all": "all weights",
    "recurrent": "recurrent layers",
    "hh": "hidden-to-hidden",
    "ih": "input-to-hidden",
}
VARIANTS = {f"{scheme}-{part}": (scheme, part) for scheme, part in product(SCHEMES, PARTS)}
Variant = Annotated[str, Is(f"some of {', '.join(VARIANTS)}", VARIANTS.__contains__)]
Percentage = Annotated[int, Is("percentages between 0 and 100", lambda percent: 0 < percent < 100)]
PERCENTAGES = (50, 80, 90, 95, 97, 99)
# Test accuracy in the author's curves, one layer, after 50 epochs of retraining; per matrix and for all at once.
PAPER_DENSE = {  # with one, two and three layers
    "rnn": (0.9764, 0.9798, 0.9568),
    "lstm": (0.9895, 0.9909, 0.9917),
    "gru": (0.9882, 0.9900, 0.9904),
}
PAPER_AFTER = {
    ("rnn", "uniform"): {50: 0.9816, 80: 0.9788, 90: 0.9736, 95: 0.9491, 97: 0.9208, 99: 0.287},
    ("lstm", "uniform"): {90: 0.9845, 95: 0.9800, 97: 0.9584, 99: 0.642},
    ("gru", "uniform"): {50: 0.9903, 80: 0.9894, 90: 0.9861, 95: 0.9800, 97: 0.868, 99: 0.512},
    ("rnn", "blind"): {95: 0.8645, 97: 0.235},
    ("lstm", "blind"): {95: 0.9803, 97: 0.9681, 99: 0.857},
    ("gru", "blind"): {95: 0.9801, 97: 0.9648, 99: 0.736},
}


@settings
class Settings:
    """With one layer, all weights are pruned class-blind to all `percentages`; the other `variants` (scheme-part) and
    the nets of several layers to `few` of them. `steps` train the dense net, `retrain_steps` what is left of it.

    `learning_rate` and `weight_decay` are those of dense nets, also of the one that is trained on for as long as the
    pruned ones are retrained; those, at `retrain_rate` without decay, bear and need a higher rate. The decay (the
    study had none) takes the place of its 50 epochs: after few steps, weights that nothing needs are else still as
    large as they were at the start, and magnitude says little. `rnn_rate`: the vanilla RNN's rates as a share of the
    others', since it does not bear what gated cells do. `train_images`, `test_images` 0: all of them.
    """

    cells: Some[Cell] = ("rnn", "lstm", "gru")
    layers: Some[Count] = (1, 2, 3)
    hidden: Count = 128
    variants: tuple[Variant, ...] = ("uniform-all", "distribution-all", "blind-recurrent", "blind-hh", "blind-ih")
    percentages: tuple[Percentage, ...] = PERCENTAGES
    few: tuple[Percentage, ...] = (95,)
    steps: Count = 1000
    retrain_steps: Count = 1200
    train_images: Whole = 0
    test_images: Whole = 0
    batch: Count = 128
    learning_rate: Positive = 5e-3
    weight_decay: NotNegative = 1e-4
    retrain_rate: Positive = 2e-2
    rnn_rate: Positive = 0.2
    warm_up: Whole = 100
    final_rate: NotNegative = 0.02
    precision: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Net(Row):
    """`cell` with `layers`, dense, trained on for `longer`, or with a part pruned by a scheme to `percent`."""

    cell: Cell
    layers: int
    longer: bool = False
    scheme: str = ""
    part: str = ""
    percent: int = 0

    @property
    def label(self) -> str:
        net = f"{self.cell.upper()}, {self.layers} layer{'s' if self.layers > 1 else ''}"
        if not self.percent:
            return f"{net}, dense" + (", trained on" if self.longer else "")
        return f"{net}, class-{self.scheme}, {PART_NAMES[self.part]}, {self.percent}%"


def dense(cell: Cell, layers: int) -> Net:
    return Net(f"{cell}{layers}-dense", cell, layers)


def pruned(cell: Cell, layers: int, variant: str, percent: int) -> Net:
    scheme, part = VARIANTS[variant]
    return Net(f"{cell}{layers}-{variant}-{percent}", cell, layers, False, scheme, part, percent)


def rows_of(s: Settings) -> list[Net]:
    """The rows in the order in which they are made: what answers most comes first."""
    found = []
    for layers in s.layers:
        first, *later = sorted(s.percentages if layers == 1 else s.few, key=lambda percent: abs(percent - 95)) or [0]
        found += [dense(cell, layers) for cell in s.cells]
        found += [pruned(cell, layers, "blind-all", first) for cell in s.cells if first]
        found += [Net(f"{cell}{layers}-longer", cell, layers, True) for cell in s.cells]
        found += [pruned(cell, layers, "blind-all", percent) for percent in later for cell in s.cells]
        others = product(s.variants, s.few, s.cells) if layers == 1 else ()
        found += [pruned(cell, layers, variant, percent) for variant, percent, cell in others]
    return found


def paper(row: Net) -> dict[str, float]:
    """The author's figures for a row: his dense nets, and his one-layer nets with all weights pruned."""
    found = None
    if (row.part, row.layers) == ("all", 1):
        found = PAPER_AFTER.get((row.cell, row.scheme), {}).get(row.percent)
    elif not row.percent and not row.longer and row.layers <= 3:
        found = PAPER_DENSE[row.cell][row.layers - 1]
    return {} if found is None else {"test_accuracy": found}


def grouped(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Measured figures by net and variant: "before" of row lstm1-blind-all-95 as "before_95" of lstm1-blind-all."""
    found: dict[str, dict[str, Any]] = {}
    for row, measured in rows.items():
        net, _, percent = row.rpartition("-")
        if percent.isdecimal():
            found.setdefault(net, {}).update({f"{metric}_{percent}": v for metric, v in measured.items()})
        else:
            found[row] = dict(measured)
    return found
