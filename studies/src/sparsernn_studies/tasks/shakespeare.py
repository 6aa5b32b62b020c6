"""Tiny Shakespeare: 1,115,394 characters, 65 distinct, in the package; the metric is bits per character."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..data import checked, unpack
from .text import Text, encode

SHA256 = "bed00f18e91cda6838950656f0a95e07e0f4dbe8649a4b959f7602a7e53fbc6e"
VALID, TRAIN = 0.02, 0.90  # shares of the text where validation and training end; the last tenth is the test


def load() -> Text:
    """The text: the first 2% to watch, then 88% to train on, the last tenth to report on.

    The plays follow each other, so the last tenth is mostly from plays that training has not seen.
    Raises DataError if the file in the package is damaged.
    """
    path = Path(str(files("sparsernn_studies.tasks") / "data" / "tinyshakespeare.txt.gz"))
    text = unpack(checked(path.read_bytes(), SHA256, path), path).decode("ascii")
    symbols = tuple(sorted(set(text)))
    numbers = encode(text, symbols)
    valid, train = int(VALID * len(numbers)), int(TRAIN * len(numbers))
    return Text(symbols, numbers[valid:train], numbers[:valid], numbers[train:])
