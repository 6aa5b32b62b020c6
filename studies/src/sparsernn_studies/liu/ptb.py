"""Selfish sparse RNN training on Penn Treebank (Liu et al., arXiv 2101.09048), on Zaremba's LSTMs.

Rows, all trained for as many steps, with one schedule, dropout and decay: the dense net; a third of its recurrent
weights from the first step on, which move; as many, to which magnitude pruning comes in the course.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

from torch import nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.sparsifier import Sparsifier

from ..claims import Claim, Guard, Measured, beats, more, percent_more
from ..settings import Count, Is, Part, Some, settings
from ..study import Judge
from ..word_study import Net
from ..zaremba import ZarembaSettings, ZarembaStudy

ROWS = {
    row.name: row
    for row in (
        Net("dense", "dense", "dense"),
        Net("rewired", "sparse from the start, weights move (Selfish-RNN)", "rewired"),
        Net("gradual", "as sparse, pruned in the course", "gradual"),
        Net("bigram", "smoothed bigram, no net", "bigram"),
    )
}
Name = Annotated[str, Is(f"some of {', '.join(ROWS)}", ROWS.__contains__)]


@settings
class SelfishSettings(ZarembaSettings):
    """`left`: share of the recurrent weights that the sparse rows keep, published for a net of 67% sparsity; `moves`:
    how often weights move, published once in each of 100 epochs."""

    rows: Some[Name] = tuple(ROWS)
    left: Part = 0.33
    moves: Count = 100


def _alike(*rows: str) -> Guard:
    """A guard: these rows have the same dropout and decay."""

    def guard(found: Measured) -> str:
        used = {(found[row].get("keep"), found[row].get("weight_decay")) for row in rows}
        return "" if len(used) == 1 else f"dropout or decay of {' and '.join(rows)} differ"

    return guard


_BIGRAM = beats("test_perplexity", "dense", "bigram", "a smoothed bigram", more=False, by=0.1)


class Selfish(ZarembaStudy[SelfishSettings]):
    name = "liu-ptb"
    summary = "LSTMs on Penn Treebank that are sparse from the first step on, beside the dense net and gradual pruning."
    title = "Penn Treebank, {size} LSTM, a share {left} of the recurrent weights"
    scales: ClassVar = {
        "smoke": SelfishSettings(size="tiny", words=1500, moves=5, bench_rounds=1),
        "cpu": SelfishSettings(epochs=6, precision="auto"),  # the small net learns little more in the other seven
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "30 minutes a row on one core"}
    labels: ClassVar = {row.name: row.label for row in ROWS.values()}
    judge = Judge("valid_perplexity", more=False, rows="rewired")
    claims = (
        Claim(
            "Selfish-RNN: no more perplexity than the dense net, as many steps",
            "% more",
            percent_more("test_perplexity", "rewired", "dense"),
            at_most=0.0,
            guards=(_BIGRAM, _alike("dense", "rewired")),
        ),
        Claim(
            "Selfish-RNN: less perplexity than gradual pruning to as many weights, as many steps",
            "less perplexity",
            more("test_perplexity", "gradual", "rewired"),
            at_least=0.0,
            guards=(_BIGRAM, _alike("gradual", "rewired")),
        ),
    )

    @classmethod
    def rows_of(cls, settings: SelfishSettings) -> list[Net]:
        return [ROWS[name] for name in settings.rows]

    @property
    def shown(self) -> Net:
        return next((row for row in self.rows if row.kind == "rewired"), self.rows[0])

    def sparsifier(self, row: Net) -> Callable[..., Sparsifier] | None:
        """What makes `row` sparse in a training of so many steps."""
        s = self.settings

        def learner(model: nn.Module, steps: int) -> Sparsifier:
            often = max(1, steps // s.moves)
            if row.kind == "rewired":
                return Rewire(model, None, 1 - s.left, steps=steps, share=0.8, every=often)
            ramp = Gradual(end=max(2, round(0.6 * steps)), every=often)  # as sparse after six tenths of the steps
            return Prune(model, None, 1 - s.left, schedule=ramp)

        return None if row.kind == "dense" else learner
