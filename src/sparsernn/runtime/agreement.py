"""Whether a stream gives step by step what its model gives over a whole sequence."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from .._modules import copied
from .._twins import near
from .held import Precision
from .modules import Accelerated
from .recording import NotAChain


class Steps(Protocol):
    @property
    def output_size(self) -> int: ...
    def step(self, x: Tensor) -> Tensor: ...


def twin(model: nn.Module, precision: Precision | None = None) -> nn.Module:
    """A copy on the model's own weights and, unless in another `precision`, its own packed layers.

    In int8 a step may have other layouts than a sequence, and so other roundings, which a recurrent net may carry far:
    whether a model is a chain is judged in float32.
    """
    shared: dict[int, Any] = {id(p): p for p in model.parameters()}
    if precision is None:
        shared |= {id(m._engine): m._engine for m in accelerated(model)}
    other = copied(model, shared)
    for module in accelerated(other) if precision is not None else []:
        module._engine.precision = precision
    return other


def accelerated(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(cast(Any, m), Accelerated)]


def verify(stream: Steps, x: Tensor, whole: Tensor, time: int) -> None:
    """NotAChain unless step by step gives what the whole sequence `x` gave."""
    outputs = [stream.step(step.contiguous()).clone() for step in x.unbind(time)]
    if whole.numel() == outputs[0].numel():
        got, want = outputs[-1], whole.reshape(outputs[-1].shape)
    elif whole.numel() == len(outputs) * outputs[0].numel():
        got = torch.stack(outputs, time)
        want = whole.reshape(got.shape)
    else:
        raise NotAChain(f"its output {tuple(whole.shape)} is not one row of {stream.output_size} for each step")
    if bool(want.isnan().any()):
        raise NotAChain("its output on the example holds NaN, by which nothing can be compared")
    if not near([got], [want], 1e-4):
        raise NotAChain("step by step it gives other numbers than over the whole sequence")
