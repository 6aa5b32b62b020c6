"""Reber strings: is a string a sentence of the automaton? Generated, so that the task needs no file.

The automaton and the sizes follow Darji (arXiv 2407.20601): unique valid strings of 11 letters and more. All invalid
strings here use the same seven letters, begin with B and end with E and are as long as the valid ones: about half are
sentences of mis-wired automata, the others valid strings with one edit, so that neither the vocabulary nor the ends
nor the length give them away.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from ..settings import Is

LETTERS = "BTSXPVE"
END = -1
# How many strings are generated.
Fourfold = Annotated[int, Is("a multiple of 4, at least 16", lambda count: count >= 16 and count % 4 == 0)]
Automaton = Mapping[int, tuple[tuple[str, int], ...]]  # state -> (letter, next state)

REBER: Automaton = {
    0: (("B", 1),),
    1: (("T", 2), ("P", 3)),
    2: (("S", 2), ("X", 4)),
    3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)),
    5: (("P", 4), ("V", 6)),
    6: (("E", END),),
}


def accepts(string: str, automaton: Automaton = REBER) -> bool:
    """Whether `automaton` reads `string` from state 0 to its end."""
    state = 0
    for letter in string:
        following = dict(automaton.get(state, ()))
        if letter not in following:
            return False
        state = following[letter]
    return state == END


def accepts_embedded(string: str) -> bool:
    """Whether `string` is an embedded Reber string: B, T or P, a Reber string, the same T or P again, E."""
    return (
        len(string) > 4
        and string[0] == "B"
        and string[-1] == "E"
        and string[1] == string[-2]
        and string[1] in "TP"
        and accepts(string[2:-2])
    )


def walk(source: random.Random, automaton: Automaton = REBER, longest: int = 60) -> str | None:
    """A random sentence of `automaton`, None if it has not ended after `longest` letters."""
    state, letters = 0, []
    while state != END:
        if len(letters) == longest:
            return None
        letter, state = source.choice(automaton[state])
        letters.append(letter)
    return "".join(letters)


def miswired(source: random.Random) -> Automaton:
    """The automaton with one or two of its inner transitions led to another state or given another letter."""
    wires = {state: list(steps) for state, steps in REBER.items()}
    for _ in range(source.choice((1, 2))):
        state = source.randrange(1, 6)
        n = source.randrange(len(wires[state]))
        letter, following = wires[state][n]
        if source.random() < 0.5:
            following = source.choice([s for s in range(1, 7) if s != following])
        else:
            letter = source.choice([c for c in LETTERS[1:-1] if c not in dict(wires[state])])
        wires[state][n] = (letter, following)
    return {state: tuple(steps) for state, steps in wires.items()}


def edited(source: random.Random, string: str) -> str:
    """`string` with one letter inside (not the first or last) replaced, dropped, doubled or swapped with the next."""
    n = source.randrange(1, len(string) - 2)
    kind = source.choice(("replace", "drop", "insert", "swap"))
    if kind == "replace":
        return string[:n] + source.choice(LETTERS[1:-1]) + string[n + 1 :]
    if kind == "drop":
        return string[:n] + string[n + 1 :]
    if kind == "insert":
        return string[:n] + source.choice(LETTERS[1:-1]) + string[n:]
    return string[:n] + string[n + 1] + string[n] + string[n + 2 :]


@dataclass(frozen=True)
class Strings:
    """Labelled strings: `valid[n]` says whether `strings[n]` is a sentence."""

    strings: tuple[str, ...]
    valid: tuple[bool, ...]

    def part(self, begin: int, end: int) -> Strings:
        return Strings(self.strings[begin:end], self.valid[begin:end])


PATIENCE = 300  # attempts in a row that give nothing new: the lengths that are left are rare


def collect(make: Callable[[], str | None], number: int, seen: set[str], wanted: Callable[[str], bool]) -> list[str]:
    """`number` strings that `make` gives and that are `wanted`, none of them in `seen`, where they are then noted."""
    found: list[str] = []
    while len(found) < number:
        string = make()
        if string is not None and string not in seen and wanted(string):
            seen.add(string)
            found.append(string)
    return found


def collect_lengths(
    make: Callable[[], str | None], lengths: Counter[int], seen: set[str], wanted: Callable[[str], bool]
) -> list[str]:
    """The same with so many of each of `lengths`, which counts down; ends early where `make` hardly gives any more."""
    found: list[str] = []
    missed = 0
    while missed < PATIENCE and lengths.total():
        string = make()
        missed += 1
        if string is not None and lengths[len(string)] > 0 and string not in seen and wanted(string):
            seen.add(string)
            found.append(string)
            lengths[len(string)] -= 1
            missed = 0
    return found


def generate(count: int, seed: int, *, embedded: bool = False, shortest: int = 11) -> Strings:
    """`count` different strings in random order, half of them valid, at least `shortest` letters long.

    As many are invalid as valid of each length: about half of them from mis-wired automata, the others valid strings
    with one edit. With `embedded` all are wrapped as B, T or P, string, T or P, E, and about half of the mis-wired ones
    err in the outer letter alone.
    Raises ValueError if `count` is not a positive multiple of 4.
    """
    if count < 4 or count % 4:
        raise ValueError(f"generate() makes a multiple of 4 strings, at least 4; {count} were asked for.")
    source = random.Random(seed)
    judge = accepts_embedded if embedded else accepts

    def sentence(automaton: Automaton) -> str | None:
        inner = walk(source, automaton)
        if inner is None or not embedded:
            return inner
        outer = source.choice("TP")
        return f"B{outer}{inner}{outer}E"

    def invalid_walk() -> str | None:
        if embedded and source.random() < 0.5:
            right = sentence(REBER)
            return None if right is None else right[:-2] + ("P" if right[-2] == "T" else "T") + "E"
        return sentence(miswired(source))

    def invalid_edit() -> str | None:
        right = sentence(REBER)
        return None if right is None or len(right) < shortest else edited(source, right)

    seen: set[str] = set()

    def wanted(valid: bool) -> Callable[[str], bool]:
        return lambda string: len(string) >= shortest and judge(string) is valid

    valid = collect(lambda: sentence(REBER), count // 2, seen, wanted(True))
    lengths = Counter(map(len, valid))
    walks = Counter({length: n // 2 + (length % 2) * (n % 2) for length, n in lengths.items()})
    edits = lengths - walks
    invalid = collect_lengths(invalid_walk, walks, seen, wanted(False))
    edits += walks
    invalid += collect_lengths(invalid_edit, edits, seen, wanted(False))
    for length, n in sorted(edits.items()):  # rare lengths: the valid strings of that length themselves are edited
        own = [s for s in valid if len(s) == length]
        invalid += collect(
            lambda own=own: edited(source, source.choice(own)),
            n,
            seen,
            lambda s, length=length: len(s) == length and wanted(False)(s),
        )
    strings = [(s, True) for s in valid] + [(s, False) for s in invalid]
    source.shuffle(strings)
    return Strings(tuple(s for s, _ in strings), tuple(v for _, v in strings))
