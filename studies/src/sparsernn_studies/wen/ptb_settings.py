"""What can be set in the recipe wen-ptb."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..settings import Count, Fraction, Is, NotNegative, Part, Positive, Some, settings
from ..word_study import Net
from ..zaremba import ZarembaSettings

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
        Net("bigram", "smoothed bigram, no net", "bigram"),
    )
}
Name = Annotated[str, Is(f"some of {', '.join(ROWS)}", ROWS.__contains__)]


@settings
class Settings(ZarembaSettings):
    """`schedule`: of the ISS rows, "paper": the dense net's, as the paper says; "code": the rate falls to a tenth after
    each third of the epochs, as the authors' code has it (1, 0.1 and 0.01 for 18 epochs each, 0.001 for the last).
    `strength` and `threshold`: of ISS, for a loss summed over time; threshold 0: the largest that is harmless to the
    dense net, as the paper chooses it; `l1_strength` and `l1_threshold`: of L1;
    `lines_strength`: of the lasso on rows and columns of each layer's matrix, at the threshold of ISS. `target`: share
    of the recurrent weights that its row keeps. `widths`: of the row direct, where it shall not be those of ISS, and
    `direct_keep`, `direct_decay` and `direct_tries` its dropout and decay.
    The rows of blocks train for `block_epochs` at the rate `block_rate`, halved with each of the last half, with
    `block_weight_decay` in the place of ISS's penalty.
    """

    rows: Some[Name] = tuple(row for row in ROWS if row != "relaxed")
    schedule: Literal["paper", "code"] = "paper"
    strength: NotNegative = 0.00245
    threshold: NotNegative = 1e-4
    l1_strength: NotNegative = 1e-4
    l1_threshold: NotNegative = 2e-4
    lines_strength: NotNegative = 0.003
    target: Part = 0.25
    widths: tuple[Count, ...] = ()
    direct_keep: Fraction = 0.0
    direct_decay: NotNegative = 0.0
    direct_tries: Count = 1
    block_epochs: Count = 4
    block_rate: Positive = 0.5
    block_weight_decay: NotNegative = 3e-4

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

    def regularised(self, row: Net) -> tuple[float, float, int]:
        match row.kind:
            case "direct":
                return self.direct_keep or self.net.direct_keep, self.direct_decay, self.direct_tries
            case "blocks":
                return self.sparse_keep or self.net.sparse_keep, self.block_weight_decay, 1
            case _:
                return super().regularised(row)

    def course(self, row: Net) -> dict[str, Any]:
        course = super().course(row)
        if row.kind == "blocks":
            epochs = self.block_epochs
            course |= {"epochs": epochs, "learning_rate": self.block_rate, "hold": -(-epochs // 2), "decay": 0.5}
        elif self.schedule == "code" and row.kind == "iss":
            third = max(1, course["epochs"] // 3)
            course |= {"hold": third, "decay": 0.1, "decay_every": third}
        return course
