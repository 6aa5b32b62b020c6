"""Questions on passages (SQuAD 1.1, Rajpurkar et al., arXiv 1606.05250): each answer is a span of its passage.

The files are not ours to hand on; they come from the data folder. Beside the whole data set there is a subset (4,284
questions of the training part, as text with an example a line), and questions made up on the spot, which need no file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..data import DataError, DataFile, read
from .passages import Passage

CorpusName = Literal["squad", "subset", "made"]
_ADDRESS = "https://rajpurkar.github.io/SQuAD-explorer/dataset/{}"
_SHA256 = {
    "train-v1.1.json": "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    "dev-v1.1.json": "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
}
FILES = {name: DataFile(f"squad/{name}", sha, sha, _ADDRESS.format(name)) for name, sha in _SHA256.items()}
_SUBSET_ADDRESS = (
    "https://github.com/thomasfermi/Dynamic-Coattention-Network-for-SQuAD (data/squad, with gzip as val.*.gz)"
)
SUBSET = {
    name: DataFile(f"squad_subset/val.{name}.gz", packed, plain, _SUBSET_ADDRESS)
    for name, packed, plain in (
        (
            "context",
            "3a84cfb3e6d2cd62af1c27ed54329851367b9d5ee2417c52844e6d69eb5ec976",
            "1e255a23b27742bc0959663583910c293572160d02c600c753fb535b5e69db59",
        ),
        (
            "question",
            "a530783c47e17ab22b8afa013a1031c472922b1e940ec132ab83c488c3c7404d",
            "0c0592ac9b92b69f22dd5328c0ea0347b84d4639192d3838e89b60a1758f1d90",
        ),
        (
            "answer",
            "b9ae7dcea6e753baab970bb96c6d9d6df144796b80d759d4bc8fff19ef7c0ba6",
            "9a62e70906f7f3e587baa257cd2d8c3bab7caadcb5f7b34c912a00eb1ca25747",
        ),
        (
            "span",
            "642e919f9a2a47f74c3a07211ce7c855436f9c386ae4c5fcaed89f86fecbe659",
            "a5cde117a7f03df7e95f3a49147e3c6bf782c274f92bc7083fb211e7f34a5624",
        ),
    )
}
VALID = 0.1  # share of the subset's passages that is kept to measure on


@dataclass(frozen=True)
class Question:
    """`words` of the question; `span`: first and last word of the answer in the passage; `answers`: all right ones."""

    passage: Passage
    words: tuple[str, ...]
    span: tuple[int, int]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    train: tuple[Question, ...]
    valid: tuple[Question, ...]


def load(folder: Path | None, name: CorpusName = "squad") -> Corpus:
    """The corpus `name`: SQuAD's training and development part, the subset with a tenth of its passages held out, or
    made-up questions.

    Raises DataError, which names the file, if one is missing or not the expected one.
    """
    if name == "made":
        return Corpus(tuple(made(240, 0)), tuple(made(60, 1)))
    if name == "subset":
        contents = {part: read(file, folder).decode("utf-8") for part, file in SUBSET.items()}
        return held_out(tuple(aligned(contents)))
    train, valid = (tuple(articles(read(file, folder), file.path)) for file in FILES.values())
    return Corpus(train, valid)


def articles(content: bytes, path: str) -> Iterator[Question]:
    """The questions of a file in SQuAD's format (version 1.1). Raises DataError, which names `path`, if it is none."""
    try:
        for article in json.loads(content)["data"]:
            for paragraph in article["paragraphs"]:
                passage = Passage.of(paragraph["context"])
                for asked in paragraph["qas"]:
                    yield _question(passage, asked)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path} is not in SQuAD's format ({type(error).__name__}: {error}).\n"
            "Expected data, paragraphs, context, qas, question, answers, text and answer_start, as in version 1.1."
        ) from None


def _question(passage: Passage, asked: Any) -> Question:
    answers = [(each["text"], int(each["answer_start"])) for each in asked["answers"]]
    text, begin = answers[0]
    if passage.text[begin : begin + len(text)] != text:
        raise ValueError(f"the answer {text!r} does not stand at character {begin}")
    span = passage.span(begin, begin + len(text))
    return Question(passage, Passage.of(asked["question"]).words, span, tuple(text for text, _ in answers))


def aligned(contents: dict[str, str]) -> Iterator[Question]:
    """The questions of the subset: line n of context, question, answer and span belong together."""
    lines = {part: content.removesuffix("\n").split("\n") for part, content in contents.items()}
    if len({len(each) for each in lines.values()}) != 1:
        counts = ", ".join(f"{part} {len(each)}" for part, each in lines.items())
        raise DataError(f"The parts of the subset have different numbers of lines: {counts}.")
    passages: dict[str, Passage] = {}
    for context, question, answer, numbers in zip(*(lines[part] for part in ("context", "question", "answer", "span"))):
        passage = passages.setdefault(context, Passage.of(context))
        first, last = (int(number) for number in numbers.split())
        begin, end = _characters(context, first, max(first, last))  # one line of the files has the last one too small
        # A few answers are a part of their token: "Toronto" of "Toronto-based".
        inside = context.find(answer, begin, end)
        begin, end = (begin, end) if inside < 0 else (inside, inside + len(answer))
        yield Question(passage, Passage.of(question).words, passage.span(begin, end), (answer,))


def _characters(context: str, first: int, last: int) -> tuple[int, int]:
    """Where the tokens first..last of a text with single spaces begin and end."""
    tokens = context.split(" ")
    begin = sum(len(token) + 1 for token in tokens[:first])
    return begin, begin + len(" ".join(tokens[first : last + 1]))


def held_out(questions: Sequence[Question]) -> Corpus:
    """A tenth of the passages, always the same ones, with all their questions to measure on."""
    passages = list(dict.fromkeys(question.passage.text for question in questions))
    random.Random(0).shuffle(passages)
    kept = set(passages[: round(len(passages) * VALID)])
    parts: tuple[list[Question], list[Question]] = ([], [])
    for question in questions:
        parts[question.passage.text in kept].append(question)
    return Corpus(tuple(parts[0]), tuple(parts[1]))


def pieces(questions: Sequence[Question], words: int, seed: int = 0) -> tuple[Question, ...]:
    """Each question on a piece of its passage: whole sentences, at most so many words, the answer among them.

    Sentences are added before and behind in random order, which depends on `seed` and the question's place alone.
    Questions whose answer stands in a longer sentence are left out.
    """
    found = (_piece(question, words, random.Random(seed * 1_000_003 + n)) for n, question in enumerate(questions))
    return tuple(question for question in found if question is not None)


def _piece(question: Question, words: int, source: random.Random) -> Question | None:
    passage, (first, last) = question.passage, question.span
    sentences = passage.sentences
    here = [n for n, (begin, end) in enumerate(sentences) if begin <= last and end > first]
    low, high = here[0], here[-1]
    if sentences[high][1] - sentences[low][0] > words:
        return None
    sides = ["before", "behind"]
    while sides:
        side = source.choice(sides)
        wider = (low - 1, high) if side == "before" else (low, high + 1)
        inside = wider[0] >= 0 and wider[1] < len(sentences)
        if inside and sentences[wider[1]][1] - sentences[wider[0]][0] <= words:
            low, high = wider
        else:
            sides.remove(side)
    begin, end = sentences[low][0], sentences[high][1]
    return replace(question, passage=passage.part(begin, end), span=(first - begin, last - begin))


_NAMES = "Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Karla Leo".split()
_FACTS = {
    "lives in": ("Where does {} live ?", ["Rome", "New York", "Oslo", "Cape Town", "Lima", "Kyoto"]),
    "works as": ("What does {} work as ?", ["a baker", "a pilot", "a nurse", "a judge"]),
    "drinks": ("What does {} drink ?", ["green tea", "coffee", "milk", "apple juice"]),
    "was born in": ("When was {} born ?", ["1950", "1961", "1987", "2003"]),
}


def made(number: int, seed: int) -> Iterator[Question]:
    """So many made-up questions, each on a passage of four short sentences: to try things out without data."""
    source = random.Random(seed)
    for _ in range(number):
        people = source.sample(_NAMES, 4)
        told = [
            (who, verb, source.choice(_FACTS[verb][1])) for who, verb in zip(people, source.choices([*_FACTS], k=4))
        ]
        sentences = [f"{who} {verb} {what}." for who, verb, what in told]
        asked = source.randrange(4)
        who, verb, what = told[asked]
        begin = sum(len(sentence) + 1 for sentence in sentences[:asked]) + len(f"{who} {verb} ")
        passage = Passage.of(" ".join(sentences))
        question = Passage.of(_FACTS[verb][0].format(who)).words
        yield Question(passage, question, passage.span(begin, begin + len(what)), (what,))
