"""Sentiment of IMDb reviews: words, inputs, units, gates and weights of an LSTM that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585, table 1): vectors of 300 columns for 20,003 words, 128 LSTM units, reviews of
at most 200 words. W learns which weights go, W+N units, inputs and words as well, W+G+N gates besides.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ..study import Judge
from ..tasks import imdb
from . import paper
from .claims import all_of
from .gates import ACCURACY, COLUMNS, Gates
from .settings import PAPER_TEXTS, SMOKE_TEXTS, TextSettings
from .tasks import Task, TextTask


class Imdb(Gates):
    name = "lobacheva-imdb"
    summary = "Sentiment of reviews by an LSTM of which Bayes leaves few words, units and gates."
    title = "IMDb reviews"
    scales: ClassVar = {
        "smoke": TextSettings(**SMOKE_TEXTS),
        "cpu": TextSettings(
            rows=("bayes-wgn", "bayes-wn", "prune-wgn", "bayes-w"), dense_epochs=2, strengths=(5e-5, 5e-4, 5e-4)
        ),
        "paper": TextSettings(**PAPER_TEXTS, rounds=(1000.0,)),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "40 minutes, estimated", "paper": "days on a GPU, estimated"}
    columns = (*ACCURACY, *COLUMNS)
    papers = paper.IMDB
    claims = all_of("lobacheva-imdb")
    judge = Judge("test_accuracy", more=True, rows="bayes-wgn")
    baselines = ("majority", "linear")

    @cached_property
    def tasks(self) -> dict[str, Task]:
        s: Any = self.settings
        return {"": TextTask(self.run, lambda: imdb.load(self.run.data, s.words, s.length, s.texts), classes=2)}
