"""Parameters among the activations (a learned first state, a query): they have channels of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .channels import PLAIN, narrow_expanded
from .shadow import SUMMED, Weight

if TYPE_CHECKING:
    from .tracer import Tracer


def parameter_channels(tracer: Tracer, weight: Weight) -> Tensor | None:
    """Channels of `weight` along its last axis, one for each index; None where it has none."""
    number, *parts = weight
    label: Tensor | None = None
    for value in torch.unique(narrow_expanded(number)[0]).tolist():
        if value <= 0:
            continue
        axes = range(len(tracer.numbering.shapes[value]))
        last = [a for a in axes if parts[a].dim() and parts[a].shape[-1] > 1 and parts[a].stride(-1) != 0]
        if len(last) > 1:
            tracer.keep_weights([weight])
            continue
        axis = last[0] if last else len(axes) - 1
        if axis < 0 or int(narrow_expanded(parts[axis])[0].min()) == SUMMED:
            continue
        size = tracer.numbering.shapes[value][axis]
        base = tracer.channels.block(("parameter", tracer.numbering.parameter(value), axis), size, PLAIN)
        here = parts[axis] + base
        one = narrow_expanded(number)[0].numel() == 1
        here = here if one else torch.where(number == value, here, 0)
        ids = np.unique(narrow_expanded(here)[0].numpy())
        ids = ids[ids != 0]
        tracer.own(value, axis, ids - base, ids, value=True)
        label = here if label is None else torch.where(label == 0, here, label)
    return label
