"""Whether a stream gives step by step what its model gives over a whole sequence."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .modules import Accelerated
from .recording import NotAChain


class Steps(Protocol):
    @property
    def output_size(self) -> int: ...
    def step(self, x: Tensor) -> Tensor: ...
    def reset(self) -> None: ...


def verify(stream: Steps, model: nn.Module, x: Tensor, whole: Tensor, time: int) -> None:
    """NotAChain unless step by step gives what the whole sequence `x` gave.

    In int8 a step may have other layouts than a sequence, and so other roundings: one step is compared with a sequence
    of one step, which has the same, and the whole sequence within the error of int8.
    """
    near = 1e-4
    if any(isinstance(m, Accelerated) and m._engine.precision == "int8" for m in model.modules()):
        first = x.narrow(time, 0, 1)
        with torch.no_grad():
            _compare(stream, first, model(first), time, near)
        stream.reset()
        near = 0.05
    _compare(stream, x, whole, time, near)


def _compare(stream: Steps, x: Tensor, whole: Tensor, time: int, near: float) -> None:
    outputs = [stream.step(step.contiguous()).clone() for step in x.unbind(time)]
    if whole.numel() == outputs[0].numel():
        got, want = outputs[-1], whole.reshape(outputs[-1].shape)
    elif whole.numel() == len(outputs) * outputs[0].numel():
        got = torch.stack(outputs, time)
        want = whole.reshape(got.shape)
    else:
        raise NotAChain(f"its output {tuple(whole.shape)} is not one row of {stream.output_size} for each step")
    size = max(1.0, float(want.abs().max()))
    if not float((got - want).abs().max()) <= near * size:
        raise NotAChain("step by step it gives other numbers than over the whole sequence")
