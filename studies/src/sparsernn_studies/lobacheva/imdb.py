"""Sentiment of IMDb reviews: words, inputs, units, gates and weights of an LSTM that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585, table 1): vectors of 300 columns for 20,003 words, 128 LSTM units, reviews of
at most 200 words. W learns which weights go, W+N units, inputs and words as well, W+G+N gates besides.
"""

from __future__ import annotations

from ..recipe import Judge
from ..runs import Run
from ..tasks import imdb
from ..tasks.labelled import Labelled
from . import paper as paper
from .recipe import ACCURACY, gate_recipe
from .settings import PAPER_TEXTS, SMOKE_TEXTS, TextSettings
from .tasks import TextTask


def _data(run: Run) -> Labelled:
    s = run.settings
    return imdb.load(run.data, s.words, s.length, s.texts)


RECIPE = gate_recipe(
    "lobacheva-imdb",
    lambda run: {"": TextTask(run, _data, classes=2)},
    paper.IMDB,
    ACCURACY,
    Judge("test_accuracy", more=True, rows="bayes-wgn"),
    "IMDb reviews",
    summary="Sentiment of reviews by an LSTM of which Bayes leaves few words, units and gates.",
    scales={
        "smoke": TextSettings(**SMOKE_TEXTS),
        "cpu": TextSettings(
            rows=("bayes-wgn", "bayes-wn", "prune-wgn", "bayes-w"), dense_epochs=2, strengths=(5e-5, 5e-4, 5e-4)
        ),
        "paper": TextSettings(**PAPER_TEXTS, rounds=(1000.0,)),
    },
    minutes={"smoke": "seconds", "cpu": "40 minutes, estimated", "paper": "days on a GPU, estimated"},
)
