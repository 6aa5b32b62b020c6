"""What can be set in the recipe wen-bidaf: the size of the net, its data and its trainings."""

from __future__ import annotations

from typing import Literal

from ..settings import settings
from ..tasks.squad import CorpusName
from ..train import Training


@settings
class AnsweringSettings:
    """`hidden`: units of each LSTM and direction; `vector`, `letter`, `filters`: columns of a word's vector, of a
    letter's, and filters of the convolution over letters.

    `corpus`: SQuAD 1.1, the subset of it, or made-up questions. `piece`: passages are cut to whole sentences of at most
    so many words, those of the answer among them, 0 leaves them whole; `longest`: passages with more words are not
    trained on; `questions`: only so many of each part, 0 for all. `vectors`: a file of word vectors in the data
    folder, which are then not trained.

    `strengths`: of ISS, a row from the dense net and one from scratch for each; `threshold`: weights below it become
    zero after each step. `target`: share of the weights of the six LSTMs behind the attention that two more rows keep,
    and a row of that size trained directly; 0: no such rows.

    `steps`: of a training from scratch, `tuned_steps`: of one from the dense net. `final_rate`: share of the learning
    rate that is left at the end. `dropout` and `sparse_dropout`: of the dense net and of those that are or become
    small. `clip`: norm at which the gradient of the loss is cut, 0 never. `bench_rounds`: rounds in which the nets are
    timed side by side on one question.
    """

    hidden: int = 100
    vector: int = 100
    letter: int = 8
    filters: int = 100
    corpus: CorpusName = "squad"
    piece: int = 0
    longest: int = 400
    questions: int = 0
    vectors: str = ""
    strengths: tuple[float, ...] = ()
    threshold: float = 4e-4
    target: float = 0.0
    steps: int = 10_000
    tuned_steps: int = 10_000
    batch: int = 60
    optimizer: Literal["adamw", "adadelta"] = "adamw"
    learning_rate: float = 1e-3
    warm_up: int = 0
    final_rate: float = 1.0
    dropout: float = 0.2
    sparse_dropout: float = 0.1
    clip: float = 0.0
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: int = 200
    bench_rounds: int = 15

    def check(self) -> None:
        for name in ("hidden", "vector", "letter", "filters", "longest", "steps", "tuned_steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        if min(self.piece, self.questions, self.clip, self.threshold) < 0 or self.bench_rounds < 1:
            raise ValueError("piece, questions, clip and threshold are 0 or more, bench_rounds is at least 1.")
        if min(self.strengths, default=1) <= 0 or not 0 <= self.target < 1:
            raise ValueError("strengths are numbers above 0, target is a share from 0 to below 1.")
        if not (0 <= self.dropout < 1 and 0 <= self.sparse_dropout < 1 and 0 <= self.final_rate <= 1):
            raise ValueError("dropout and sparse_dropout are shares from 0 to below 1, final_rate is one from 0 to 1.")
        self.training("dense")

    @property
    def rows(self) -> tuple[str, ...]:
        return (
            "dense",
            *(f"tuned-{strength:g}" for strength in self.strengths),
            *(f"iss-{strength:g}" for strength in self.strengths),
            *(("target-tuned", "target", "direct") if self.target else ()),
        )

    def training(self, row: str) -> Training:
        return Training(
            self.tuned_steps if tuned(row) else self.steps,
            self.learning_rate,
            self.warm_up,
            self.final_rate,
            clip=self.clip or 1e30,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
            optimizer=self.optimizer,
        )


def tuned(row: str) -> bool:
    """Whether the row begins with the dense net's weights."""
    return row == "target-tuned" or row.startswith("tuned-")


SCALES = {
    "smoke": AnsweringSettings(
        hidden=8,
        vector=12,
        letter=4,
        filters=8,
        corpus="made",
        strengths=(0.5,),
        threshold=0.1,
        target=0.4,
        steps=30,
        tuned_steps=30,
        batch=24,
        learning_rate=1e-2,
        clip=5.0,
        bench_rounds=1,
    ),
    "cpu": AnsweringSettings(
        hidden=32,
        vector=64,
        filters=32,
        corpus="subset",
        piece=60,
        target=0.25,
        steps=1500,
        tuned_steps=900,
        batch=32,
        learning_rate=4e-3,
        warm_up=50,
        final_rate=0.02,
        clip=5.0,
    ),
    # Published: Adam at 1e-3, 60 questions a step, 10,000 steps, dropout .2 and .1, GloVe's 100 columns; of the
    # strengths 1e-3 alone.
    "paper": AnsweringSettings(
        vectors="glove/glove.6B.100d.txt",
        strengths=(5e-4, 1e-3, 2e-3, 4e-3),
        target=0.22,
        device="any",
        checkpoint_every=1000,
    ),
}
