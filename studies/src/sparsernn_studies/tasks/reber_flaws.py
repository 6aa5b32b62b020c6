"""Reber strings as in the original study, flaws and all, so that what they do can be shown.

There (H. Darji, arXiv 2407.20601, and the published data) 7000 of 12500 invalid strings come from automata over other
letters, so that a single letter gives them away, 1500 are valid strings whose first T or P is the other one, and 4000
come from mis-wired automata.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from .reber import LETTERS, REBER, Automaton, Strings, accepts, collect, miswired, walk

ALPHABET = string.ascii_uppercase
# Two alphabets, as there: letters of the first and of the second half that no Reber string has.
OTHERS = ("ACDFGHIJKL", "MNOQRUWYZ")


def relettered(source: random.Random) -> Automaton:
    """The automaton with other letters between its first and its last one."""
    others = dict(zip(LETTERS[1:-1], source.sample(source.choice(OTHERS), 5)))
    return {
        state: tuple((others.get(letter, letter), following) for letter, following in steps)
        for state, steps in REBER.items()
    }


def turned(valid: str) -> str:
    """`valid` with its first letter after B, a T or P, turned into the other one."""
    return valid[0] + ("P" if valid[1] == "T" else "T") + valid[2:]


def generate_flawed(count: int, seed: int, *, shortest: int = 11) -> Strings:
    """`count` different strings in random order, half of them valid, the invalid ones in the original's shares.

    Raises ValueError if `count` is not a positive multiple of 4.
    """
    if count < 4 or count % 4:
        raise ValueError(f"generate_flawed() makes a multiple of 4 strings, at least 4; {count} were asked for.")
    source = random.Random(seed)
    half = count // 2
    other, first = round(half * 7000 / 12500), round(half * 1500 / 12500)
    seen: set[str] = set()

    def turn() -> str | None:
        valid = walk(source)
        return None if valid is None else turned(valid)

    def wanted(valid: bool) -> Callable[[str], bool]:
        return lambda string: len(string) >= shortest and accepts(string) is valid

    parts = (
        (half, True, lambda: walk(source)),
        (other, False, lambda: walk(source, relettered(source))),
        (first, False, turn),
        (half - other - first, False, lambda: walk(source, miswired(source))),
    )
    strings = [(found, right) for number, right, make in parts for found in collect(make, number, seen, wanted(right))]
    source.shuffle(strings)
    return Strings(tuple(s for s, _ in strings), tuple(v for _, v in strings))
