"""Passages as words that know their place in the text, and the official scores of an answer (SQuAD 1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

# Suffixes stand apart, as in the Penn Treebank; numbers keep their commas; any other sign is a word of its own.
_SUFFIX = r"['’](?:s|re|ve|ll|d|m)\b"
_WORD = re.compile(rf"[^\W\d_]+?(?=n['’]t\b)|n['’]t\b|{_SUFFIX}|\d+(?:[.,]\d+)*|[^\W\d_]+|\S", re.IGNORECASE)
_ENDS, _CLOSING = frozenset(".!?"), frozenset("\"'”’)]")
_SHORT = frozenset("mr mrs ms dr st prof gen col sgt rev jr sr vs no vol fig approx ca etc".split())
_ARTICLE = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Passage:
    """`text` and, for each word of it, the first character and the one behind the last."""

    text: str
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str) -> Passage:
        """The words of `text`; what stands between them is white space."""
        return cls(text, tuple(match.span() for match in _WORD.finditer(text)))

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(self.text[begin:end] for begin, end in self.places)

    def between(self, first: int, last: int) -> str:
        """The text from word `first` to word `last`, both included."""
        return self.text[self.places[first][0] : self.places[last][1]]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """First and last word that have characters in begin..end (without the end). Raises ValueError without any."""
        inside = [n for n, (b, e) in enumerate(self.places) if b < end and e > begin]
        if not inside:
            raise ValueError(f"characters {begin} to {end} hold no word")
        return inside[0], inside[-1]

    def part(self, first: int, end: int) -> Passage:
        """Words `first` to `end` (without it) as a passage of their own."""
        start = self.places[first][0]
        text = self.text[start : self.places[end - 1][1]]
        return Passage(text, tuple((b - start, e - start) for b, e in self.places[first:end]))

    @cached_property
    def sentences(self) -> tuple[tuple[int, int], ...]:
        """(first word, word behind the last) of each sentence."""
        found, first = [], 0
        for n in range(len(self)):
            if n >= first and (end := self._end(n)):
                found.append((first, end))
                first = end
        return (*found, (first, len(self))) if first < len(self) else tuple(found)

    def sentence(self, word: int) -> str:
        """The sentence in which a word stands."""
        first, end = next(each for each in self.sentences if each[0] <= word < each[1])
        return self.between(first, end - 1)

    def _touch(self, n: int) -> bool:
        """Whether nothing stands between word n and the next one."""
        return n + 1 < len(self) and self.places[n][1] == self.places[n + 1][0]

    def _end(self, n: int) -> int:
        """The word behind the sentence that word n ends: a full stop, but not that of an initial or an abbreviation,
        with what closes behind it; 0 if it ends none."""
        if self.words[n] not in _ENDS:
            return 0
        after = n + 1
        while after < len(self) and self._touch(after - 1) and self.words[after] in _CLOSING:
            after += 1
        if after == len(self):
            return after
        if self._touch(after - 1) or self.words[after][0].islower():
            return 0
        before = self.words[n - 1] if n and self._touch(n - 1) else ""
        short = (len(before) == 1 and before.isalpha()) or before.lower() in _SHORT
        return 0 if short and self.words[n] == "." else after


def normalised(answer: str) -> str:
    """An answer as the official evaluation compares it: lower case, without punctuation and articles, single spaces."""
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(_ARTICLE.sub(" ", plain).split())


def exact_match(answer: str, wanted: Iterable[str]) -> bool:
    """Whether `answer` is one of the `wanted` ones, once both are normalised."""
    return any(normalised(answer) == normalised(each) for each in wanted)


def f1(answer: str, wanted: Iterable[str]) -> float:
    """The best overlap of words with one of the `wanted` answers, 0 to 1: the harmonic mean of precision and recall."""
    return max(_overlap(normalised(answer).split(), normalised(each).split()) for each in wanted)


def _overlap(found: list[str], wanted: list[str]) -> float:
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0
