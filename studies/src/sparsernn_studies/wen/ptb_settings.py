"""What can be set in the recipe wen-ptb: Zaremba's nets and their published trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ..precision import resolved
from ..settings import Count, Fraction, Is, NotNegative, Part, Positive, Some, Whole, settings
from ..word_training import WordTraining
from .words import Net

# In the order in which they are made, what answers most first.
ROWS = {
    row.name: row
    for row in (
        Net("dense", "dense", "dense"),
        Net("relaxed", "dense, the sparse rows' dropout", "relaxed"),
        Net("iss", "ISS, from scratch", "iss"),
        Net("direct", "direct design: the sizes of ISS", "direct"),
        Net("target", "target, from scratch", "target"),
        Net("iss-tuned", "ISS, from the dense net", "iss", "dense"),
        Net("l1", "L1, from the dense net", "l1", "dense"),
        Net("lines", "lasso on rows and columns, from scratch", "lines"),
        Net("blocks-40", "ISS, then 40% of the 16x1 blocks", "blocks", "iss", 0.4),
        Net("blocks-20", "ISS, then 20% of the 16x1 blocks", "blocks", "iss", 0.2),
        Net("blocks-10", "ISS, then 10% of the 16x1 blocks", "blocks", "iss", 0.1),
        Net("rewired", "sparse from the start, weights move (Selfish-RNN)", "rewired"),
        Net("gradual", "as sparse, pruned in the course", "gradual"),
        Net("bigram", "smoothed bigram, no net", "bigram"),
    )
}
Name = Annotated[str, Is(f"some of {', '.join(ROWS)}", ROWS.__contains__)]


@dataclass(frozen=True)
class Size:
    """One of Zaremba's nets (arXiv 1409.2329): `units` of both layers and of the embedding, share kept by dropout
    (`keep`), width of the uniform start, norm at which the gradient is clipped, length of a window, and the course: the
    rate 1 for `hold` epochs, then times `decay` every epoch.

    `sparse_keep` and `direct_keep`: less dropout for nets that become or are small (arXiv 1709.05027; published for the
    large net, ours for the medium one).
    """

    units: int
    keep: float
    sparse_keep: float
    direct_keep: float
    start: float
    clip: float
    bptt: int
    epochs: int
    hold: int
    decay: float


SIZES = {
    "tiny": Size(16, 1.0, 1.0, 1.0, 0.1, 5.0, 10, 2, 1, 0.5),
    "small": Size(200, 1.0, 1.0, 1.0, 0.1, 5.0, 20, 13, 4, 0.5),
    "medium": Size(650, 0.5, 0.65, 0.6, 0.05, 5.0, 35, 39, 6, 1 / 1.2),
    "large": Size(1500, 0.35, 0.6, 0.55, 0.04, 10.0, 35, 55, 14, 1 / 1.15),
}


@settings
class Settings:
    """`size`: of the net; its published training holds where nothing else is set (`epochs` 0).

    `schedule`: of the ISS rows, "paper": the dense net's, as the paper says; "code": the rate falls to a tenth after
    each third of the epochs, as the authors' code has it (1, 0.1 and 0.01 for 18 epochs each, 0.001 for the last).
    `strength` and `threshold`: of ISS, for a loss summed over time; threshold 0: the largest that is harmless to the
    dense net, as the paper chooses it; `l1_strength` and `l1_threshold`: of L1;
    `lines_strength`: of the lasso on rows and columns of each layer's matrix, at the threshold of ISS. `target`: share
    of the recurrent weights that its row keeps. `widths`: of the row direct, where it shall not be those of ISS.
    `left`: share of the recurrent weights that the rows rewired and gradual keep, published for a net of 67% sparsity
    (Liu et al., arXiv 2101.09048); `moves`: how often weights move, published once in each of 100 epochs.
    The rows of blocks train for `block_epochs` at the rate `block_rate`, halved with each of the last half, with
    `block_weight_decay` in the place of ISS's penalty.

    `dense_keep`, `sparse_keep`, `direct_keep`: share kept by dropout in the rows that are dense, sparse, and direct; 0:
    the size's own. `dense_decay` and so on: their weight decay. `dense_tries` and so on: from how many pairs of both
    each was chosen, which the rows record: who is compared has to have as many.

    `words`: only so many of each part of the text, 0 for all; `measured_words`: of the validation and test parts.
    `precision`: of the products with the vocabulary's matrix; "auto": bfloat16 where the processor multiplies in it.
    `steps`: stop each training after so many, 0 never.
    `bench_rounds`: rounds in which the nets are timed side by side on the paper's batch, 10 texts of 30 words.
    """

    size: Literal["tiny", "small", "medium", "large"] = "small"
    rows: Some[Name] = tuple(row for row in ROWS if row != "relaxed")
    epochs: Whole = 0
    schedule: Literal["paper", "code"] = "paper"
    strength: NotNegative = 0.00245
    threshold: NotNegative = 1e-4
    l1_strength: NotNegative = 1e-4
    l1_threshold: NotNegative = 2e-4
    lines_strength: NotNegative = 0.003
    target: Part = 0.25
    left: Part = 0.33
    moves: Count = 100
    widths: tuple[Count, ...] = ()
    dense_keep: Fraction = 0.0
    sparse_keep: Fraction = 0.0
    direct_keep: Fraction = 0.0
    dense_decay: NotNegative = 0.0
    sparse_decay: NotNegative = 0.0
    direct_decay: NotNegative = 0.0
    dense_tries: Count = 1
    sparse_tries: Count = 1
    direct_tries: Count = 1
    block_epochs: Count = 4
    block_rate: Positive = 0.5
    block_weight_decay: NotNegative = 3e-4
    words: Whole = 0
    measured_words: Whole = 0
    steps: Whole = 0
    batch: Count = 20
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 200
    bench_rounds: Count = 15

    def check(self) -> None:
        for row in map(ROWS.__getitem__, self.rows):
            if row.begins and row.begins not in self.rows:
                raise ValueError(f"rows is {','.join(self.rows)!r}: {row.name} begins with the row {row.begins}.")
        if not self.threshold and "dense" not in self.rows:
            raise ValueError(
                "threshold is 0, the one that is harmless to the dense net: the row dense is not among rows."
            )
        if "direct" in self.rows and not self.widths and "iss" not in self.rows:
            raise ValueError("The row direct takes the widths of the row iss, which is not among rows; set widths.")
        if len(self.widths) not in (0, 2):
            raise ValueError(f"widths is {self.widths}, expected the units of both layers, such as 373,315.")

    @property
    def net(self) -> Size:
        return SIZES[self.size]

    def regularised(self, row: Net) -> tuple[float, float, int]:
        """Share that dropout keeps in the training of `row`, its weight decay, and from how many pairs both are."""
        match row.kind:
            case "dense":
                return self.dense_keep or self.net.keep, self.dense_decay, self.dense_tries
            case "direct":
                return self.direct_keep or self.net.direct_keep, self.direct_decay, self.direct_tries
            case "blocks":
                return self.sparse_keep or self.net.sparse_keep, self.block_weight_decay, 1
            case _:
                return self.sparse_keep or self.net.sparse_keep, self.sparse_decay, self.sparse_tries

    def training(self, row: Net) -> WordTraining:
        net = self.net
        epochs, rate = self.epochs or net.epochs, 1.0
        third = max(1, epochs // 3)
        course: Mapping[str, Any] = {
            "hold": net.hold,
            "decay": net.decay,
            "weight_decay": self.regularised(row)[1],
        }
        if row.kind == "blocks":
            epochs, rate = self.block_epochs, self.block_rate
            course = {**course, "hold": -(-epochs // 2), "decay": 0.5}
        elif self.schedule == "code" and row.kind == "iss":
            course = {**course, "hold": third, "decay": 0.1, "decay_every": third}
        return WordTraining(
            epochs,
            rate,
            batch=self.batch,
            bptt=net.bptt,
            clip=net.clip,
            sum_over_time=True,
            precision=resolved(self.precision),
            steps=self.steps,
            device=self.device,
            checkpoint_every=self.checkpoint_every,
            **course,
        )
