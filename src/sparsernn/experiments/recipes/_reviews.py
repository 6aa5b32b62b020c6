"""The rows of the IMDb table: a dense net, and the nets that Bayes and pruning make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...learn.bayes import Bayes, BayesLevel
from ...learn.lasso import GroupLasso
from ...learn.sparsifier import Sparsifier
from ...structure.trace import trace
from ...surgery.checkpoint import load, save
from ...surgery.compact import compact
from .. import checkpoint
from ..models import ReviewClassifier, WordScores
from ..results import Result, sizes
from ..runs import Run
from ..tasks import imdb
from ..train import Training, train

LEVELS: dict[str, tuple[BayesLevel, ...]] = {
    "bayes-wgn": ("weight", "gate", "unit"),
    "bayes-wn": ("weight", "unit"),
    "bayes-w": ("weight",),
    "prune-wgn": ("weight", "gate", "unit"),
}
# Lobacheva et al. after 1000 epochs, from the logs of the authors' code; accuracies are of the test part.
PAPER: dict[str, dict[str, Any]] = {
    "bayes-w": {"test_accuracy": 0.841, "compression": 1209, "words": 5054, "units": 9, "gates": 20},
    "bayes-wn": {"test_accuracy": 0.8401, "compression": 16676, "words": 316, "units": 7, "gates": 19},
    "bayes-wgn": {"test_accuracy": 0.8387, "compression": 18457, "words": 307, "units": 7, "gates": 8},
}


@dataclass(frozen=True)
class Settings:
    """`rounds`: epochs of each round of learning what goes; after each, what went is taken out and the next one is
    cheaper. `score_epochs`: epochs of a bag of words whose scores begin in the first column of the embedding.

    `sigma_rates`, `mean_rates`: learning rates of the posterior as factors in each round, see `Bayes`. `strengths` of
    the penalties of pruning, of weights, gates and units. `reviews` 0: all of them.
    """

    words: int = 20_000
    length: int = 200
    embedding: int = 300
    hidden: int = 128
    batch: int = 128
    score_epochs: int = 3
    score_rate: float = 2e-2
    dense_epochs: int = 4
    learning_rate: float = 2e-3
    rounds: tuple[float, ...] = (0.5, 0.8)
    sparse_rate: float = 2e-3
    sigma_rates: tuple[float, ...] = (40.0, 12.0)
    mean_rates: tuple[float, ...] = (20.0, 12.0)
    strengths: tuple[float, float, float] = (3e-5, 1e-4, 1e-4)
    warm_up: int = 20
    reviews: int = 0

    def __post_init__(self) -> None:
        for name in ("words", "length", "embedding", "hidden", "batch", "dense_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        if not self.rounds or min(self.rounds) <= 0 or self.score_epochs < 0 or self.reviews < 0:
            raise ValueError(f"rounds is {self.rounds}, expected at least one number of epochs above 0.")
        if not len(self.rounds) == len(self.sigma_rates) == len(self.mean_rates):
            raise ValueError(
                f"rounds, sigma_rates and mean_rates have {len(self.rounds)}, {len(self.sigma_rates)} and "
                f"{len(self.mean_rates)} entries, expected one a round in each."
            )
        self.training(1, self.learning_rate)

    def training(self, steps: int, rate: float) -> Training:
        return Training(steps, rate, self.warm_up, 0.1, checkpoint_every=50)


class Reviewing:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings
        torch.set_num_threads(1)  # steps of this size gain little by more

    @property
    def rows(self) -> list[str]:
        return ["dense", *LEVELS]

    @cached_property
    def data(self) -> imdb.Imdb:
        s = self.settings
        return imdb.load(self.run.data, s.words, s.length, s.reviews)

    @cached_property
    def example_inputs(self) -> Tensor:
        return torch.randint(1, self.settings.words, (6, 4), generator=torch.Generator().manual_seed(0))

    def results(self) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row), paper=PAPER.get(row)) for row in self.rows}

    def make(self, row: str) -> Mapping[str, Any]:
        return self.dense() if row == "dense" else self.sparse(row)

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def model(self) -> ReviewClassifier:
        torch.manual_seed(self.run.seed)
        s = self.settings
        return ReviewClassifier(s.words + 3, s.embedding, s.hidden)

    def load(self, row: str) -> nn.Module:
        return load(self.model(), self.file(row)).eval()

    def train(
        self,
        model: nn.Module,
        epochs: float,
        rate: float,
        name: str,
        sparsify: Callable[[nn.Module], Sparsifier] | None = None,
        milestones: Mapping[int, Path] | None = None,
    ) -> Path:
        """Train `model`; where its checkpoint lies."""
        objective = imdb.Sentiment(self.data.train, self.settings.batch, self.run.seed)
        steps = max(1, round(epochs * objective.steps_an_epoch))
        folder = self.run.folder / name
        train(
            model,
            objective,
            self.settings.training(steps, rate),
            name=name,
            seed=self.run.seed,
            folder=folder,
            sparsify=sparsify,
            milestones=milestones,
        )
        return folder / "checkpoint.safetensors"

    def dense(self) -> Mapping[str, Any]:
        """Trained with early stopping: the epoch with the best accuracy on the reviews that are kept to watch."""
        s, data = self.settings, self.data
        model = self.model()
        if s.score_epochs:
            scores = WordScores(s.words + 3)
            self.train(scores, s.score_epochs, s.score_rate, "scores")
            with torch.no_grad():
                model.embedding.weight[:, 0] = scores.embedding.weight[:, 0]
        steps = imdb.Sentiment(data.train, s.batch).steps_an_epoch
        ends = {n * steps: self.run.folder / "dense" / f"epoch{n}.safetensors" for n in range(1, s.dense_epochs + 1)}
        self.train(model, s.dense_epochs, s.learning_rate, "dense", milestones=ends)
        watched = []
        best: dict[str, Tensor] = {}
        for path in ends.values():
            state = checkpoint.read(path)["model"]
            model.load_state_dict(state)
            watched.append(imdb.accuracy(model, data.valid))
            if watched[-1] == max(watched):
                best = state
        model.load_state_dict(best)
        save(model.eval(), self.file("dense"))
        for path in ends.values():
            path.unlink()
        return {**self.figures(model, model), "valid_accuracies": watched}

    def sparse(self, row: str) -> Mapping[str, Any]:
        """The dense net, sparsified in rounds; compression after each share of an epoch."""
        s = self.settings
        whole = sizes(self.model())["weights"]
        model, before = self.load("dense").train(), 0.0
        epochs: list[float] = []
        course: list[float] = []
        losses: list[float] = []
        for n, length in enumerate(s.rounds):
            weights = sizes(model)["weights"]
            name = f"{row}-{n + 1}"
            history = checkpoint.read(self.train(model, length, s.sparse_rate, name, self.sparsifier(row, n)))[
                "history"
            ]
            steps = history["step"][-1]
            epochs += [round(before + length * step / steps, 3) for step in history["step"]]
            course += [round(whole / max(1.0, share * weights), 2) for share in history["density"]]
            losses += [round(loss, 4) for loss in history["loss"]]
            before += length
            if n < len(s.rounds) - 1:
                model = compact(model, self.example_inputs, words=True).train()
        small = compact(model, self.example_inputs, gates=True, words=True).eval()
        save(small, self.file(row))
        return {**self.figures(model, small), "epochs": epochs, "compression_by_epoch": course, "loss_by_epoch": losses}

    def sparsifier(self, row: str, number: int) -> Callable[[nn.Module], Sparsifier]:
        s, levels = self.settings, LEVELS[row]
        if row.startswith("prune"):
            return lambda model: GroupLasso(
                model,
                self.example_inputs,
                strength=dict(zip(levels, s.strengths)),
                level=levels,
                include="all",
            )
        return lambda model: Bayes(
            model,
            self.example_inputs,
            train_size=len(self.data.train),
            level=levels,
            include="all",
            sigma_rate=s.sigma_rates[number],
            mean_rate=s.mean_rates[number],
        )

    def figures(self, model: nn.Module, small: nn.Module) -> dict[str, Any]:
        """Quality and size; words, inputs, units and gates that are left in `model`, whose gates are not yet folded."""
        parameters = dict(model.named_parameters())
        structure = trace(model, self.example_inputs)
        alive = ~structure.dead(parameters)["lstm.l0"]
        constant = structure.constant_gates(parameters)["lstm.l0"]
        nonzero = sizes(model)["nonzero"]
        return {
            "test_accuracy": imdb.accuracy(small, self.data.test),
            "valid_accuracy": imdb.accuracy(small, self.data.valid),
            **sizes(small),
            "compression": round(sizes(self.model())["weights"] / max(1, nonzero), 1),
            "words": int(parameters["embedding.weight"].any(1).sum()),
            "inputs": int(parameters["lstm.weight_ih_l0"].any(0).sum()),
            "units": int(alive.sum()),
            "gates": sum(int((alive & ~mask).sum()) for mask in constant.values()),
            "gates_alive": {gate: int((alive & ~mask).sum()) for gate, mask in constant.items()},
        }
