"""What the five nets say: whether folding loses less than magnitude, and what is left of it after further training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...claims import Claim, Measured, beats, more

FIFTH = 0.2
COMPARED = (  # a way, the one that it is to be better than, and how that is said
    ("fold", "ramp", "fold + {n} steps is better than the ramp + {n} steps"),
    ("fold", "magnitude", "fold + {n} steps is better than magnitude + {n} steps"),
    ("folding", "ramp", "in the course of {n} steps, Shrink by Fold is better than by TopK"),
)


def row_name(net: str, way: str, share: float = 1.0, steps: int | None = None) -> str:
    """What a row is called in results."""
    return "-".join([net, way, *([f"{100 * share:g}"] if share < 1 else []), *([] if steps is None else [str(steps)])])


def claims_of(nets: Sequence[str], shares: Sequence[float], further: Sequence[int]) -> list[Claim]:
    """For each net and share: a fifth of magnitude's loss; better than the ramp; better than a dense net."""
    found = []
    for net in nets:
        guards = (beats("test_loss", f"{net}-dense", f"{net}-baseline", "what needs no net", more=False, by=0.1),)
        for share in shares:
            at = f"{net} at {share:.0%} of the weights"
            found.append(
                Claim(
                    f"{at}: without training, fold loses at most a fifth of what magnitude loses",
                    "of its loss",
                    partial(_of_magnitude, net, share),
                    at_most=FIFTH,
                    guards=guards,
                )
            )
            for way, than, said in COMPARED:
                found += [
                    Claim(
                        f"{at}: {said.format(n=n)}",
                        "less loss",
                        more("test_loss", row_name(net, than, share, n), row_name(net, way, share, n)),
                        at_least=0.0,
                        guards=guards,
                    )
                    for n in further
                ]
            longest = max(further)
            found.append(
                Claim(
                    f"{at}: fold + {longest} steps is better than a dense net of that size and as much compute",
                    "less loss",
                    more("test_loss", row_name(net, "direct", share, longest), row_name(net, "fold", share, longest)),
                    at_least=0.0,
                    guards=guards,
                )
            )
    return found


def _of_magnitude(net: str, share: float, rows: Measured) -> float:
    dense = rows[row_name(net, "dense")]["test_loss"]
    fold, magnitude = (rows[row_name(net, way, share, 0)]["test_loss"] - dense for way in ("fold", "magnitude"))
    return fold / magnitude


def verdict(measured: Mapping[str, Mapping[str, Any]], nets: Sequence[str], shares: Sequence[float]) -> str:
    """One line a net: dense, folded and by magnitude at the middle share, all without training."""
    share = shares[len(shares) // 2]
    lines = []
    for net in nets:
        names = row_name(net, "dense"), row_name(net, "fold", share, 0), row_name(net, "magnitude", share, 0)
        dense, fold, magnitude = (measured[name]["test_loss"] for name in names)
        lines.append(f"{net}: {dense:.4f}; {share:.0%} without training: fold {fold:.4f}, magnitude {magnitude:.4f}.")
    return "\n".join(lines)
