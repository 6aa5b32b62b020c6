"""The time loop of one layer and direction of a recurrent highway network, plain and with a gradient of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .equations import highway
from .time_loop import over_time


@dataclass(frozen=True)
class RHNWeights:
    """weight_ih (2 H, I), for each depth weight_hh (2 H, H) and bias (2 H,) or None; rows of h before those of t."""

    ih: Tensor
    hh: list[Tensor]
    bias: list[Tensor | None]


def run_steps(w: RHNWeights, x: Tensor, sizes: list[int], state: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output and final state. x: (sum of sizes, features), sizes[t] sequences at step t, never rising. state and keep,
    which multiplies what the matrices read (None: nothing does): (batch, H).

    The input product is one for all steps, those of h and t of a depth are one.
    """
    inputs = F.linear(x, w.ih, w.bias[0])
    if _has_its_own_gradient(inputs, state, w):
        return _Steps.apply(inputs, state, keep, sizes, *w.hh, *w.bias[1:])  # type: ignore[return-value]
    columns = [weight.t() for weight in w.hh]

    def step(now: Tensor, states: list[Tensor]) -> list[Tensor]:
        (state,) = states
        for d, weight in enumerate(columns):
            seen = state if keep is None else state * keep[: len(state)]
            start = w.bias[d] if d else now
            state = highway(seen @ weight if start is None else torch.addmm(start, seen, weight), state)
        return [state]

    y, (last,) = over_time(step, inputs.split(sizes), [state])
    return y, last


def _has_its_own_gradient(inputs: Tensor, state: Tensor, w: RHNWeights) -> bool:
    """Whether a plain backward pass is what this call is for: not under autocast, transforms, compilation or a mode
    that watches the operations, for which the plain loop is right."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_any_autocast_enabled():
        return False
    if torch._C._is_torch_function_mode_enabled() or torch._C._are_functorch_transforms_active():
        return False
    return inputs.requires_grad or state.requires_grad or any(p.requires_grad for p in w.hh)


class _Steps(torch.autograd.Function):
    """All steps and depths. What reads the state is not multiplied step by step in the backward pass: each matrix gets
    its gradient by one product over all steps.

    inputs: (rows, 2 H), rows[t] sequences at step t one after the other; parameters: weight_hh of every depth, then the
    biases of all but the first one.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, state: Tensor, keep: Tensor | None, rows: list[int], *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        depth, width = (len(parameters) + 1) // 2, state.shape[1]
        columns = [weight.t() for weight in parameters[:depth] if weight is not None]
        biases, whole_keep = parameters[depth:], keep
        gates = inputs.new_empty(depth, len(inputs), 2 * width)
        states = inputs.new_empty(depth + 1, len(inputs), width)  # before each depth; the last one is the output
        gates_DT, h_DT, t_DT, states_DT = (
            [each.split(rows) for each in whole.unbind(0)]
            for whole in (gates, gates[..., :width], gates[..., width:], states)
        )
        last = torch.empty_like(state)
        before = state
        for step, (size, now) in enumerate(zip(rows, inputs.split(rows))):
            if size < len(before):
                last[size : len(before)] = before[size:]
                keep = None if keep is None else keep[:size]
            before = states_DT[0][step].copy_(before[:size])
            for d, weight in enumerate(columns):
                seen = before if keep is None else before * keep
                start, both = biases[d - 1] if d else now, gates_DT[d][step]
                torch.mm(seen, weight, out=both) if start is None else torch.addmm(start, seen, weight, out=both)
                h, t = h_DT[d][step].tanh_(), t_DT[d][step].sigmoid_()
                before = torch.lerp(before, h, t, out=states_DT[d + 1][step])
        last[: len(before)] = before
        ctx.save_for_backward(gates, states, *(() if whole_keep is None else (whole_keep,)), *parameters[:depth])
        ctx.rows, ctx.depth, ctx.biases = rows, depth, [bias is not None for bias in biases]
        ctx.kept = whole_keep is not None
        # What is saved may not be an output, which others may change.
        return states[depth].clone(), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_output, of_last = outer
        gates, states, *rest = ctx.saved_tensors
        keep = rest.pop(0) if ctx.kept else None
        rows, depth, width = ctx.rows, ctx.depth, states.shape[2]
        # All that does not depend on what comes from behind, for all steps at once: the derivatives of the new state
        # with respect to the pre-activations of h and t, side by side, and to the old state along the carry.
        h, t = gates[..., :width], gates[..., width:]
        shut = 1 - t
        slopes = torch.stack([t * (1 - h * h), (h - states[:depth]) * t * shut], -2)
        of_gates = torch.empty_like(slopes)
        slopes_DT, shut_DT, of_gates_DT, flat_DT = (
            [each.split(rows) for each in whole.unbind(0)] for whole in (slopes, shut, of_gates, of_gates.flatten(-2))
        )
        of_output_T = of_output.split(rows)
        of_state = of_last[:0]
        for step in reversed(range(len(rows))):
            size = rows[step]
            if size > len(of_state):  # sequences that end at this step
                of_state = torch.cat([of_state, of_last[len(of_state) : size]])
            of_state = of_state + of_output_T[step]
            for d in reversed(range(depth)):
                torch.mul(of_state.unsqueeze(1), slopes_DT[d][step], out=of_gates_DT[d][step])
                carried = of_state * shut_DT[d][step]
                if keep is None:
                    of_state = torch.addmm(carried, flat_DT[d][step], rest[d])
                else:
                    of_state = torch.addcmul(carried, flat_DT[d][step] @ rest[d], keep[:size])
        seen = states[:depth]
        if keep is not None:
            seen = seen * torch.cat([keep[:size] for size in rows])
        flat = of_gates.flatten(-2)
        of_weights = torch.bmm(flat.transpose(1, 2), seen).unbind(0)
        of_biases = [flat[d].sum(0) if there else None for d, there in enumerate(ctx.biases, 1)]
        return flat[0], of_state, None, None, *of_weights, *of_biases
