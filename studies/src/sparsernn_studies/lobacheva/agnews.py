"""Topics of AG News: words, inputs, units, gates and weights of an LSTM that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585, table 1): 512 LSTM units, texts of at most 100 words, 5% of the training part
to watch. The scale cpu is for a data folder with the test part only, which it splits in itself: its figures can't be
compared with published ones.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ..study import Judge
from ..tasks import agnews
from ..tasks.labelled import Labelled
from . import paper
from .claims import all_of
from .gates import ACCURACY, COLUMNS, Gates
from .settings import PAPER_TEXTS, SMOKE_TEXTS, NewsSettings
from .tasks import Task, TextTask


class AgNews(Gates):
    name = "lobacheva-agnews"
    summary = "Topics of news by an LSTM of which Bayes leaves few words, units and gates."
    title = "AG News"
    scales: ClassVar = {
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
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "10 minutes, estimated", "paper": "a day on a GPU, estimated"}
    columns = (*ACCURACY, *COLUMNS)
    papers = paper.AGNEWS
    claims = all_of("lobacheva-agnews")
    judge = Judge("test_accuracy", more=True, rows="bayes-wgn")
    baselines = ("majority", "linear")

    @cached_property
    def tasks(self) -> dict[str, Task]:
        s: Any = self.settings

        def load() -> Labelled:
            return agnews.load(self.run.data, s.words, s.length, s.texts, test_part_only=s.test_part_only)

        return {"": TextTask(self.run, load, classes=len(agnews.CLASSES))}
