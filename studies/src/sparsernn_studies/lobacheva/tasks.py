"""What the recipes after Lobacheva et al. (arXiv 1911.05585) learn: classes of texts, and the next symbol of a text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..baselines import bigram_bits, linear_bag, majority, unigram_bits
from ..models import OneHotLSTM, TextClassifier, WordScores
from ..runs import Run
from ..tasks.labelled import NUMBERS, Labelled, TextClassification, accuracy, padded
from ..tasks.text import LanguageModelling, Streams, Text, bits_per_symbol
from ..train import train
from ..word_model import StackedLSTM
from .settings import SymbolSettings, TextSettings, WordSettings

STREAMS = 10  # of a text that is judged


class TextTask:
    """The class of a text: embedding, LSTM, the last state."""

    def __init__(self, run: Run, load: Callable[[], Labelled], classes: int) -> None:
        self.run, self.classes, self._load = run, classes, load
        self.settings: TextSettings = run.settings

    @cached_property
    def data(self) -> Labelled:
        return self._load()

    @cached_property
    def objective(self) -> TextClassification:
        return TextClassification(self.data.train, self.settings.batch, self.run.seed)

    @property
    def steps_an_epoch(self) -> int:
        return self.objective.steps_an_epoch

    @property
    def train_size(self) -> int:
        """Examples over which the loss is a mean."""
        return len(self.data.train)

    @cached_property
    def example_inputs(self) -> Tensor:
        """Real inputs x_TB, four sequences."""
        longest = sorted(range(len(self.data.test)), key=lambda n: -len(self.data.test.words[n]))
        return padded(self.data.test, longest[:4])

    def model(self) -> TextClassifier:
        """The untrained net, the same each time."""
        torch.manual_seed(self.run.seed)
        s = self.settings
        return TextClassifier(s.words + NUMBERS, s.embedding, s.hidden, self.classes)

    def warm_start(self, model: nn.Module, folder: Path) -> None:
        """Put the scores of a bag of words, trained in `folder`, in the first columns of the embedding."""
        s = self.settings
        if not s.score_epochs:
            return
        scores = WordScores(s.words + NUMBERS, self.classes)
        steps = max(1, round(s.score_epochs * self.steps_an_epoch))
        training = s.training(steps, s.score_rate)
        train(scores, self.objective, training, name="scores", seed=self.run.seed, folder=folder / "scores")
        found = scores.cpu().embedding.weight.detach()[:, : s.embedding]
        with torch.no_grad():
            model.get_parameter("embedding.weight")[:, : found.shape[1]] = found

    def watched(self, model: nn.Module) -> float:
        """The figure by which the best epoch is chosen; less is better."""
        return -accuracy(model, self.data.valid)

    def quality(self, model: nn.Module) -> dict[str, float]:
        return {
            "test_accuracy": accuracy(model, self.data.test),
            "valid_accuracy": accuracy(model, self.data.valid),
        }

    def baselines(self) -> dict[str, Callable[[], dict[str, float]]]:
        """What needs no net: the row, and how it is measured."""
        learnt, found = self.data.train, self.data.test
        classes = learnt.classes_N, found.classes_N
        return {
            "majority": lambda: {"test_accuracy": majority(*classes)},
            "linear": lambda: {
                "test_accuracy": linear_bag(learnt.words, classes[0], found.words, classes[1], self.data.symbols)
            },
        }

    def used(self, model: nn.Module) -> dict[str, int]:
        """Words, and inputs of the LSTM, that are not all zero."""
        words, inputs = (model.get_parameter(name) for name in ("embedding.weight", "lstm.weight_ih_l0"))
        return {"words": int(words.any(1).sum()), "inputs": int(inputs.any(0).sum())}


class SymbolTask:
    """The next symbol of a text, read as parallel streams with the state carried on: one layer on one-hot symbols, or
    an embedding and two layers as in Zaremba et al. (arXiv 1409.2329), without dropout."""

    def __init__(self, run: Run, load: Callable[[], Text], *, words: bool, two_layers: bool = False) -> None:
        self.run, self.words, self.two_layers, self._load = run, words, two_layers, load
        self.settings: SymbolSettings = run.settings

    @cached_property
    def data(self) -> Text:
        return self._load()

    @cached_property
    def streams(self) -> Streams:
        return Streams(self.data.train, self.settings.batch, self.settings.length)

    @cached_property
    def objective(self) -> LanguageModelling:
        return LanguageModelling(self.streams)

    @property
    def steps_an_epoch(self) -> int:
        return self.streams.length // self.streams.steps

    @property
    def train_size(self) -> int:
        return len(self.data.train)

    @cached_property
    def example_inputs(self) -> Tensor:
        x_TB, _, _ = Streams(self.data.test, 4, min(self.settings.length, (len(self.data.test) - 1) // 4)).at(0)
        return x_TB

    def model(self) -> OneHotLSTM | StackedLSTM:
        """The untrained net, the same each time."""
        torch.manual_seed(self.run.seed)
        s, symbols = self.settings, len(self.data.symbols)
        if self.two_layers and isinstance(s, WordSettings):
            return StackedLSTM(symbols, s.two_layers, (s.two_layers, s.two_layers), 1.0, s.two_layers_start)
        return OneHotLSTM(symbols, s.hidden, s.forget)

    def warm_start(self, model: nn.Module, folder: Path) -> None:
        """Nothing: the net starts from chance."""

    def watched(self, model: nn.Module) -> float:
        return self._bits(model, self.data.valid)

    def quality(self, model: nn.Module) -> dict[str, float]:
        parts = {"test": self.data.test, "valid": self.data.valid}
        bits = {part: self._bits(model, text_N) for part, text_N in parts.items()}
        return {name: value for part, found in bits.items() for name, value in self._named(part, found).items()}

    def _named(self, part: str, bits: float) -> dict[str, float]:
        return {f"{part}_perplexity": 2**bits} if self.words else {f"{part}_bpc": bits}

    def baselines(self) -> dict[str, Callable[[], dict[str, float]]]:
        """What needs no net: the row, and how it is measured."""
        text = self.data
        known = text.train, text.test, len(text.symbols)
        return {
            "unigram": lambda: self._named("test", unigram_bits(*known)),
            "bigram": lambda: self._named("test", bigram_bits(*known)),
        }

    def used(self, model: nn.Module) -> dict[str, int]:
        if self.two_layers:
            words, inputs = (model.get_parameter(name) for name in ("embedding.weight", "layers.0.weight_ih_l0"))
            return {"words": int(words.any(1).sum()), "inputs": int(inputs.any(0).sum())}
        inputs = int(model.get_parameter("lstm.weight_ih_l0").any(0).sum())
        return {"words": inputs, "inputs": inputs}

    def _bits(self, model: Any, text_N: Tensor) -> float:
        return bits_per_symbol(model, text_N, streams=STREAMS, window=self.settings.length)


Task = TextTask | SymbolTask  # one net and what it learns
