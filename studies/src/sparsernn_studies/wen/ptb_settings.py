"""What can be set in the recipe wen-ptb: Zaremba's nets and their published trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..precision import resolved
from ..settings import settings
from ..word_training import WordTraining

# In the order in which they are made, what answers most first.
ROWS = {
    "dense": "dense",
    "relaxed": "dense, the sparse rows' dropout",
    "iss": "ISS, from scratch",
    "direct": "direct design: the sizes of ISS",
    "target": "target, from scratch",
    "iss-tuned": "ISS, from the dense net",
    "l1": "L1, from the dense net",
    "lines": "lasso on rows and columns, from scratch",
    "blocks-40": "ISS, then 40% of the 16x1 blocks",
    "blocks-20": "ISS, then 20% of the 16x1 blocks",
    "blocks-10": "ISS, then 10% of the 16x1 blocks",
}
# The row whose net others begin with: the dense one's weights, or what is left of ISS's.
STARTS = {"iss-tuned": "dense", "l1": "dense", **{row: "iss" for row in ROWS if row.startswith("blocks")}}


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
    `strength` and `threshold`: of ISS, for a loss summed over time; `l1_strength` and `l1_threshold`: of L1;
    `lines_strength`: of the lasso on rows and columns of each layer's matrix, at the threshold of ISS. `target`: share
    of the recurrent weights that its row keeps. `widths`: of the row direct, where it shall not be those of ISS.
    The rows of blocks train for `block_epochs` at the rate `block_rate`, halved with each of the last half, with
    `block_weight_decay` in the place of ISS's penalty.

    `words`: only so many of each part of the text, 0 for all; `measured_words`: of the validation and test parts.
    `precision`: of the products with the vocabulary's matrix; "auto": bfloat16 where the processor multiplies in it.
    `steps`: stop each training after so many, 0 never.
    `bench_rounds`: rounds in which the nets are timed side by side on the paper's batch, 10 texts of 30 words.
    """

    size: Literal["tiny", "small", "medium", "large"] = "small"
    rows: tuple[str, ...] = tuple(row for row in ROWS if row != "relaxed")
    epochs: int = 0
    schedule: Literal["paper", "code"] = "paper"
    strength: float = 0.00245
    threshold: float = 1e-4
    l1_strength: float = 1e-4
    l1_threshold: float = 2e-4
    lines_strength: float = 0.003
    target: float = 0.25
    widths: tuple[int, ...] = ()
    block_epochs: int = 4
    block_rate: float = 0.5
    block_weight_decay: float = 3e-4
    words: int = 0
    measured_words: int = 0
    steps: int = 0
    batch: int = 20
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: int = 200
    bench_rounds: int = 15

    def check(self) -> None:
        unknown = [row for row in self.rows if row not in ROWS]
        if unknown or not self.rows:
            raise ValueError(f"rows is {','.join(self.rows)!r}, expected some of {', '.join(ROWS)}.")
        for row in self.rows:
            if STARTS.get(row, row) not in self.rows:
                raise ValueError(f"rows is {','.join(self.rows)!r}: {row} begins with the row {STARTS[row]}.")
        if "direct" in self.rows and not self.widths and "iss" not in self.rows:
            raise ValueError("The row direct takes the widths of the row iss, which is not among rows; set widths.")
        if self.widths and (len(self.widths) != 2 or min(self.widths) < 1):
            raise ValueError(f"widths is {self.widths}, expected the units of both layers, such as 373,315.")
        if not 0 < self.target < 1 or min(self._penalties) < 0:
            raise ValueError("target lies between 0 and 1; strengths, thresholds and weight decay are 0 or more.")
        if self.block_epochs < 1 or not self.block_rate > 0:
            raise ValueError("block_epochs is at least 1, block_rate above 0.")
        if min(self.epochs, self.words, self.measured_words, self.steps) < 0 or self.bench_rounds < 1:
            raise ValueError("epochs, words, measured_words and steps are 0 or more, bench_rounds is at least 1.")
        self.training("dense")

    @property
    def _penalties(self) -> tuple[float, ...]:
        lasso = self.strength, self.threshold, self.l1_strength, self.l1_threshold, self.lines_strength
        return *lasso, self.block_weight_decay

    @property
    def net(self) -> Size:
        return SIZES[self.size]

    def keep(self, row: str) -> float:
        """Share that dropout keeps in the training of `row`."""
        if row == "dense":
            return self.net.keep
        return self.net.direct_keep if row == "direct" else self.net.sparse_keep

    def training(self, row: str) -> WordTraining:
        net = self.net
        epochs, rate = self.epochs or net.epochs, 1.0
        third = max(1, epochs // 3)
        course: Mapping[str, Any] = {"hold": net.hold, "decay": net.decay}
        if STARTS.get(row) == "iss":
            epochs, rate = self.block_epochs, self.block_rate
            course = {"hold": -(-epochs // 2), "decay": 0.5, "weight_decay": self.block_weight_decay}
        elif self.schedule == "code" and row.startswith("iss"):
            course = {"hold": third, "decay": 0.1, "decay_every": third}
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
