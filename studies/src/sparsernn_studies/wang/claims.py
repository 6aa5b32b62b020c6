"""The claims of the MNIST pruning study; rows by net and variant, as `grouped` gives them."""

from __future__ import annotations

from itertools import pairwise
from math import log
from statistics import fmean

from ..claims import Claim, Measured
from .rows import PERCENTAGES


def loss(rows: Measured, cell: str, percent: int, layers: int = 1, variant: str = "blind-all") -> float:
    """Points of accuracy lost after retraining, against the dense net trained for as long."""
    dense = rows[f"{cell}{layers}-longer"]["test_accuracy"]
    return 100 * (dense - rows[f"{cell}{layers}-{variant}"][f"test_accuracy_{percent}"])


def loss_at(rows: Measured, cell: str, kept: float) -> float:
    """Points lost by one layer with `kept` percent of its weights left, on a straight line over the logarithm between
    the two percentages that were trained."""
    less, more = next((a, b) for a, b in pairwise(PERCENTAGES) if 100 - b <= kept <= 100 - a)[::-1]
    share = (log(kept) - log(100 - less)) / (log(100 - more) - log(100 - less))
    return (1 - share) * loss(rows, cell, less) + share * loss(rows, cell, more)


def _size(layers: int) -> float:
    """Weights of so many layers over those of one: 28 inputs, 128 units."""
    return 1 + (layers - 1) * 2 * 128 / (28 + 128)


def lost_from_source(rows: Measured, cell: str, percent: int, variant: str = "blind-all") -> float:
    """Points of accuracy lost after retraining, against the dense net as it was when it was pruned."""
    return 100 * (rows[f"{cell}1-dense"]["test_accuracy"] - rows[f"{cell}1-{variant}"][f"test_accuracy_{percent}"])


def closed(rows: Measured, cell: str, percent: int) -> float:
    """Share of the gap that pruning tears which retraining closes, in percent."""
    dense, pruned = rows[f"{cell}1-dense"]["test_accuracy"], rows[f"{cell}1-blind-all"]
    before, after = pruned[f"before_{percent}"], pruned[f"test_accuracy_{percent}"]
    return 100 * (after - before) / (dense - before)


def left(rows: Measured, cell: str, percent: int, block: str) -> float:
    """Percent of the weights left in the blocks of layer 0 whose name ("ih0_i") begins or ends with `block`."""
    row = rows[f"{cell}1-blind-all"]
    blocks = [name for name in row if name.startswith("kept_") and name.endswith(f"_{percent}")]
    found = [name for name in blocks if f"_{block}0_" in name or f"0_{block}_" in name]
    return 100 * fmean(row[name] for name in found) if found else row[f"kept_{block}_{percent}"]


def _lost(cell: str, variant: str) -> tuple[Claim, Claim]:
    scheme = variant.split("-")[0]
    text = f"{cell.upper()}, one layer: 95% pruned class-{scheme} and retrained costs under 1 point"
    return (
        Claim(
            f"{text}, against the dense net that was pruned",
            "points lost",
            lambda rows: lost_from_source(rows, cell, 95, variant),
            at_most=1.0,
        ),
        Claim(
            f"{text}, against the dense net trained on for as long",
            "points lost",
            lambda rows: loss(rows, cell, 95, variant=variant),
            at_most=1.0,
        ),
    )


def _z_against_rest(rows: Measured) -> float:
    return left(rows, "gru", 95, "z") - fmean(left(rows, "gru", 95, gate) for gate in "rn")


CLAIMS: tuple[Claim, ...] = (
    *(
        claim
        for cell in ("rnn", "lstm", "gru")
        for scheme in ("blind", "uniform")
        for claim in _lost(cell, f"{scheme}-all")
    ),
    *(
        Claim(
            f"{cell.upper()}: retraining closes at least nine tenths of the gap at {percent}%",
            "% of the gap closed",
            lambda rows, cell=cell, percent=percent: closed(rows, cell, percent),
            at_least=90.0,
        )
        for cell in ("rnn", "lstm", "gru")
        for percent in (90, 95)
    ),
    *(
        Claim(
            f"{cell.upper()} keeps more redundancy than the RNN: it loses less at 95%",
            "points lost less",
            lambda rows, cell=cell: loss(rows, "rnn", 95) - loss(rows, cell, 95),
            at_least=0.0,
        )
        for cell in ("lstm", "gru")
    ),
    Claim(
        "The same at as many weights left: the LSTM at 95% loses less than the RNN at 80%",
        "points lost less",
        lambda rows: loss(rows, "rnn", 80) - loss(rows, "lstm", 95),
        at_least=0.0,
    ),
    *(
        Claim(
            f"{cell.upper()}: hidden-to-hidden has more redundancy (fewer of its weights survive at 95%)",
            "% left, input less hidden",
            lambda rows, cell=cell: left(rows, cell, 95, "ih") - left(rows, cell, 95, "hh"),
            at_least=0.0,
        )
        for cell in ("rnn", "lstm", "gru")
    ),
    *(
        Claim(
            f"{cell.upper()}: the same by the loss when only one of the two is pruned to 95%",
            "points lost, input less hidden",
            lambda rows, cell=cell: loss(rows, cell, 95, variant="blind-ih") - loss(rows, cell, 95, variant="blind-hh"),
            at_least=0.0,
        )
        for cell in ("rnn", "lstm", "gru")
    ),
    Claim(
        "GRU's input weights have less redundancy than the LSTM's (more of them survive at 95%)",
        "% left, GRU less LSTM",
        lambda rows: left(rows, "gru", 95, "ih") - left(rows, "lstm", 95, "ih"),
        at_least=0.0,
    ),
    Claim(
        "GRU's z gate has less redundancy than its r and n (more of its weights survive at 95%)",
        "% left, z less the others",
        _z_against_rest,
        at_least=0.0,
    ),
    *(
        Claim(
            f"{cell.upper()}: {layers} layers lose less than one at 95%, where {_size(layers):.1f} times as many "
            "weights are left",
            "points lost less",
            lambda rows, cell=cell, layers=layers: loss(rows, cell, 95) - loss(rows, cell, 95, layers),
            at_least=0.0,
        )
        for cell in ("rnn", "lstm", "gru")
        for layers in (2, 3)
    ),
    *(
        Claim(
            f"{cell.upper()}: {layers} layers at 95% lose less than one with as many weights left",
            "points lost less",
            lambda rows, cell=cell, layers=layers: (
                loss_at(rows, cell, 5 * _size(layers)) - loss(rows, cell, 95, layers)
            ),
            at_least=0.0,
        )
        for cell in ("rnn", "lstm", "gru")
        for layers in (2, 3)
    ),
)
