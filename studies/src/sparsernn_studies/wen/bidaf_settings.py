"""What can be set in the recipe wen-bidaf: the size of the net, its data and its trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..settings import Count, Fraction, NotNegative, Positive, Share, Whole, settings
from ..study import Row
from ..tasks.squad import CorpusName
from ..train import Training


@dataclass(frozen=True)
class Net(Row):
    """`kind`: what is learnt to go, or that nothing is. `tuned`: it begins with the dense net's weights."""

    label: str
    kind: str
    strength: float = 0.0
    tuned: bool = False


@settings
class AnsweringSettings:
    """`hidden`: units of each LSTM and direction; `vector`, `letter`, `filters`: columns of a word's vector, of a
    letter's, and filters of the convolution over letters.

    `corpus`: SQuAD 1.1, the subset of it, or made-up questions. `piece`: passages are cut to whole sentences of at most
    so many words, those of the answer among them, 0 leaves them whole; `longest`: passages with more words are not
    trained on; `questions`: only so many of each part, 0 for all. `vectors`: a file of word vectors in the data
    folder, which are then not trained.

    `strengths`: of ISS, a row from the dense net and one from scratch for each; `threshold`: weights below it become
    zero after each step; 0: the largest that is harmless to the dense net, as the paper chooses it. `target`: share of
    the weights of the six LSTMs behind the attention that two more rows keep, and a row of that size trained directly;
    0: no such rows.

    `steps`: of a training from scratch, `tuned_steps`: of one from the dense net. `final_rate`: share of the learning
    rate that is left at the end. `dropout` and `sparse_dropout`: of the dense net and of those that are or become
    small. `clip`: norm at which the gradient of the loss is cut, 0 never. `bench_rounds`: rounds in which the nets are
    timed side by side on one question.
    """

    hidden: Count = 100
    vector: Count = 100
    letter: Count = 8
    filters: Count = 100
    corpus: CorpusName = "squad"
    piece: Whole = 0
    longest: Count = 400
    questions: Whole = 0
    vectors: str = ""
    strengths: tuple[Positive, ...] = ()
    threshold: NotNegative = 4e-4
    target: Share = 0.0
    steps: Count = 10_000
    tuned_steps: Count = 10_000
    batch: Count = 60
    optimizer: Literal["adamw", "adadelta"] = "adamw"
    learning_rate: Positive = 1e-3
    warm_up: Whole = 0
    final_rate: Fraction = 1.0
    dropout: Share = 0.2
    sparse_dropout: Share = 0.1
    clip: NotNegative = 0.0
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 200
    bench_rounds: Count = 15

    @property
    def nets(self) -> tuple[Net, ...]:
        sized = (
            Net("target-tuned", "target, from the dense net", "target", tuned=True),
            Net("target", "target, from scratch", "target"),
            Net("direct", "the sizes of target, directly", "direct"),
        )
        return (
            Net("dense", "dense", "dense"),
            *(Net(f"tuned-{s:g}", f"ISS, from the dense net, {s:g}", "iss", s, tuned=True) for s in self.strengths),
            *(Net(f"iss-{s:g}", f"ISS, from scratch, {s:g}", "iss", s) for s in self.strengths),
            *(sized if self.target else ()),
        )

    def training(self, row: Net) -> Training:
        return Training(
            self.tuned_steps if row.tuned else self.steps,
            self.learning_rate,
            self.warm_up,
            self.final_rate,
            clip=self.clip or 1e30,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
            optimizer=self.optimizer,
        )


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
        strengths=(3e-3,),
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
