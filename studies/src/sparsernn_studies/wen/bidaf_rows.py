"""The rows of Wen's BiDAF tables: how each net is made, measured, loaded and timed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.structure.cells import recurrent_layers
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact

from ..data import DataError
from ..results import Result, sizes
from ..runs import Run, RunError
from ..scores import as_recorded
from ..tasks import squad
from ..tasks.reading import Answering, Inputs, Vocabulary, answers, occurring, scores
from ..tasks.squad import Corpus
from ..tasks.word_vectors import read_vectors
from ..train import train
from .bidaf_model import BiDAF, Sizes
from .bidaf_settings import AnsweringSettings, tuned
from .bidaf_times import timed

SIX = ("modelling.*", "output.*")  # the LSTMs behind the attention, whose units are learnt


class Bidaf:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: AnsweringSettings = run.settings

    @cached_property
    def corpus(self) -> Corpus:
        """The questions to train and to measure on, on pieces of their passages if that is set."""
        s = self.settings
        whole = squad.load(self.run.data, s.corpus)
        few = s.questions or None
        train, valid = whole.train[:few], whole.valid[:few]
        if s.piece:
            train, valid = squad.pieces(train, s.piece, self.run.seed), squad.pieces(valid, s.piece)
        train = tuple(question for question in train if len(question.passage) <= s.longest)
        if not train or not valid:
            raise DataError(f"No passage of {s.corpus} has at most {s.longest} words, or none fits a piece.")
        return Corpus(train, valid)

    @cached_property
    def vectors(self) -> dict[str, Tensor] | None:
        """Word -> its vector, for the words of the corpus that have one; None where vectors are trained."""
        s = self.settings
        if not s.vectors:
            return None
        if self.run.data is None:
            raise DataError(f"{s.vectors} is needed and no data folder is given: name the folder with --data.")
        wanted = {word.lower() for word in occurring((*self.corpus.train, *self.corpus.valid))}
        found = read_vectors(self.run.data / s.vectors, wanted)
        width = len(next(iter(found.values())))
        if width != s.vector:
            raise DataError(f"{s.vectors} has vectors of {width} numbers, expected {s.vector}: --set vector={width}.")
        return found

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words and letters of the training questions, as the run's folder keeps them."""
        path = self.run.folder / "vocabulary.json"
        if path.is_file():
            return Vocabulary.load(path)
        questions = self.corpus.train
        if self.vectors is None:
            found = Vocabulary.of(questions)
        else:
            found = Vocabulary.of((*questions, *self.corpus.valid), self.vectors.keys())
        found.save(path)
        return found

    @cached_property
    def example_inputs(self) -> list[Inputs]:
        """Something to trace with, known before any data is: a question alone, and several with padding."""
        pairs = [(question.passage.words, question.words) for question in squad.made(3, 0)]
        return [self.vocabulary.inputs(pairs[:1]), self.vocabulary.inputs(pairs)]

    @cached_property
    def timing_inputs(self) -> Inputs:
        """One question to measure on: that with the passage of median length."""
        found = sorted(self.corpus.valid, key=lambda question: len(question.passage))
        question = found[len(found) // 2]
        return self.vocabulary.inputs([(question.passage.words, question.words)])

    def model(self, row: str) -> BiDAF:
        """The untrained net of `row`, its word vectors as well."""
        s, v = self.settings, self.vocabulary
        torch.manual_seed(self.run.seed)
        widths = tuple(units(self.load("target", "-compact"))) if row == "direct" else ()
        size = Sizes(len(v.words) + 2, len(v.letters) + 2, s.vector, s.letter, s.filters, hidden=s.hidden)
        return BiDAF(replace(size, widths=widths), s.dropout if row == "dense" else s.sparse_dropout)

    def starting(self, row: str) -> BiDAF:
        """The net with which the training of `row` begins."""
        model = self.model(row)
        if tuned(row):
            model.load_state_dict(self.load("dense").state_dict())
        if self.vectors is not None:
            known = self.vectors
            with torch.no_grad():
                for n, word in enumerate(self.vocabulary.words, start=2):
                    model.words.weight[n] = known[word]
            model.words.weight.requires_grad_(False)
        return model

    def sparsifier(self, row: str) -> Callable[[nn.Module], Sparsifier] | None:
        """What learns the sparsity of `row`; None for nets that are trained densely."""
        s, x = self.settings, self.example_inputs
        kind, _, strength = row.partition("-")
        if kind in ("iss", "tuned"):
            return lambda model: GroupLasso(
                model, x, strength=float(strength), update="subgradient", threshold=s.threshold, include=SIX
            )
        if kind == "target":
            steps = s.training(row).steps
            return lambda model: GroupLasso(model, x, target=s.target, steps=steps, include=SIX, score=as_recorded())
        return None

    def make(self, row: str) -> Mapping[str, Any]:
        """Train `row` (or go on with it), take out what can go, save both nets and measure."""
        s, valid = self.settings, self.corpus.valid
        model = self.starting(row)
        with warnings.catch_warnings():  # the published method is the subgradient under Adam
            warnings.filterwarnings("ignore", message=".*divides the penalty's gradient")
            history = train(
                model,
                Answering(self.corpus.train, self.vocabulary, s.batch, self.run.seed),
                s.training(row),
                name=row,
                seed=self.run.seed,
                sparsify=self.sparsifier(row),
                folder=self.run.folder / row,
            )
        model.eval()
        device = model.end.weight.device
        before = answers(model, self.vocabulary, valid)
        save(model.cpu(), self.file(row))
        with warnings.catch_warnings():  # dense nets leave no unit without readers
            warnings.simplefilter("ignore")
            small = compact(model, self.example_inputs)
        save(small, self.file(row, "-compact"))
        after = answers(small.to(device), self.vocabulary, valid)
        return {
            **scores(valid, after),
            "questions": len(valid),
            "same_answers": sum(a[:2] == b[:2] for a, b in zip(before, after)),
            "units": units(small),
            **weights(small),
            "train_questions": len(self.corpus.train),
            "steps": s.training(row).steps,
            "train_seconds": round(history.seconds, 1),
        }

    def file(self, row: str, kind: str = "") -> Path:
        return self.run.folder / f"{row}{kind}.safetensors"

    def load(self, row: str, kind: str = "") -> BiDAF:
        """The net of a row that is done, in eval mode; kind "-compact": without what could go."""
        if not self.file(row, kind).is_file():
            raise RunError(f"{self.file(row, kind)} is missing, so the run is not done: run the recipe again.")
        model = load(self.model(row), self.file(row, kind)).eval()
        assert isinstance(model, BiDAF)
        return model

    def smallest(self) -> tuple[str, BiDAF]:
        """The row whose compact net has the fewest parameters, and that net."""
        done = [row for row in self.settings.rows if self.file(row, "-compact").is_file()]
        if not done:
            raise RunError(f"{self.run.folder} has no net yet, so the run is not done: run the recipe again.")
        nets = {row: self.load(row, "-compact") for row in done}
        row = min(nets, key=lambda row: sizes(nets[row])["parameters"])
        return row, nets[row]

    def results(self, paper: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return {
            row: self.run.row(row, lambda row=row: self.make(row), paper=paper.get(row)) for row in self.settings.rows
        }

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of one question added: one thread, side by side with the dense net."""
        torch.set_num_threads(1)
        dense, found = self.load("dense"), {}
        for row, result in rows.items():
            figures = timed(
                dense,
                self.load(row, "-compact"),
                self.timing_inputs,
                rounds=self.settings.bench_rounds,
                clock=time.thread_time,
            )
            found[row] = self.run.add(result, {**figures, "timed_words": self.timing_inputs[2].shape[1]})
        return found


def six(model: nn.Module) -> list[Any]:
    """The layers and directions of the modelling stack and the output layer, in that order."""
    found = {name: [] for name in ("modelling", "output")}
    for layer in recurrent_layers(model):
        part = layer.name.partition(".")[0]
        if part in found:
            found[part].append(layer)
    return [layer for layers in found.values() for layer in layers]


def units(model: nn.Module) -> list[int]:
    """Units of the six LSTMs: modelling layers 1 and 2, output layer, each forwards and backwards."""
    return [layer.hidden_size for layer in six(model)]


def weights(model: nn.Module) -> dict[str, int]:
    """`weights`, `nonzero` and `parameters` without the word vectors, which are counted as `word_vectors`."""
    vectors = model.get_parameter("words.weight")
    whole = sizes(model)
    return {
        "weights": whole["weights"] - vectors.numel(),
        "nonzero": whole["nonzero"] - int(vectors.count_nonzero()),
        "parameters": whole["parameters"] - vectors.numel(),
        "word_vectors": vectors.numel(),
    }
