"""Word vectors from a text file, a word and its numbers in each line, as those of GloVe are published."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from ..data import DataError

_ADDRESS = "https://nlp.stanford.edu/projects/glove/"


def read_vectors(path: Path, wanted: Collection[str]) -> dict[str, Tensor]:
    """The vectors, float32 (width,), of those `wanted` words that the file has.

    Raises DataError, which names file and line, if there is no such file, it has none of the words, or a line is not
    a word with as many numbers as the first line has.
    """
    if not path.is_file():
        raise DataError(f"There are no word vectors in {path}.\nGet a text file of GloVe from {_ADDRESS}, or set none.")
    found: dict[str, Tensor] = {}
    width = 0
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                # From the right, since a few words of the published files have spaces in them.
                width = width or line.rstrip().count(" ")
                word, *numbers = line.rstrip().rsplit(" ", width)
                if word in wanted and word not in found:
                    found[word] = _vector(numbers, width, f"{path}, line {number}")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None
    if not found:
        raise DataError(f"{path} has none of the {len(wanted)} words of the corpus; expected GloVe's format.")
    return found


def _vector(numbers: list[str], width: int, where: str) -> Tensor:
    try:
        vector = torch.tensor([float(each) for each in numbers])
    except ValueError:
        vector = torch.empty(0)
    if not width or len(vector) != width or not bool(vector.isfinite().all()):
        raise DataError(f"{where}: expected a word with {width or 'some'} finite numbers, as in the first line.")
    return vector
