"""The claims of the MNIST pruning study; rows by net and variant, as `grouped` gives them."""

from __future__ import annotations

from itertools import pairwise, product
from math import log
from statistics import fmean

from ..claims import Claim, Measured, Value, costs_little, greater
from .rows import PERCENTAGES

CELLS = ("rnn", "lstm", "gru")


def loss(cell: str, percent: int, layers: int = 1, variant: str = "blind-all", dense: str = "longer") -> Value:
    """Points of accuracy lost after retraining, against the dense net trained for as long, or ("dense") as it was when
    it was pruned."""
    net = f"{cell}{layers}"
    return lambda rows: (
        100 * (rows[f"{net}-{dense}"]["test_accuracy"] - rows[f"{net}-{variant}"][f"test_accuracy_{percent}"])
    )


def loss_at(cell: str, kept: float) -> Value:
    """Points lost by one layer with `kept` percent of its weights left, on a straight line over the logarithm between
    the two percentages that were trained."""
    less, more = next((a, b) for a, b in pairwise(PERCENTAGES) if 100 - b <= kept <= 100 - a)[::-1]
    share = (log(kept) - log(100 - less)) / (log(100 - more) - log(100 - less))
    return lambda rows: (1 - share) * loss(cell, less)(rows) + share * loss(cell, more)(rows)


def _size(layers: int) -> float:
    """Weights of so many layers over those of one: 28 inputs, 128 units."""
    return 1 + (layers - 1) * 2 * 128 / (28 + 128)


def closed(cell: str, percent: int) -> Value:
    """Share of the gap that pruning tears which retraining closes, in percent."""

    def value(rows: Measured) -> float:
        dense, pruned = rows[f"{cell}1-dense"]["test_accuracy"], rows[f"{cell}1-blind-all"]
        before, after = pruned[f"before_{percent}"], pruned[f"test_accuracy_{percent}"]
        return 100 * (after - before) / (dense - before)

    return value


def left(cell: str, block: str) -> Value:
    """Percent of the weights left at 95% in the blocks of layer 0 whose name ("ih0_i") begins or ends with `block`."""

    def value(rows: Measured) -> float:
        row = rows[f"{cell}1-blind-all"]
        blocks = [name for name in row if name.startswith("kept_") and name.endswith("_95")]
        found = [row[name] for name in blocks if f"_{block}0_" in name or f"0_{block}_" in name]
        if not found:
            raise KeyError(f"{cell} was not pruned to 95%")
        return 100 * fmean(found)

    return value


def _lost(cell: str, scheme: str) -> tuple[Claim, Claim]:
    text = f"{cell.upper()}, one layer: 95% pruned class-{scheme} and retrained costs under 1 point"
    at_once, longer = (loss(cell, 95, variant=f"{scheme}-all", dense=dense) for dense in ("dense", "longer"))
    return (
        costs_little(f"{text}, against the dense net that was pruned", at_once),
        costs_little(f"{text}, against the dense net trained on for as long", longer),
    )


CLAIMS: tuple[Claim, ...] = (
    *(claim for cell in CELLS for scheme in ("blind", "uniform") for claim in _lost(cell, scheme)),
    *(
        Claim(
            f"{cell.upper()}: retraining closes at least nine tenths of the gap at {percent}%",
            "% of the gap closed",
            closed(cell, percent),
            at_least=90.0,
        )
        for cell in CELLS
        for percent in (90, 95)
    ),
    *(
        greater(
            f"{cell.upper()} keeps more redundancy than the RNN: it loses less at 95%", loss("rnn", 95), loss(cell, 95)
        )
        for cell in ("lstm", "gru")
    ),
    greater(
        "The same at as many weights left: the LSTM at 95% loses less than the RNN at 80%",
        loss("rnn", 80),
        loss("lstm", 95),
    ),
    *(
        greater(
            f"{cell.upper()}: hidden-to-hidden has more redundancy (fewer of its weights survive at 95%)",
            left(cell, "ih"),
            left(cell, "hh"),
            "% left, input less hidden",
        )
        for cell in CELLS
    ),
    *(
        greater(
            f"{cell.upper()}: the same by the loss when only one of the two is pruned to 95%",
            loss(cell, 95, variant="blind-ih"),
            loss(cell, 95, variant="blind-hh"),
            "points lost, input less hidden",
        )
        for cell in CELLS
    ),
    greater(
        "GRU's input weights have less redundancy than the LSTM's (more of them survive at 95%)",
        left("gru", "ih"),
        left("lstm", "ih"),
        "% left, GRU less LSTM",
    ),
    greater(
        "GRU's z gate has less redundancy than its r and n (more of its weights survive at 95%)",
        left("gru", "z"),
        lambda rows: fmean(left("gru", gate)(rows) for gate in "rn"),
        "% left, z less the others",
    ),
    *(
        greater(
            f"{cell.upper()}: {layers} layers lose less than one at 95%, where {_size(layers):.1f} times as many "
            "weights are left",
            loss(cell, 95),
            loss(cell, 95, layers),
        )
        for cell, layers in product(CELLS, (2, 3))
    ),
    *(
        greater(
            f"{cell.upper()}: {layers} layers at 95% lose less than one with as many weights left",
            loss_at(cell, 5 * _size(layers)),
            loss(cell, 95, layers),
        )
        for cell, layers in product(CELLS, (2, 3))
    ),
)
