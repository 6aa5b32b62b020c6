"""What the comparison of methods is asked: pairs of ways at the same size, on each net."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...claims import Claim, Guard, Measured, beats, more

Named = Callable[..., str]
LEVELS = {"weight": "weights", "block": "blocks", "word": "words", "unit": "units"}
COMPARED = (  # at a level: a way, the one that it is to be better than, and how both are called
    ("weight", "fold", "prune", "fold, trained on, is better than gradual magnitude"),
    ("weight", "movement", "prune", "movement is better than gradual magnitude"),
    ("weight", "rewind", "prune", "rewound weights, trained 1.6 times as long, are better than gradual magnitude"),
    ("weight", "rigl", "prune", "RigL from chance is better than gradual magnitude"),
    ("weight", "selfish", "set", "Selfish-RNN is better than SET"),
    ("weight", "rigl", "set", "RigL is better than SET"),
    ("weight", "rigl", "snip", "RigL is better than SNIP"),
    ("weight", "rigl", "synflow", "RigL is better than SynFlow"),
    ("block", "fold", "prune", "fold, trained on, is better than gradual magnitude"),
    ("block", "rigl", "prune", "RigL from chance is better than gradual magnitude"),
    ("word", "fold", "prune", "fold, trained on, is better than gradual magnitude"),
    ("word", "rigl", "prune", "RigL from chance is better than gradual magnitude"),
    ("unit", "fold", "shrink", "fold, trained on, is better than Shrink by TopK"),
    ("unit", "folding", "shrink", "Shrink by Fold is better than by TopK"),
    ("unit", "fade", "shrink", "Shrink by Fade is better than by TopK"),
    ("unit", "gates", "shrink", "Shrink by HardConcrete is better than by TopK"),
    ("unit", "fold", "direct", "fold, trained on, is better than a dense net of that size and as many steps"),
    ("unit", "fold", "direct-longer", "fold, trained on, is better than a dense net of that size and as much compute"),
)


def claims_of(named: Named, settings: Any) -> list[Claim]:
    """The pairs for each net and share; and across levels: blocks against units at the same share of weights."""
    found = []
    for net in settings.nets:
        simple = f"{net}-baseline"
        dense = beats("test_loss", f"{net}-dense", simple, "what needs no net", more=False, by=0.1)

        def claim(text: str, way: str, than: str, dense: Guard = dense, simple: str = simple) -> Claim:
            guards = dense, partial(_one_learnt, way, than, simple)
            return Claim(text, "less loss", more("test_loss", than, way), at_least=0.0, guards=guards)

        for left in settings.left:
            percent = 100 * left
            for level, way, than, said in COMPARED:
                rows = named(net, way, level, percent), named(net, than, level, percent)
                found.append(claim(f"{net} at {left:.0%}: {LEVELS[level]}: {said}", *rows))
            for fine, coarse in (("weight", "block"), ("block", "word"), ("block", "unit")):
                rows = named(net, "fold", fine, percent), named(net, "fold", coarse, percent)
                said = f"folded {LEVELS[fine]}, trained on, are better than folded {LEVELS[coarse]}"
                found.append(claim(f"{net} at {left:.0%}: {said}", *rows))
            rows = named(net, "factorise", "rank", percent), named(net, "fold", "unit", percent)
            found.append(claim(f"{net} at {left:.0%}: lower ranks are better than fewer units", *rows))
    return found


def _one_learnt(way: str, than: str, simple: str, rows: Measured) -> str:
    """A way that no longer learns is worse than one that does; of two that don't there is nothing to say."""
    better = min(rows[way]["test_loss"], rows[than]["test_loss"])
    return "" if better < rows[simple]["test_loss"] else "neither of the two is better than what needs no net"
