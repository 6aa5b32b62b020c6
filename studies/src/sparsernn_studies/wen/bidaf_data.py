"""The questions of the BiDAF study, their vocabulary and their word vectors."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from ..data import DataError
from ..study import Study
from ..tasks import squad
from ..tasks.reading import Inputs, Vocabulary, occurring
from ..tasks.squad import Corpus
from ..tasks.word_vectors import read_vectors
from .bidaf_settings import AnsweringSettings, Net


class Questions(Study[AnsweringSettings, Net]):
    """A study on questions, whose nets and figures a subclass gives."""

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
