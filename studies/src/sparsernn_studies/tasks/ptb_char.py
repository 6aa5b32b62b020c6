"""Penn Treebank, characters (Mikolov's preprocessing): the metric is bits per character.

The files are those of the word task; they are not ours to hand on and come from the data folder.
"""

from __future__ import annotations

from pathlib import Path

from ..data import read
from .ptb_word import FILES
from .text import Text, encode


def load(folder: Path | None, most: int = 0) -> Text:
    """Characters of the three files, each line ended by a newline: 5,017,482, 393,042 and 442,423 of them.

    `most`: only the first so many of the training part, 0 for all; of the others a tenth of that. Raises DataError,
    which names the file, if one is missing or not the expected one.
    """
    found = {}
    for part, file in FILES.items():
        lines = read(file, folder).decode("utf-8").splitlines()
        found[part] = "".join(f"{line.strip()}\n" for line in lines)
    symbols = tuple(sorted(set(found["train"])))
    few = {"train": most or None, "valid": most // 10 or None, "test": most // 10 or None}
    return Text(symbols, *(encode(found[part][: few[part]], symbols) for part in ("train", "valid", "test")))
