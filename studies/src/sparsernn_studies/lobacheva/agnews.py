"""Topics of AG News: words, inputs, units, gates and weights of an LSTM that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585, table 1): 512 LSTM units, texts of at most 100 words, 5% of the training part
to watch. The scale cpu is for a data folder with the test part only, which it splits in itself: its figures can't be
compared with published ones.
"""

from __future__ import annotations

from ..recipe import Judge
from ..runs import Run
from ..tasks import agnews
from ..tasks.labelled import Labelled
from . import paper as paper
from .recipe import ACCURACY, gate_recipe
from .settings import PAPER_TEXTS, SMOKE_TEXTS, NewsSettings
from .tasks import TextTask


def _data(run: Run) -> Labelled:
    s: NewsSettings = run.settings
    return agnews.load(run.data, s.words, s.length, s.texts, test_part_only=s.test_part_only)


RECIPE = gate_recipe(
    "lobacheva-agnews",
    lambda run: {"": TextTask(run, _data, classes=len(agnews.CLASSES))},
    paper.AGNEWS,
    ACCURACY,
    Judge("test_accuracy", more=True, rows="bayes-wgn"),
    "AG News",
    summary="Topics of news by an LSTM of which Bayes leaves few words, units and gates.",
    scales={
        "smoke": NewsSettings(**SMOKE_TEXTS, test_part_only=True),
        "cpu": NewsSettings(
            words=6000,
            length=40,
            embedding=60,
            hidden=64,
            batch=64,
            dense_epochs=4,
            rounds=(4.0, 4.0, 8.0),
            sigma_rates=(10.0, 8.0, 8.0),
            mean_rates=(8.0, 8.0, 8.0),
            strengths=(5e-4, 5e-4, 5e-4),
            lags=38,
            test_part_only=True,
        ),
        "paper": NewsSettings(**PAPER_TEXTS, rounds=(150.0,), hidden=512, length=100),
    },
    minutes={"smoke": "seconds", "cpu": "10 minutes, estimated", "paper": "a day on a GPU, estimated"},
)
