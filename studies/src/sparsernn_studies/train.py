"""Training for a number of steps of whatever gives a batch and a loss for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from .loop import History, Loop
from .settings import Count, Positive, Whole, settings


class Objective(Protocol):
    """What is trained: `batch` gives the data of a step, which may depend on nothing but the step's number."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any: ...

    def loss(self, model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Later:
    """The same objective as it is `by` steps on: a second training reads what the first has not read."""

    objective: Objective
    by: int

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any:
        return self.objective.batch(self.by + step, rank, world)

    def loss(self, model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]:
        return self.objective.loss(model, batch, state)


@settings
class Training:
    """How long and how fast: AdamW, RMSprop or Adadelta, linear warm-up, cosine to `final_rate` of the learning rate.

    `precision` "bfloat16" runs forward and backward products in bfloat16 (autocast), weights stay in float32.
    `device` "any" takes a GPU if there is one.
    """

    steps: Count
    learning_rate: Positive = 3e-3
    warm_up: Whole = 100
    final_rate: float = 0.02
    weight_decay: float = 0.0
    clip: Positive = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 500
    optimizer: Literal["adamw", "rmsprop", "adadelta"] = "adamw"

    def rate(self, step: int) -> float:
        """Share of the learning rate that holds at `step`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        share = min(1.0, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * share))


def train(
    model: nn.Module, objective: Objective, settings: Training, *, name: str = "training", **more: Any
) -> History:
    """Train `model` in place for `settings.steps` steps and return the course.

    `seed` decides all random numbers (0). `sparsify` makes the sparsifier, which is attached to the optimizer. `folder`
    receives `checkpoint.safetensors`, from which a call with the same arguments goes on; `begin` is a checkpoint to
    start from where `folder` has none (a training without a sparsifier, say). `milestones`: step -> where a copy of the
    checkpoint is to be kept. `until` is asked after each step, with the number of steps done; training ends early where
    it says yes.

    Raises Diverged when the loss is not finite (the message names step and last good checkpoint), Stopped after
    SIGTERM or Ctrl-C (a good checkpoint is then in `folder`), CheckpointError where a checkpoint is not of this
    training. The model then keeps what it has learnt so far.
    """
    loop = Loop(model, objective, settings, **more)
    loop.train(name)
    return loop.history
