"""A smaller net learns from the outputs of the whole one, where that helps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn

from .subject import Subject


def fine_tuned(subject: Subject, small: nn.Module, removed: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `small` that learned from the whole net's outputs and, unit by unit, from its layers; or `small` itself
    where that did not help on a tenth of the batches that is kept apart."""
    training = list(subject.training)
    apart = max(1, len(training) // 10)
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
        tuned, subject.model, training[apart:], subject.steps, loss=subject.loss, hidden=hidden, optimizer=optimizer
    )  # fmt: skip
    before, after = (off(subject, model.eval(), training[:apart]) for model in (small, tuned))
    return tuned if after < before else small


def off(subject: Subject, model: nn.Module, batches: Iterable[Any]) -> float:
    """The loss of fine-tuning on batches, summed."""
    compare: Any = subject.loss
    total = 0.0
    with torch.no_grad():
        for batch in batches:
            given = batch if isinstance(batch, tuple) else (batch,)
            ours, theirs = model(*given), subject.model(*given)
            lost: Any = compare(ours, theirs) if callable(compare) else srn.distillation_loss(ours, theirs, compare)
            total += float(lost)
    return total
