"""Part-of-speech tagging: CoNLL-2000 (WSJ sections 15-18 and 20), or the Penn Treebank sample; token accuracy.

The files are not ours to hand on; they come from the data folder. The tags of CoNLL-2000 are automatic (Brill), those
of the treebank sample were made by hand.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data import DataError, DataFile, read
from .evaluation import evaluating
from .sequences import epoch_of_one_length
from .text import wide

CorpusName = Literal["conll2000", "treebank"]
_ADDRESS = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/{}.zip"
_SHA256 = {
    "conll2000": "01e65164f268366e7caa0db92332a1955d081908c87016e2c7640c3c5279b7cd",
    "treebank": "9da92d76c3666cfb6cddeaed0f7e86b344cce0f0928a286d439e555f19c37399",
}
FILES = {name: DataFile(f"{name}/{name}.zip", sha, sha, _ADDRESS.format(name)) for name, sha in _SHA256.items()}
LARGEST = 64 << 20  # bytes that one member of a zip may unfold to
UNKNOWN, PADDING = "<unknown>", "<padding>"
IGNORED = -100  # tag number of padding, which torch's cross entropy leaves out
REPLACED = 0.5  # share of the words that occur once which training shows as unknown
VALID = 0.1  # share of the training sentences to watch
Sentence = tuple[tuple[str, str], ...]  # (word, tag)


@dataclass(frozen=True)
class Sentences:
    """Word and tag numbers of each sentence, int64 (length,)."""

    words: tuple[Tensor, ...]
    tags: tuple[Tensor, ...]

    @property
    def tokens(self) -> int:
        return sum(len(words) for words in self.words)


@dataclass(frozen=True)
class Corpus:
    """`words` by falling frequency in training, the unknown word among them by how often training shows it, the
    padding last; `counts` int64 (words,)."""

    words: tuple[str, ...]
    counts: Tensor
    tags: tuple[str, ...]
    train: Sentences
    valid: Sentences
    test: Sentences

    @cached_property
    def unknown(self) -> int:
        return self.words.index(UNKNOWN)

    @property
    def padding(self) -> int:
        return len(self.words) - 1


def load(folder: Path | None, name: CorpusName = "conll2000", most: int | None = None) -> Corpus:
    """The corpus: 90% of its training sentences to train on, every tenth to watch, its own test part to report on.

    Of the treebank sample every sixth sentence is the test. `most`: only so many training sentences. Raises DataError,
    which names the file, if it is missing or not the expected one.
    """
    file = FILES[name]
    content = read(file, folder)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if name == "conll2000":
            parts = [list(columns(_member(archive, f"conll2000/{part}.txt"))) for part in ("train", "test")]
        else:
            trees = [n for n in sorted(archive.namelist()) if re.fullmatch(r"treebank/combined/wsj_\d+\.mrg", n)]
            found = [sentence for n in trees for sentence in leaves(_member(archive, n))]
            parts = [[s for n, s in enumerate(found) if (n % 6 == 5) is test] for test in (False, True)]
    return corpus(parts[0][:most], parts[1])


def _member(archive: zipfile.ZipFile, name: str) -> str:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise DataError(f"{archive.filename or 'The archive'} lacks {name}: fetch it again.") from None
    if info.file_size > LARGEST:
        raise DataError(f"{name} unfolds to {info.file_size} bytes, more than {LARGEST}; it was not read.")
    return archive.read(info).decode("utf-8")


def columns(text: str) -> Iterator[Sentence]:
    """Sentences of a text with one "word tag chunk" a line and an empty line after each sentence."""
    for block in text.split("\n\n"):
        lines = [line.split() for line in block.splitlines() if line.strip()]
        if lines:
            yield tuple((line[0], line[1]) for line in lines)


def leaves(text: str) -> Iterator[Sentence]:
    """Sentences of bracketed trees: "(TAG word)" leaves, without traces (tag -NONE-)."""
    depth, begin = 0, 0
    for place, letter in ((m.start(), m.group()) for m in re.finditer(r"[()]", text)):
        if letter == "(":
            begin = place if depth == 0 else begin
            depth += 1
            continue
        depth -= 1
        if depth == 0:
            found = re.findall(r"\(([^\s()]+) ([^\s()]+)\)", text[begin : place + 1])
            sentence = tuple((word, tag) for tag, word in found if tag != "-NONE-")
            if sentence:
                yield sentence


def corpus(train: Sequence[Sentence], test: Sequence[Sentence]) -> Corpus:
    """Vocabulary and numbers from sentences; every tenth training sentence is kept for validation."""
    every = round(1 / VALID)
    parts = [
        [s for n, s in enumerate(train) if n % every != every - 1],
        [s for n, s in enumerate(train) if n % every == every - 1],
        list(test),
    ]
    seen = Counter(word for sentence in parts[0] for word, _ in sentence)
    seen[UNKNOWN] = round(REPLACED * sum(count == 1 for count in seen.values()))
    words = (*sorted(seen, key=lambda word: (-seen[word], word)), PADDING)
    tags = tuple(sorted({tag for sentence in train for _, tag in sentence}))
    number, kind = {word: n for n, word in enumerate(words)}, {tag: n for n, tag in enumerate(tags)}
    unknown = number[UNKNOWN]

    def numbered(sentences: Sequence[Sentence]) -> Sentences:
        return Sentences(
            tuple(torch.tensor([number.get(word, unknown) for word, _ in s]) for s in sentences),
            # A tag that training never saw can only be wrong.
            tuple(torch.tensor([kind.get(tag, len(tags)) for _, tag in s]) for s in sentences),
        )

    counts = torch.tensor([seen.get(word, 0) for word in words])
    return Corpus(words, counts, tags, *(numbered(part) for part in parts))


@dataclass(frozen=True)
class Tagging:
    """The training objective: mean cross entropy (nats) of the tags.

    Each epoch goes through the sentences in batches of one length, so that nothing is padding, in an order that
    depends on `seed` and the epoch alone; words that occur once are shown as unknown half of the time. The model maps
    (x_TB, lengths_B) to logits_TBC.
    """

    corpus: Corpus
    batch_size: int
    seed: int = 0
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def steps_an_epoch(self) -> int:
        lengths = Counter(len(words) for words in self.corpus.train.words)
        return sum(-(-count // self.batch_size) for count in lengths.values())

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of `step`: x_TB, lengths_B, tags_TB (IGNORED behind the end of a sentence)."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch not in self._epochs:
            self._epochs.clear()
            lengths = [len(words) for words in self.corpus.train.words]
            self._epochs[epoch] = epoch_of_one_length(lengths, self.batch_size, self.seed, epoch)
        chosen = self._epochs[epoch][within][rank::world]
        x_TB, lengths_B, tags_TB = padded(self.corpus.train, chosen, self.corpus.padding)
        source = torch.Generator().manual_seed(self.seed * 7919 + 1_000_003 * (step + 1))
        rare = (self.corpus.counts[x_TB] == 1) & (torch.rand(x_TB.shape, generator=source) < REPLACED)
        return torch.where(rare, self.corpus.unknown, x_TB), lengths_B, tags_TB

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TB, lengths_B, tags_TB = batch
        logits_TBC = wide(model(x_TB, lengths_B))
        return nn.functional.cross_entropy(logits_TBC.flatten(0, 1), tags_TB.flatten(), ignore_index=IGNORED), None


def padded(sentences: Sentences, chosen: Sequence[int], padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_TB, lengths_B and tags_TB of the sentences with these numbers."""
    words, tags = [sentences.words[n] for n in chosen], [sentences.tags[n] for n in chosen]
    x_TB = nn.utils.rnn.pad_sequence(words, padding_value=padding)
    return x_TB, torch.tensor([len(w) for w in words]), nn.utils.rnn.pad_sequence(tags, padding_value=IGNORED)


def accuracy(model: nn.Module, corpus: Corpus, sentences: Sentences, *, batch: int = 256) -> dict[str, float]:
    """Share of tokens whose tag is right: of all ("all"), and of the words that training never saw ("unknown").

    The model's training mode is left as it was.
    """
    right = {"all": 0, "unknown": 0}
    total = {"all": 0, "unknown": 0}
    order = sorted(range(len(sentences.words)), key=lambda n: len(sentences.words[n]))
    with evaluating(model):
        for begin in range(0, len(order), batch):
            x_TB, lengths_B, tags_TB = padded(sentences, order[begin : begin + batch], corpus.padding)
            hits = model(x_TB, lengths_B).argmax(-1) == tags_TB
            for kind, counted in (("all", tags_TB != IGNORED), ("unknown", x_TB == corpus.unknown)):
                right[kind] += int((hits & counted).sum())
                total[kind] += int(counted.sum())
    return {kind: right[kind] / max(1, total[kind]) for kind in right}
