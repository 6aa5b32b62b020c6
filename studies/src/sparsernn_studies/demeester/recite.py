"""Learning a text by heart: a dense word model beside wider sparse ones with as many parameters.

After Demeester et al. (arXiv 1808.08720, section 4.3): no regularisation, and what counts is the perplexity on the
training text itself.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from ..study import Judge
from ..tables import figure
from ..word_training import WordTraining
from .claims import OF_RECITING
from .words import Settings, Words

ROWS = ("dense", "sparse-hidden", "sparse-all")
_training = partial(WordTraining, learning_rate=5.0, momentum=0.9, decay=0.97)


class Recite(Words):
    name = "demeester-recite"
    summary = "Learning a text by heart: a dense word model beside wider sparse ones of equal size."
    title = "Reciting Penn Treebank: perplexity on the training text"
    scales: ClassVar = {
        "smoke": Settings(ROWS, 8, 12, 0.5, _training(1, batch=4, bptt=10), blocks=4, words=400),
        "cpu": Settings(ROWS, 40, 115, 0.5, _training(40, batch=20, bptt=35), words=10_000),
        "paper": Settings(ROWS, 200, 575, 0.5, _training(150, batch=20, bptt=70)),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 3 minutes", "paper": "about a day on a GPU"}
    columns = (
        figure("train perplexity", "train_perplexity", "{:.2f}"),
        figure("± (seeds)", "train_perplexity_deviation", "{:.2f}"),
        figure("weights", "weights", "{:,}"),
        figure("parameters", "parameters", "{:,}"),
        figure("steps", "steps", "{:,}"),
    )
    labels: ClassVar = {row: row for row in ROWS}
    judge = Judge("train_perplexity", more=False, rows="sparse-*")
    claims = OF_RECITING
    watched = False
