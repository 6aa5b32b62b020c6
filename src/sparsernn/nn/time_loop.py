"""Loops over time in Python: one layer and direction, steps one after the other as in a PackedSequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structure.cells import Cell
from .equations import step as next_states

Step = Callable[[Tensor, list[Tensor]], list[Tensor]]
Run = Callable[[Tensor, list[int]], tuple[Tensor, list[Tensor]]]


def over_time(step: Step, inputs: Iterable[Tensor], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs (the first state after each step) one after the other, and the final states.

    inputs: of each step, as many sequences as go on, never rising; states: each (batch, width).
    """
    outputs: list[Tensor] = []
    ended: list[list[Tensor]] = []
    for now in inputs:
        if len(now) < len(states[0]):
            ended.append([state[len(now) :] for state in states])
            states = [state[: len(now)] for state in states]
        states = step(now, states)
        outputs.append(states[0])
    return torch.cat(outputs), [torch.cat(parts) for parts in zip(states, *reversed(ended))]


def flattened(
    run: Run, x: Tensor, batch_sizes: Tensor | None, batch: int, batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """What `run` gives for the steps of `x` one after the other and the sequences of each; the output shaped as x."""
    if batch_sizes is not None:
        return run(x, batch_sizes.tolist())
    x = x.transpose(0, 1) if batch_first else x
    if len(x) == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    y, finals = run(x.flatten(0, 1), [batch] * len(x))
    y = y.unflatten(0, (len(x), batch))
    return (y.transpose(0, 1) if batch_first else y), finals


def run_cell(
    cell: Cell,
    weights: Sequence[Any],
    x: Tensor,
    sizes: list[int],
    states: list[Tensor],
    product: Callable[..., Tensor] = F.linear,
) -> tuple[Tensor, list[Tensor]]:
    """A cell by its equations. weights: weight_ih, weight_hh, bias_ih, bias_hh, and weight_hr where there is one;
    product(x, weight, bias): how they are multiplied with."""
    weight_ih, weight_hh, bias_ih, bias_hh, *projection = weights

    def step(now: Tensor, before: list[Tensor]) -> list[Tensor]:
        h, *others = next_states(cell, now, product(before[0], weight_hh, bias_hh), before)
        for weight_hr in projection:
            h = product(h, weight_hr, None)
        return [h, *others]

    return over_time(step, product(x, weight_ih, bias_ih).split(sizes), states)
