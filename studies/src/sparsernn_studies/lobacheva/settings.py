"""What can be set in the recipes after Lobacheva et al. (arXiv 1911.05585): courses, rates and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sparsernn.learn.bayes import BayesLevel

from ..settings import Count, NotNegative, Positive, Some, Whole, settings
from ..train import Training

# Row -> what is learnt to go. The paper's W, W+N and W+G+N, by Bayes and by group lasso ("prune").
Kind = Literal["bayes-wgn", "bayes-wn", "bayes-w", "prune-wgn", "prune-wn", "prune-w"]
LEVELS: dict[str, tuple[BayesLevel, ...]] = {
    "bayes-wgn": ("weight", "gate", "unit"),
    "bayes-wn": ("weight", "unit"),
    "bayes-w": ("weight",),
    "prune-wgn": ("weight", "gate", "unit"),
    "prune-wn": ("weight", "unit"),
    "prune-w": ("weight",),
}
BASELINES = {
    "majority": "most frequent class",
    "linear": "linear, bag of words",
    "unigram": "unigram",
    "bigram": "smoothed bigram",
}
LABELS = {
    "dense": "dense, early stopping",
    "dense-longer": "dense, trained on",
    "bayes-w": "W, Bayes",
    "bayes-wn": "W+N, Bayes",
    "bayes-wgn": "W+G+N, Bayes",
    "prune-w": "W, pruned",
    "prune-wn": "W+N, pruned",
    "prune-wgn": "W+G+N, pruned",
}


@settings
class Settings:
    """`rows`: those that are made, after the dense net from which all begin. `rounds`: epochs of each round of learning
    what goes; after each, what went is taken out and the next one is cheaper.

    `sigma_rates`, `mean_rates`: learning rates of the posterior as factors in each round, see `Bayes`. `strengths` of
    the penalties of pruning, of weights, gates and units. `lags`: time steps over which the gradient is followed.
    """

    rows: Some[Kind] = ("bayes-wgn", "bayes-wn", "bayes-w", "prune-wgn", "prune-wn", "prune-w")
    hidden: Count = 128
    batch: Count = 128
    length: Count = 200
    dense_epochs: Count = 4
    learning_rate: Positive = 2e-3
    final_rate: NotNegative = 0.1
    warm_up: Whole = 20
    rounds: Some[Positive] = (0.5, 0.8, 5.0)
    sparse_rate: Positive = 2e-3
    sigma_rates: tuple[Positive, ...] = (40.0, 12.0, 12.0)
    mean_rates: tuple[Positive, ...] = (20.0, 12.0, 12.0)
    strengths: tuple[float, float, float] = (3e-5, 1e-4, 1e-4)
    lags: Count = 50
    bench_rounds: Count = 15
    checkpoint_every: Count = 50
    device: Literal["cpu", "any"] = "cpu"

    def check(self) -> None:
        if not len(self.rounds) == len(self.sigma_rates) == len(self.mean_rates):
            raise ValueError(
                f"rounds, sigma_rates and mean_rates have {len(self.rounds)}, {len(self.sigma_rates)} and "
                f"{len(self.mean_rates)} entries, expected one a round in each."
            )

    def training(self, steps: int, rate: float) -> Training:
        return Training(
            steps, rate, self.warm_up, self.final_rate, checkpoint_every=self.checkpoint_every, device=self.device
        )

    def strength(self, row: str) -> dict[str, float]:
        """The strength of the penalty on each level of `row`."""
        every = dict(zip(LEVELS["prune-wgn"], self.strengths))
        return {level: every[level] for level in LEVELS[row]}


@settings
class TextSettings(Settings):
    """Classes of texts. `words`: size of the vocabulary. `score_epochs`: epochs of a bag of words whose scores begin in
    the first columns of the embedding. `texts`: only so many of each part, 0 for all."""

    words: Count = 20_000
    embedding: Count = 300
    score_epochs: Whole = 3
    score_rate: Positive = 2e-2
    texts: Whole = 0


@settings
class NewsSettings(TextSettings):
    """`test_part_only`: the test part split in itself, for a data folder without the training part."""

    test_part_only: bool = False


# Of all recipes, and of both sets of texts.
SMOKE: Mapping[str, Any] = {
    "dense_epochs": 1,
    "rounds": (1.0, 1.0),
    "sigma_rates": (50.0, 50.0),
    "mean_rates": (50.0, 50.0),
    "warm_up": 2,
    "bench_rounds": 1,
}
PAPER: Mapping[str, Any] = {"sigma_rates": (1.0,), "mean_rates": (1.0,), "checkpoint_every": 1000, "device": "any"}
SMOKE_TEXTS: Mapping[str, Any] = {
    **SMOKE,
    "words": 300,
    "length": 20,
    "embedding": 8,
    "hidden": 6,
    "batch": 16,
    "score_epochs": 1,
    "texts": 120,
}
PAPER_TEXTS: Mapping[str, Any] = {
    **PAPER,
    "score_epochs": 0,
    "dense_epochs": 20,
    "learning_rate": 5e-4,
    "sparse_rate": 5e-4,
}


@settings
class SymbolSettings(Settings):
    """Texts of symbols, the next of which is guessed; `symbols`: only so many of the training text, 0 for all.

    `vocabulary`: so many of the most frequent words, others are unknown; 0 for all. `two_layers`: width of the
    embedding and of both layers of the second net, 0 for none. `forget`: where the first net's forget gates' bias
    begins.
    """

    symbols: Whole = 0
    vocabulary: Whole = 0
    two_layers: Whole = 0
    forget: float = 0.0


@settings
class WordSettings(SymbolSettings):
    """`two_layers_start`: the second net's numbers begin uniform within so much of zero."""

    two_layers_start: Positive = 0.1
