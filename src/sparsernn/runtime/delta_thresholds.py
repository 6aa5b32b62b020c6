"""`delta_thresholds`: how far inputs and states may move unseen, chosen by a loss on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from .agreement import accelerated
from .delta import Threshold
from .layers import AcceleratedModel

Thresholds = dict[str, Threshold | tuple[Threshold, Threshold]]
HALVINGS = 8


def delta_thresholds(
    model: Any, batches: Iterable[Any], loss: Callable[[Tensor, Any], Any], max_loss: float = 0.01
) -> Thresholds:
    """Thresholds for `stream(delta=)` with which the loss on `batches` rises by at most a share `max_loss`.

    Each threshold is one number s times the standard deviation of what its column multiplies, an input or a unit, over
    all steps of the batches. The loss is measured in delta streams, for s = 0, then 1, then in eight halvings between
    the largest s that was within the loss and the least that was not; the former is taken.

    model: an accelerated one, in float32, that `stream` takes as a chain. batches: validation data, each a tensor as
    the model takes it, or a tuple or list of which it is the first; rows run one by one. loss: of the outputs at every
    step, (steps, rows, features), or (rows, steps, features) of a model with batch_first, and the batch; a number, less
    is better. max_loss: 0.01 is a hundredth above the loss at s = 0.

    Returns name of a layer -> (inputs, state), of a Linear one its inputs' thresholds, each (columns,) float32. Raises
    TypeError for a model that is not accelerated, ValueError where there are no batches or no loss, RuntimeError for
    a model that is no chain.
    """
    if not isinstance(model, AcceleratedModel):
        raise TypeError(f"delta_thresholds: got {type(model).__name__}, expected a model made by accelerate.")
    if not max_loss >= 0:
        raise ValueError(f"delta_thresholds: max_loss is {max_loss!r}, expected a share from 0 on, as 0.01.")
    known = list(batches)
    if not known:
        raise ValueError("delta_thresholds: batches is empty: give the validation data on which the loss is measured.")
    time = 1 if any(getattr(module, "batch_first", False) for module in accelerated(cast(nn.Module, model))) else 0
    moments = _Moments()
    start = _measured(model, 0.0, known, loss, time, moments)
    if not math.isfinite(start):
        raise ValueError(
            f"delta_thresholds: the loss is {start} before anything is skipped: look at loss= and batches."
        )
    deviations = moments.deviations()
    least, most = 0.0, 2.0  # the first one tried is half of it
    limit = start + abs(start) * max_loss  # a loss may be negative
    for _ in range(HALVINGS + 1):
        middle = (least + most) / 2
        if _measured(model, _times(deviations, middle), known, loss, time) <= limit:
            least = middle
            if middle == 1.0:
                break
        else:
            most = middle
    return _times(deviations, least)


class _Moments:
    """Sums over the steps of what each product multiplies, which at threshold 0 is what was propagated last."""

    def __init__(self) -> None:
        self.steps, self.sums = 0, list[Tensor]()
        self.places: list[tuple[str, int]] = []

    def add(self, stream: Any) -> None:
        matrices = stream._matrices
        if not self.steps:
            self.places = matrices.places
            self.sums = [torch.zeros(2, p.columns, dtype=torch.float64, device="cpu") for p in matrices.products]
        self.steps += 1
        for total, product in zip(self.sums, matrices.products):
            x = product.last[0].double()
            total += torch.stack([x, x * x])

    def deviations(self) -> dict[tuple[str, int], Tensor]:
        means = [total / self.steps for total in self.sums]
        return {place: (m[1] - m[0] ** 2).clamp(min=0).sqrt().float() for place, m in zip(self.places, means)}


def _measured(
    model: Any, delta: Any, batches: list[Any], loss: Callable[..., Any], time: int, moments: _Moments | None = None
) -> float:
    """The mean loss of delta streams over the batches."""
    stream, total = model.stream(delta=delta), 0.0
    for batch in batches:
        x = batch if isinstance(batch, Tensor) else batch[0]
        rows = []
        for row in x.unbind(1 - time):
            stream.reset()
            outputs = []
            for step in row.unbind(0):
                outputs.append(stream.step(step[None]).clone())
                if moments is not None:
                    moments.add(stream)
            rows.append(torch.cat(outputs))
        total += float(loss(torch.stack(rows, 1 - time), batch))
    return total / len(batches)


def _times(deviations: dict[tuple[str, int], Tensor], scale: float) -> Thresholds:
    found: Thresholds = {}
    for (name, place), deviation in deviations.items():
        own = scale * deviation
        found[name] = own if place == 0 else (cast(Threshold, found.get(name, 0.0)), own)  # 0: an embedding's table
    return found
