"""What a file of the gallery hands to the frame that all models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


def itself(model: nn.Module) -> nn.Module:
    return model


class Bar(NamedTuple):
    """What users would not notice: a metric's bound, from above or from below, and how it is written."""

    metric: str
    bound: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


class Subject(NamedTuple):
    """A model of a package.

    file, licence, bytes: whose weights they are, and what those of this net take there.
    model: its weights in modules of ours, for whole sequences; online: what of it runs step by step, whose method
    `step(x, *states)` gives one step and the next states. difference: the largest from the package's own runtime.
    calibration, training: inputs of whole sequences, none of them tested on.
    judge: a callable like `model` -> metrics on what is held out. stream: arguments of `stream` after the batch.
    frame, states: inputs of `step`, zero states by the model. rivals: one step of the package's own runtimes.
    data: where inputs come from; note: what else the page says.
    shares: of the recurrent layers' weights that stay as whole units go, and of all matrices' as single ones do.
    part: what of a model is fine-tuned, which takes what `training` holds; hidden: path in it of a layer that imitates
    the whole net's -> set of its units.
    """

    name: str
    package: str
    file: str
    licence: str
    bytes: int
    model: nn.Module
    difference: Callable[[], float]
    calibration: Sequence[Any]
    training: Sequence[Any]
    judge: Callable[[Callable[..., Any]], Mapping[str, float]]
    bar: Bar
    stream: Mapping[str, Any]
    frame: Tensor
    states: Callable[[Any], Sequence[Tensor]]
    rivals: Mapping[str, Callable[[], Any]]
    data: str
    note: str = ""
    shares: Mapping[str, Sequence[float]] = {"unit": (0.75, 0.5), "weight": (0.7, 0.5)}
    steps: int = 300
    rate: float = 1e-3
    loss: Any = "values"
    part: Callable[[Any], nn.Module] = itself
    hidden: Mapping[str, str] = {}
    online: Callable[[Any], nn.Module] = itself
