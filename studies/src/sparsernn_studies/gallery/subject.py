"""What a file of the gallery hands to the frame that all models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

STEP = "step"


def itself(model: nn.Module) -> nn.Module:
    return model


class Bar(NamedTuple):
    """What users would not notice: a metric's bound, from above or from below, and how it is written.

    over: the bound is what may come to the original's own metric on the same items.
    """

    metric: str
    bound: float
    at_most: bool = False
    over: bool = False

    def at(self, original: float) -> float:
        """The bound, by the original's metric."""
        return round(original + self.bound, 6) if self.over else self.bound

    def holds(self, value: float, original: float = 0.0) -> bool:
        return value <= self.at(original) if self.at_most else value >= self.at(original)


class Subject(NamedTuple):
    """A model of a package.

    file, licence, bytes: whose weights they are, and what those of this net take there.
    model: its weights in modules of ours, for whole sequences; online: what of it runs step by step, whose method
    `step(x, *states)` gives one step and the next states. difference: the largest from the package's own runtime.
    calibration, training: inputs of whole sequences. judge: a callable like `model` and items -> metrics.
    validation, test: items that sizes and precisions are chosen by, and that figures are of; nothing learns from them.
    stream: arguments of `stream` after the batch. heard: inputs of steps that are tested on, one after the other;
    states: inputs of `step`, zero states by the model. rivals: one step of the package's own runtimes.
    data: where inputs come from; note: what else the page says.
    shares: of the recurrent layers' weights that stay as whole units go, and of those of the matrices `thinned` ("all",
    or patterns of parameter names) as single ones do.
    hidden: path of a layer that imitates the whole net's -> set of its units.
    call: what is timed: a step, or of a net that its package calls with whole sequences, what one of them is called.
    stepwise: of such a net that can take steps as well: what is other in a subject whose steps are timed.
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
    judge: Callable[[Callable[..., Any], Any], Mapping[str, float]]
    validation: Any
    test: Any
    bar: Bar
    stream: Mapping[str, Any]
    heard: Tensor
    states: Callable[[Any], Sequence[Tensor]]
    rivals: Mapping[str, Callable[[], Any]]
    data: str
    note: str = ""
    shares: Mapping[str, Sequence[float]] = {"unit": (0.75, 0.5), "weight": (0.7, 0.5)}
    thinned: Any = "all"
    steps: int = 300
    rate: float = 1e-3
    loss: Any = "values"
    hidden: Mapping[str, str] = {}
    online: Callable[[Any], nn.Module] = itself
    call: str = STEP
    stepwise: Mapping[str, Any] = {}

    @property
    def frame(self) -> Tensor:
        """The input of one step, or of one call."""
        return self.heard[:1]
