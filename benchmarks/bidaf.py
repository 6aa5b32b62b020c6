"""Wen's BiDAF at the sizes of its tables: one question, dense and compact, on our kernels and in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn_studies.wen.bidaf_model import BiDAF, Sizes, units, weights

from .engines import same
from .measure import Ceiling, Ideal, Row, versus

PASSAGE, QUESTION, DISTINCT = 130, 12, 90  # words: the median of SQuAD 1.1, and how many of them differ, about
# Units of the six LSTMs: the rows of tables 3 and 4 (arXiv 1709.05027) nearest to a million weights, and what we want
# there on our kernels against the dense net on the same kernels.
ROWS = {
    "table 3, 1.03M": ((54, 47, 22, 30, 18, 12), 1.5),
    "table 3, 1.01M": ((52, 50, 19, 26, 15, 12), 1.5),
    "table 4, 1.17M": ((51, 33, 42, 58, 37, 26), None),
    "table 4, 0.95M": ((20, 33, 40, 38, 31, 16), 1.5),
}


def bidaf(ceiling: Ceiling, rounds: int) -> list[Row]:
    """BiDAF with what Wen's tables 3 and 4 leave of its six LSTMs, one question, against the dense net."""
    inputs, rows = question(), []
    for name, (widths, target) in ROWS.items():
        dense = net(widths, inputs)
        small = srn.compact(dense, inputs)
        assert units(small) == list(widths)
        twin, fast = srn.accelerate(dense), srn.accelerate(small)
        others = {
            "the dense net on our kernels": same(lambda twin=twin: joined(twin, inputs), target),
            "the dense net in torch": same(lambda dense=dense: joined(dense, inputs)),
            "the same net in torch": same(lambda small=small: joined(small, inputs)),
        }
        work = f"{name} ({weights(small)['weights'] / 1e6:.2f}M by our count), {PASSAGE} words, B1"
        rows += versus(
            work, same(lambda fast=fast: joined(fast, inputs)), others, ideal(ceiling, small, inputs), rounds
        )
    return rows


def question() -> tuple[Tensor, ...]:
    """One question and its passage, of random words."""
    source = torch.Generator().manual_seed(1)
    words_U = torch.randint(2, 1000, (DISTINCT + 1,), generator=source)
    letters_UC = torch.randint(2, 100, (DISTINCT + 1, 16), generator=source)
    passage_BT = torch.randint(1, DISTINCT + 1, (1, PASSAGE), generator=source)
    question_BJ = torch.randint(1, DISTINCT + 1, (1, QUESTION), generator=source)
    return words_U, letters_UC, passage_BT, torch.tensor([PASSAGE]), question_BJ, torch.tensor([QUESTION])


def net(widths: tuple[int, ...], inputs: tuple[Tensor, ...]) -> BiDAF:
    """The dense net of the paper with all but `widths` units of the six LSTMs dead: nothing reads them."""
    torch.manual_seed(0)
    made = BiDAF(Sizes(words=1000, letters=100)).eval()
    groups = srn.trace(made, inputs).groups("unit")
    gone = torch.zeros(groups.count, dtype=torch.bool)
    sets = [f"{part}.l{n}{end}" for part, n in (("modelling", 0), ("modelling", 1), ("output", 0)) for end in ENDS]
    for name, width in zip(sets, widths):
        gone[groups.units[name][width:]] = True
    parameters = dict(made.named_parameters())
    with torch.no_grad():
        for name, mask in groups.mask(parameters, gone, ("outgoing",)).items():
            parameters[name].mul_(mask)
    return made


ENDS = ("", "_reverse")


def joined(model: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    """Both of the model's outputs as one."""
    return torch.cat(model(*inputs))


def ideal(ceiling: Ceiling, small: nn.Module, inputs: tuple[Tensor, ...]) -> Ideal:
    """The roofline of the LSTMs, the highway layers and the attention: operations at the peak, or every recurrent
    weight read once a step and every other one once."""
    steps = {"contextual": PASSAGE + QUESTION, "modelling": PASSAGE, "output": PASSAGE, "highway": len(inputs[0])}
    both = small.get_parameter("both_score").numel()
    operations, once, again = 2.0 * 3 * PASSAGE * QUESTION * both, 0, 0
    for name, p in small.named_parameters():
        part = name.partition(".")[0]
        if p.dim() == 2 and part in steps:
            operations += 2.0 * p.numel() * steps[part]
            if "weight_hh" in name:
                again += p.numel() * steps[part]
            else:
                once += p.numel()
    size = sum(p.numel() for n, p in small.named_parameters() if p.dim() == 2 and n.partition(".")[0] in steps)
    return ceiling.ideal(operations, 4 * size, (once + again) / size, calls=5)
