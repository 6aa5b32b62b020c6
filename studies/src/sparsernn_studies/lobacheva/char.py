"""Characters of Penn Treebank: units, gates and weights of an LSTM on one-hot characters that Bayes and pruning leave.

After Lobacheva et al. (arXiv 1911.05585): 1000 units, 100 steps, batches of 64. Streams are read with the state carried
on, where the paper begins each window with zeros.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ..study import Judge
from ..tasks import ptb_char
from . import paper
from .claims import all_of
from .gates import BITS, COLUMNS, Gates
from .settings import PAPER, SMOKE, SymbolSettings
from .tasks import SymbolTask, Task


class Characters(Gates):
    name = "lobacheva-char"
    summary = "Next characters by an LSTM whose weights, gates and units Bayes and pruning take."
    title = "Characters of Penn Treebank"
    scales: ClassVar = {
        "smoke": SymbolSettings(**SMOKE, hidden=8, batch=4, length=12, symbols=2000, lags=8),
        "cpu": SymbolSettings(
            rows=("bayes-wgn", "bayes-wn", "bayes-w", "prune-wgn"),
            hidden=200,
            batch=32,
            length=64,
            dense_epochs=4,
            learning_rate=5e-3,
            rounds=(1.0, 3.0),
            sparse_rate=4e-3,
            sigma_rates=(6.0, 6.0),
            mean_rates=(4.0, 4.0),
            strengths=(5e-5, 3e-4, 3e-4),
            symbols=300_000,
        ),
        "paper": SymbolSettings(
            **PAPER, hidden=1000, batch=64, length=100, dense_epochs=15, final_rate=1.0, rounds=(250.0,)
        ),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "15 minutes, estimated", "paper": "days on a GPU, estimated"}
    columns = (*BITS, *COLUMNS)
    papers = paper.CHARACTERS
    claims = all_of("lobacheva-char")
    judge = Judge("test_bpc", more=False, rows="bayes-wgn")
    baselines = ("unigram", "bigram")

    @cached_property
    def tasks(self) -> dict[str, Task]:
        s: Any = self.settings
        return {"": SymbolTask(self.run, lambda: ptb_char.load(self.run.data, s.symbols), words=False)}
