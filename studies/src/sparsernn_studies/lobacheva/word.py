"""Words of Penn Treebank: units, gates and weights of word LSTMs that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585): 256 LSTM units on one-hot words, 35 steps, batches of 32; and a net with an
embedding and two layers as in Zaremba et al. (arXiv 1409.2329, without dropout), in whose second layer the authors see
units with all gates beside ones with the output gate alone.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ..study import Judge
from ..tasks import ptb_word
from ..tasks.text import Text
from . import paper
from .claims import all_of
from .gates import COLUMNS, PERPLEXITY, Gates, labels_of
from .settings import PAPER, SMOKE, WordSettings
from .tasks import SymbolTask, Task


class Words(Gates):
    name = "lobacheva-word"
    summary = "Next words by LSTMs whose weights, gates and units Bayes and pruning take; one layer and two."
    title = "Words of Penn Treebank"
    scales: ClassVar = {
        "smoke": WordSettings(**SMOKE, hidden=8, batch=4, length=8, symbols=800, vocabulary=50, two_layers=6, lags=6),
        "cpu": WordSettings(
            rows=("bayes-wgn", "bayes-wn", "bayes-w", "prune-wgn"),
            hidden=128,
            batch=16,
            length=35,
            dense_epochs=4,
            learning_rate=1e-2,
            rounds=(1.0, 2.0),
            sparse_rate=4e-3,
            sigma_rates=(6.0, 4.0),
            mean_rates=(4.0, 3.0),
            symbols=300_000,
            vocabulary=1000,
            two_layers=100,
            two_layers_start=0.3,
            forget=1.0,
            lags=34,
        ),
        "paper": WordSettings(
            **PAPER,
            hidden=256,
            batch=32,
            length=35,
            dense_epochs=15,
            final_rate=1.0,
            rounds=(150.0,),
            two_layers=200,
            forget=1.0,
            lags=34,
        ),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "20 minutes, estimated", "paper": "days on a GPU, estimated"}
    columns = (*PERPLEXITY, *COLUMNS)
    labels = labels_of({"": "", "two-": "two layers: "})
    papers = paper.WORDS
    claims = all_of("lobacheva-word")
    judge = Judge("test_perplexity", more=False, rows="bayes-wgn")
    baselines = ("unigram", "bigram")

    @classmethod
    def nets(cls, settings: Any) -> tuple[str, ...]:
        return ("", "two-") if settings.two_layers else ("",)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        return {
            net: SymbolTask(self.run, self.text, words=True, two_layers=bool(net)) for net in self.nets(self.settings)
        }

    def text(self) -> Text:
        s: Any = self.settings
        text = ptb_word.by_frequency(ptb_word.load(self.run.data), s.symbols)
        return ptb_word.most_frequent(text, s.vocabulary) if 0 < s.vocabulary < len(text.symbols) else text
