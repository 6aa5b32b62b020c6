"""A plain RNN layer with multipliers, forward and backward by hand, as in `lstm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .lstm import Layer, blocks, scaled, steps, summed_bias, tanh_backward, through_input, through_state

threshold_backward: Any = torch.ops.aten.threshold_backward.grad_input


def run_rnn(layer: Layer, x_NI: Tensor, sizes: tuple[int, ...], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output (N, K) and the final h, (B, K)."""
    each = (layer.input_BI, layer.gate_BG, layer.unit_BK)
    if x_NI.dtype != layer.weight_ih.dtype:  # under autocast
        x_NI = x_NI.to(layer.weight_ih.dtype)
    relu = layer.mode == "RNN_RELU"
    out, h = _RNN.apply(  # type: ignore[misc]
        x_NI, layer.weight_ih, layer.weight_hh, summed_bias(layer), *each, *states, sizes, relu
    )
    return out, [h]


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight_ih, weight_hh, bias, by_input, by_gate, by_unit, h_0, sizes, relu):
        k, rows = weight_hh.shape[1], len(x)
        product = x.new_empty(rows, k)
        for at, some in blocks(sizes):
            torch.mm(scaled(x[at], by_input, some), weight_ih.t(), out=product[at])
        act = product if by_gate is None else torch.empty_like(product)
        out = act if by_unit is None else torch.empty_like(act)
        read, turned, ends = h_0, weight_hh.t(), h_0.clone()
        for at in steps(sizes):
            size = at.stop - at.start
            now, curved = product[at].addmm_(read[:size], turned), act[at]
            if by_gate is None:
                curved.add_(bias)
            else:
                torch.addcmul(bias, now, by_gate[:size], out=curved)
            curved.relu_() if relu else curved.tanh_()
            if by_unit is not None:
                torch.mul(curved, by_unit[:size], out=out[at])
            read = out[at]
            ends[:size] = read
        ctx.save_for_backward(x, weight_ih, weight_hh, by_input, by_gate, by_unit, h_0, out)
        # The output itself is not kept here: node and output would hold each other.
        kept = None if by_gate is None else product, None if by_unit is None else act
        ctx.sizes, ctx.relu, ctx.buffers = sizes, relu, kept
        return out, ends

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.buffers is None:
            raise RuntimeError(
                "A noisy RNN's backward pass uses up what its forward kept, so it can't run twice.\n"
                "Run the model again, or take the second gradient without noise (model.eval())."
            )
        x, weight_ih, weight_hh, by_input, by_gate, by_unit, h_0, out = ctx.saved_tensors
        (product, act), ctx.buffers = ctx.buffers, None
        act = out if act is None else act
        deltas = torch.empty_like(out) if product is None else product
        d_h = d_h.clone()
        d_gate = None if by_gate is None else torch.zeros_like(by_gate)
        d_unit = None if by_unit is None else torch.zeros_like(by_unit)
        d_bias = torch.zeros_like(d_h)
        delta = torch.empty_like(d_h)
        for at in reversed(list(steps(ctx.sizes))):
            size = at.stop - at.start
            here, now, curved = d_h[:size].add_(d_out[at]), delta[:size], act[at]
            if d_unit is not None and by_unit is not None:
                d_unit[:size].addcmul_(here, curved)
                here.mul_(by_unit[:size])
            if ctx.relu:
                threshold_backward(here, curved, 0, grad_input=now)
            else:
                tanh_backward(here, curved, grad_input=now)
            d_bias[:size].add_(now)
            if d_gate is None or by_gate is None or product is None:
                deltas[at].copy_(now)
            else:
                d_gate[:size].addcmul_(now, product[at])
                torch.mul(now, by_gate[:size], out=deltas[at])
            torch.mm(deltas[at], weight_hh, out=here)
        d_x, d_input, d_ih = through_input(ctx.needs_input_grad[0], x, weight_ih, by_input, deltas, ctx.sizes)
        d_hh = through_state(deltas, out, h_0, ctx.sizes)
        return d_x, d_ih, d_hh, d_bias.sum(0), d_input, d_gate, d_unit, d_h, None, None
