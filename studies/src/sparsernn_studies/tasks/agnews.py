"""AG News (Zhang et al., NIPS 2015): is a piece of news about the world, sports, business or science and technology.

The files are not ours to hand on; they come from the data folder. As in Lobacheva et al. (arXiv 1911.05585) the last
5% of the training texts are kept to watch. Where only the test part lies in the folder, it can be split in itself.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..data import DataError, DataFile, read
from .labelled import Labelled, Parsed, labelled, words_of
from .sequences import shuffled

_ADDRESS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/{}.csv"
TRAIN = DataFile(
    "ag_news/train.csv",
    "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
    "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
    _ADDRESS.format("train"),
)
TEST = DataFile(
    "ag_news/test.csv.gz",
    "3c277beb6ce3dd635407635cb90a7c5ceaf87168fabb3be218e39aa2b097f706",
    "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
    _ADDRESS.format("test"),
)
CLASSES = ("world", "sports", "business", "science and technology")
VALID = 0.05
REPORTED = 0.25  # share of the test part that is reported on where it is split in itself


def load(
    folder: Path | None, words: int = 20_000, length: int = 100, most: int = 0, *, test_part_only: bool = False
) -> Labelled:
    """Titles and descriptions, with the `words` most frequent words of the training part, cut to their last `length`
    words.

    `test_part_only`: the 7,600 texts of the test part, split in themselves (three quarters to learn from); results on
    them can't be compared with published ones. `most`: only so many texts of each part, 0 for all. Raises DataError,
    which names the file, if one is missing or not the expected one.
    """
    test = shuffled(_parsed(read(TEST, folder), TEST.path))
    if test_part_only:
        cut = round(len(test) * (1 - REPORTED))
        train, test = test[:cut], test[cut:]
    else:
        train = shuffled(_parsed(read(TRAIN, folder), TRAIN.path))
    return labelled(train[: most or None], test[: most or None], words, length, VALID)


def _parsed(content: bytes, path: str) -> Parsed:
    found = []
    for number, fields in enumerate(csv.reader(io.StringIO(content.decode("utf-8"))), start=1):
        known = len(fields) == 3 and fields[0] in ("1", "2", "3", "4")
        if not known:
            raise DataError(f"{path}, entry {number} is no class from 1 to 4, title and description: {fields[:1]}.")
        found.append((words_of(f"{fields[1]} {fields[2]}"), int(fields[0]) - 1))
    return found
