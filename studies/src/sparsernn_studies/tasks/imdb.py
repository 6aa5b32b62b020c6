"""IMDb movie reviews (Maas et al., ACL 2011): is a review negative or positive, by the last words of it.

The files are not ours to hand on; they come from the data folder. The last 15% of the training reviews, in an order of
their own, are kept to watch, as in Lobacheva et al. (arXiv 1911.05585).
"""

from __future__ import annotations

import json
from pathlib import Path

from ..data import DataError, DataFile, read
from .labelled import Labelled, Parsed, labelled, words_of
from .sequences import shuffled

_ADDRESS = "https://ai.stanford.edu/~amaas/data/sentiment/ (as JSON lines: label, id, rating, text)"
FILES = {
    "train": DataFile(
        "imdb/train.jsonl.gz",
        "5ca71adaea2cb98801a218c859310ec684479162fcbd7af85866f2a36c3a1e87",
        "54463ab0f904faa6a17b2025bbe431d5580d931fb86747f9f062a35c39eb47d9",
        _ADDRESS,
    ),
    "test": DataFile(
        "imdb/test.jsonl.gz",
        "8e7f6851eb557f6a599319eb59e35b919a27e21350e3d3507a10eacdabaa3901",
        "546efb64a97a5aea4cd6c304f8622aebe5ee6f1e61cbba2fd4cea7c86f6af325",
        _ADDRESS,
    ),
}
VALID = 0.15


def load(folder: Path | None, words: int = 20_000, length: int = 200, most: int = 0) -> Labelled:
    """The reviews (class 1 is positive), with the `words` most frequent words of the training part, cut to their last
    `length` words.

    `most`: only so many reviews of each part, 0 for all. Raises DataError, which names the file, if one is missing or
    not the expected one.
    """
    parts = {name: _parsed(read(file, folder), file.path, most) for name, file in FILES.items()}
    return labelled(parts["train"], parts["test"], words, length, VALID)


def _parsed(content: bytes, path: str, most: int) -> Parsed:
    found = []
    for number, line in shuffled(list(enumerate(content.splitlines(), start=1)))[: most or None]:
        try:
            entry = json.loads(line)
            found.append((words_of(entry["text"]), int(entry["label"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number} is no review with text and label ({error}).") from None
    return found
