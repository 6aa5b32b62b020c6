"""Language modelling on Penn Treebank: AWD-LSTM beside one with hidden layers 1.5 times as wide, equally large.

After Demeester et al. (arXiv 1808.08720, section 4.1): the sparse net is better after the first run, and over-fits in
the fine-tuning.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from ..study import Judge
from ..tables import figure
from ..word_model import Drop
from ..word_training import WordTraining
from .claims import OF_LANGUAGE
from .words import Settings, Words

ROWS = ("dense", "sparse-hidden")


_training = partial(WordTraining, learning_rate=30.0, vary=True, weight_decay=1.2e-6, alpha=2.0, beta=1.0, patience=5)
DROP = Drop(words=0.1, input=0.4, hidden=0.25, output=0.4, weights=0.5)


class LanguageModel(Words):
    name = "demeester-lm"
    summary = "AWD-LSTM on Penn Treebank, dense beside sparse from the start, first run and fine-tuning."
    title = "Penn Treebank, words: AWD-LSTM, dense and sparse from the start"
    scales: ClassVar = {
        "smoke": Settings(ROWS, 8, 12, 0.66666, _training(1, bptt=10), DROP, words=1200, fine_tuning=True),
        "cpu": Settings(ROWS, 100, 200, 0.66666, _training(1, bptt=70, steps=200), DROP),
        "paper": Settings(ROWS, 400, 1150, 0.66666, _training(500, bptt=70, device="any"), DROP, fine_tuning=True),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 10 minutes for 200 steps", "paper": "days on a GPU"}
    columns = (
        figure("valid perplexity", "valid_perplexity", "{:.2f}"),
        figure("test perplexity", "test_perplexity", "{:.2f}"),
        figure("parameters", "parameters", "{:,}"),
        figure("steps", "steps", "{:,}"),
    )
    labels: ClassVar = {
        **{row + end: row + end for end in ("", "-finetuned") for row in ROWS},
        "bigram": "smoothed bigram",
    }
    # The means that the paper prints, for its own runs.
    papers: ClassVar = {
        "dense": {"test_perplexity": 58.8},
        "sparse-hidden": {"test_perplexity": 57.9},
        "dense-finetuned": {"test_perplexity": 56.6},
        "sparse-hidden-finetuned": {"test_perplexity": 57.0},
    }
    judge = Judge("valid_perplexity", more=False, rows="sparse-*")
    claims = OF_LANGUAGE
    watched = True
