"""Wen's Penn Treebank net as a whole, softmax layer included, on the paper's batch of 10 texts of 30 words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn_studies.word_model import StackedLSTM

from .engines import same
from .measure import Ceiling, Ideal, Row, versus

UNITS, WORDS, STEPS, BATCH = 1500, 10_000, 30, 10
TALL, WIDE, DENSITY = (
    16,
    4,
    0.2,
)  # blocks of the softmax layer, and the share of them that stays in the rows with blocks


def paper_net(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Wen's net of 2 x 1500 units with its softmax layer against what is left of it: 373/315 and 381/535 units."""
    rows = []
    # Of the paper: 10.59x and 7.10x, in float32; 40x is our own aim in int8.
    for widths, target, target_int8 in (((373, 315), 10.59, None), ((381, 535), 7.10, None)):
        dense = net(widths)
        name = "/".join(map(str, widths))
        rows += _rows(ceiling, rounds, name, dense, {"float32": target, "int8": target_int8})
    blocks = net((373, 315), blocks=True)
    name = f"373/315, softmax in {TALL}x{WIDE} blocks {100 * (1 - DENSITY):.0f}% gone"
    return rows + _rows(ceiling, rounds, name, blocks, {"float32": None, "int8": 40})


def net(widths: tuple[int, int], *, blocks: bool = False) -> StackedLSTM:
    """The dense net with all but `widths` units of the two layers dead: nothing reads them.

    `blocks`: blocks of the softmax layer are zero beside, all but a share of `DENSITY`.
    """
    torch.manual_seed(0)
    made = StackedLSTM(WORDS, UNITS, (UNITS, UNITS), 1.0, 0.04).eval()
    readers = (made.layers[1].weight_ih_l0, made.head.weight)
    with torch.no_grad():
        for layer, width, reader in zip(made.layers, widths, readers):
            assert isinstance(layer, nn.LSTM) and isinstance(reader, Tensor)
            layer.weight_hh_l0[:, width:] = 0
            reader[:, width:] = 0
            for weight in (layer.weight_ih_l0, layer.weight_hh_l0):
                weight.mul_(1.7 / 0.04 / weight.shape[1] ** 0.5)  # states as alive as after training
        if blocks:
            keep = torch.rand(-(-WORDS // TALL), -(-UNITS // WIDE)) < DENSITY
            made.head.weight.mul_(keep.repeat_interleave(TALL, 0)[:WORDS].repeat_interleave(WIDE, 1)[:, :UNITS])
    return made


def _rows(ceiling: Ceiling, rounds: int, name: str, dense: StackedLSTM, targets: dict[Any, float | None]) -> list[Row]:
    x = torch.randint(WORDS, (STEPS, BATCH), generator=torch.Generator().manual_seed(1))
    small = srn.compact(dense, x)
    rows = []
    for precision, target in targets.items():
        fast = srn.accelerate(small, precision)
        others = {
            "1500/1500 in torch": same(lambda: dense(x), target),
            "the same net in torch": same(lambda: small(x)),
        }
        work = f"{name}, {precision}, T{STEPS} B{BATCH}"
        rows += versus(work, same(lambda fast=fast: fast(x)), others, ideal(ceiling, small, precision), rounds)
    return rows


def ideal(ceiling: Ceiling, small: nn.Module, precision: str) -> Ideal:
    """The roofline: operations at the peak (int8: four times that), or every weight read once a step by a
    layer and once in all by what needs no earlier step."""
    count = {name: int(p.count_nonzero()) for name, p in small.named_parameters() if p.dim() == 2}
    again = sum(n for name, n in count.items() if "weight_hh" in name)
    once = sum(n for name, n in count.items() if not name.startswith("embedding")) - again
    size = 1 if precision == "int8" else 4
    operations = 2.0 * (once + again) * STEPS * BATCH / (4 if precision == "int8" else 1)
    return ceiling.ideal(operations, (once + again) * size, (once + again * STEPS) / (once + again), calls=1)
