"""Reading comprehension: words and letters as numbers, batches of passages and questions, the loss, answers, scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from sparsernn.files import write_atomically

from ..runs import RunError
from .evaluation import evaluating
from .passages import exact_match, f1
from .sequences import epoch_of_one_length
from .squad import Question

SPELLING = 16  # letters of a word that are looked at
LONGEST = 30  # words of an answer at most
PADDING, UNKNOWN = 0, 1  # numbers that are no word and no letter
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def occurring(questions: Iterable[Question]) -> Counter[str]:
    """How often each word stands in the questions and in their passages, of which each counts once."""
    seen: Counter[str] = Counter()
    passages: set[str] = set()
    for question in questions:
        seen.update(question.words)
        if question.passage.text not in passages:
            passages.add(question.passage.text)
            seen.update(question.passage.words)
    return seen


@dataclass(frozen=True)
class Vocabulary:
    """Word n (in lower case) has the number n + 2, letter n likewise."""

    words: tuple[str, ...]
    letters: tuple[str, ...]

    @classmethod
    def of(cls, questions: Iterable[Question], known: Collection[str] | None = None, least: int = 2) -> Vocabulary:
        """Words and letters that occur at least `least` times in these questions and their passages, the most frequent
        first; where words are `known` (those that have vectors), just those that occur at all."""
        seen = occurring(questions)
        words: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        for word, count in seen.items():
            words[word.lower()] += count
            for letter in word:
                letters[letter] += count
        kept = (word for word, count in words.items() if (count >= least if known is None else word in known))
        return cls(
            tuple(sorted(kept, key=lambda word: (-words[word], word))),
            tuple(sorted((c for c, n in letters.items() if n >= least), key=lambda c: (-letters[c], c))),
        )

    @cached_property
    def _word(self) -> dict[str, int]:
        return {word: n + 2 for n, word in enumerate(self.words)}

    @cached_property
    def _letter(self) -> dict[str, int]:
        return {letter: n + 2 for n, letter in enumerate(self.letters)}

    def inputs(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Inputs:
        """(words of the passage, words of the question) of each text as what the model takes.

        words_U and letters_UC: the distinct words of the batch, spelled with SPELLING letters, the first one padding;
        passage_BT, passage_lengths_B, question_BJ, question_lengths_B: the texts as places among them.
        """
        place: dict[str, int] = {}
        sides = [
            [torch.tensor([place.setdefault(word, len(place) + 1) for word in text]) for text in side]
            for side in zip(*pairs)
        ]
        words_U = torch.tensor([PADDING, *(self._word.get(word.lower(), UNKNOWN) for word in place)])
        spelled = [[self._letter.get(letter, UNKNOWN) for letter in word[:SPELLING]] for word in place]
        letters_UC = torch.tensor(
            [[PADDING] * SPELLING, *(letters + [PADDING] * (SPELLING - len(letters)) for letters in spelled)]
        )
        padded = [pad_sequence(side, batch_first=True, padding_value=PADDING) for side in sides]
        lengths = [torch.tensor([len(text) for text in side]) for side in sides]
        return words_U, letters_UC, padded[0], lengths[0], padded[1], lengths[1]

    def save(self, path: Path) -> None:
        content = {"words": self.words, "letters": self.letters}
        write_atomically(path, json.dumps(content, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """What `save` wrote. Raises RunError, which names the file, if it is missing or something else."""
        if not path.is_file():
            raise RunError(f"{path} is missing, so nothing can be read: run the recipe again.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = [content["words"], content["letters"]]
            if not all(isinstance(part, list) and all(isinstance(each, str) for each in part) for part in parts):
                raise ValueError("words and letters are no lists of text")
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} cannot be read ({error}); delete it and run the recipe again.") from None
        return cls(tuple(parts[0]), tuple(parts[1]))


@dataclass(frozen=True)
class Answering:
    """The training objective: cross entropy (nats) of the answer's first word plus that of its last, mean of the batch.

    A batch has passages of one length, so that no step of them is padding; each epoch goes through all questions in an
    order of its own, which depends on `seed` and the epoch alone. The model maps what `Vocabulary.inputs` gives to
    start_BT and end_BT, logits of each word.
    """

    questions: Sequence[Question]
    vocabulary: Vocabulary
    batch_size: int
    seed: int = 0
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def steps_an_epoch(self) -> int:
        lengths = Counter(len(question.passage) for question in self.questions)
        return sum(-(-count // self.batch_size) for count in lengths.values())

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, ...]:
        """The batch of `step`: the model's inputs, first_B and last_B."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            lengths = [len(question.passage) for question in self.questions]
            self._epochs[epoch] = epoch_of_one_length(lengths, self.batch_size, self.seed, epoch)
        whole = self._epochs[epoch][within]
        chosen = [self.questions[n] for n in whole[rank::world] or whole]
        spans_B2 = torch.tensor([question.span for question in chosen])
        return (*self.vocabulary.inputs([(q.passage.words, q.words) for q in chosen]), *spans_B2.unbind(1))

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        *inputs, first_B, last_B = batch
        start_BT, end_BT = model(*inputs)
        return F.cross_entropy(start_BT, first_B) + F.cross_entropy(end_BT, last_B), None


def best_spans(start_BT: Tensor, end_BT: Tensor, longest: int = LONGEST) -> tuple[Tensor, Tensor, Tensor]:
    """first_B, last_B and probability_B of the likeliest span of at most `longest` words, from the logits."""
    start_BT, end_BT = start_BT.log_softmax(1), end_BT.log_softmax(1)
    longest = min(longest, start_BT.shape[1])
    ends_BTL = F.pad(end_BT, (0, longest - 1), value=-torch.inf).unfold(1, longest, 1)
    score_B, place_B = (start_BT[:, :, None] + ends_BTL).flatten(1).max(1)
    first_B = place_B.div(longest, rounding_mode="floor")
    return first_B, first_B + place_B % longest, score_B.exp()


def answers(
    model: nn.Module, vocabulary: Vocabulary, questions: Sequence[Question], *, batch: int = 64
) -> list[tuple[int, int, float]]:
    """First word, last word and probability of the answer to each question. The training mode is left as it was."""
    device = next(iter(model.parameters())).device
    found: list[tuple[int, int, float]] = [(0, 0, 0.0)] * len(questions)
    order = sorted(range(len(questions)), key=lambda n: len(questions[n].passage))
    with evaluating(model):
        for begin in range(0, len(order), batch):
            chosen = order[begin : begin + batch]
            inputs = vocabulary.inputs([(questions[n].passage.words, questions[n].words) for n in chosen])
            first_B, last_B, share_B = best_spans(*model(*(each.to(device) for each in inputs)))
            for n, first, last, share in zip(chosen, first_B.tolist(), last_B.tolist(), share_B.tolist()):
                found[n] = (first, last, share)
    return found


def scores(questions: Sequence[Question], spans: Sequence[tuple[int, int, float]]) -> dict[str, float]:
    """`em` and `f1` in percent, by the rules of SQuAD 1.1."""
    texts = [question.passage.between(first, last) for question, (first, last, _) in zip(questions, spans)]
    return {
        "em": 100 * fmean(exact_match(text, question.answers) for text, question in zip(texts, questions)),
        "f1": 100 * fmean(f1(text, question.answers) for text, question in zip(texts, questions)),
    }
