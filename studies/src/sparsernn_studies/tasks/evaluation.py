"""Measuring a model: in eval mode, without gradients, and then left as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context of `model` in eval mode, without gradients; afterwards its training mode is what it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def share_right(model: nn.Module, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> float:
    """Share of examples whose class is right. Each batch: what the model maps to logits_BC, and classes_B."""
    right, total = 0, 0
    with evaluating(model):
        for inputs, classes_B in batches:
            right += int((model(*inputs).argmax(1).cpu() == classes_B).sum())
            total += len(classes_B)
    return right / max(1, total)
