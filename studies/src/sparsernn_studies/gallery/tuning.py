"""A smaller net learns from the outputs of the whole one, where that helps."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import sparsernn as srn

from .precision import validated
from .subject import Subject


def fine_tuned(subject: Subject, small: nn.Module, removed: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `small` that learned from the whole net's outputs and, unit by unit, from its layers; or `small` itself
    where that did not help on validation."""
    if not subject.steps:
        return small
    tuned = copy.deepcopy(small).train()
    for name, parameter in tuned.named_parameters():
        if name in removed:  # a weight that went stays zero: Adam takes no step where there never was a gradient
            parameter.register_hook(lambda slope, kept=~removed[name]: slope * kept)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=subject.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / subject.steps)
    optimizer.register_step_post_hook(lambda *_: falling.step())
    hidden = {
        path: ~removed[units] if units in removed else torch.arange(int(tuned.get_submodule(path).hidden_size))  # type: ignore[arg-type]
        for path, units in subject.hidden.items()
    }
    srn.distill(
        tuned, subject.model, subject.training, subject.steps, loss=subject.loss, hidden=hidden, optimizer=optimizer
    )  # fmt: skip
    before, after = (validated(subject, model.eval(), "float32") for model in (small, tuned))
    return tuned if (after < before if subject.bar.at_most else after > before) else small
