"""An LSTM layer with multipliers, forward and backward by hand: one node of the graph instead of thousands.

Large buffers are what such a layer pays for most, since fresh memory has to be mapped page by page; so products are
overwritten by activations and derivatives where they lie, and the input's share goes in blocks of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...structure.cells import LSTM

BLOCK = 2048  # rows, steps times sequences, of one product with the input

sigmoid_backward: Any = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward: Any = torch.ops.aten.tanh_backward.grad_input


@dataclass(frozen=True)
class Layer:
    """Sampled weights of one layer and direction, and the multipliers of each sequence."""

    mode: str  # LSTM, GRU, RNN_TANH or RNN_RELU
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    input_BI: Tensor | None
    gate_BG: Tensor | None
    unit_BK: Tensor | None


def steps_of(each: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each sequence's row at each of its steps, in the order of packed data."""
    return torch.cat([each[:size] for size in sizes])


def summed_bias(layer: Layer) -> Tensor:
    """Both biases as one, zeros where there are none."""
    if layer.bias_ih is None or layer.bias_hh is None:
        return layer.weight_ih.new_zeros(len(layer.weight_ih))
    return layer.bias_ih + layer.bias_hh


def run_lstm(layer: Layer, x_NI: Tensor, sizes: tuple[int, ...], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output (N, K) and final h and c, each (B, K)."""
    each = (layer.input_BI, layer.gate_BG, layer.unit_BK)
    if x_NI.dtype != layer.weight_ih.dtype:  # under autocast
        x_NI = x_NI.to(layer.weight_ih.dtype)
    out, h, c = _LSTM.apply(x_NI, layer.weight_ih, layer.weight_hh, summed_bias(layer), *each, *states, sizes)  # type: ignore[misc]
    return out, [h, c]


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight_ih, weight_hh, bias, by_input, by_gate, by_unit, h_0, c_0, sizes):
        k, rows = weight_hh.shape[1], len(x)
        product = x.new_empty(rows, len(weight_ih))
        for at, some in blocks(sizes):
            torch.mm(scaled(x[at], by_input, some), weight_ih.t(), out=product[at])
        act = product if by_gate is None else torch.empty_like(product)
        cell, curved, out = (x.new_empty(rows, k) for _ in range(3))
        read, c = h_0, c_0
        turned = weight_hh.t()
        ends_h, ends_c = h_0.clone(), c_0.clone()
        for at in steps(sizes):
            size = at.stop - at.start
            product[at].addmm_(read[:size], turned)
            if by_gate is None:
                act[at].add_(bias)
            else:
                torch.addcmul(bias, product[at], by_gate[:size], out=act[at])
            i, f, g, o = gates = act[at].split(k, 1)
            for gate, activation in zip(gates, LSTM.activations):
                getattr(torch, activation)(gate, out=gate)
            torch.mul(f, c[:size], out=cell[at]).addcmul_(i, g)
            torch.tanh(cell[at], out=curved[at])
            torch.mul(o, curved[at], out=out[at])
            if by_unit is not None:
                out[at].mul_(by_unit[:size])
            read, c = out[at], cell[at]
            ends_h[:size], ends_c[:size] = read, c
        ctx.save_for_backward(x, weight_ih, weight_hh, by_input, by_gate, by_unit, h_0, c_0, out)
        ctx.sizes, ctx.buffers = sizes, (product, act, cell, curved)
        return out, ends_h, ends_c

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.buffers is None:
            raise RuntimeError(
                "A noisy LSTM's backward pass uses up what its forward kept, so it can't run twice.\n"
                "Run the model again, or take the second gradient without noise (model.eval())."
            )
        x, weight_ih, weight_hh, by_input, by_gate, by_unit, h_0, c_0, out = ctx.saved_tensors
        (product, act, cell, curved), ctx.buffers = ctx.buffers, None
        k = weight_hh.shape[1]
        d_h, d_c = d_h.clone(), d_c.clone()
        d_gate = None if by_gate is None else torch.zeros_like(by_gate)
        d_unit = None if by_unit is None else torch.zeros_like(by_unit)
        d_bias = act.new_zeros(len(d_h), len(weight_ih))
        delta = act.new_empty(len(d_h), len(weight_ih))
        places = list(steps(ctx.sizes))
        for t in range(len(places) - 1, -1, -1):
            at, size = places[t], ctx.sizes[t]
            now = delta[:size]
            i, f, g, o = act[at].split(k, 1)
            d_i, d_f, d_g, d_o = now.split(k, 1)
            here, slope = d_h[:size].add_(d_out[at]), d_c[:size]
            if d_unit is not None and by_unit is not None:
                d_unit[:size].addcmul_(here, o * curved[at])
                here.mul_(by_unit[:size])
            sigmoid_backward(here * curved[at], o, grad_input=d_o)
            slope.add_(torch.ops.aten.tanh_backward(here.mul_(o), curved[at]))
            before = c_0[:size] if t == 0 else cell[places[t - 1]][:size]
            sigmoid_backward(slope * g, i, grad_input=d_i)
            sigmoid_backward(slope * before, f, grad_input=d_f)
            tanh_backward(slope * i, g, grad_input=d_g)
            slope.mul_(f)
            d_bias[:size].add_(now)
            if d_gate is None or by_gate is None:
                product[at].copy_(now)
            else:
                d_gate[:size].addcmul_(now, product[at])
                torch.mul(now, by_gate[:size], out=product[at])
            torch.mm(product[at], weight_hh, out=here)
        d_x, d_input, d_ih = through_input(ctx.needs_input_grad[0], x, weight_ih, by_input, product, ctx.sizes)
        d_hh = through_state(product, out, h_0, ctx.sizes)
        return d_x, d_ih, d_hh, d_bias.sum(0), d_input, d_gate, d_unit, d_h, d_c, None


def through_input(
    wanted: bool, x: Tensor, weight_ih: Tensor, by_input: Tensor | None, deltas: Tensor, sizes: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Derivatives of the input, its multipliers and weight_ih from those of the products, block by block."""
    d_x = torch.empty_like(x) if wanted else None
    d_input = None if by_input is None else torch.zeros_like(by_input)
    d_ih = torch.zeros_like(weight_ih)
    for at, some in blocks(sizes):
        d_ih.addmm_(deltas[at].t(), scaled(x[at], by_input, some))
        if d_x is None and d_input is None:
            continue
        through = deltas[at] @ weight_ih
        if d_input is not None:
            begin = at.start
            for step in steps(some):
                d_input[: step.stop - step.start].addcmul_(through[step], x[begin + step.start : begin + step.stop])
        if d_x is not None:
            d_x[at] = scaled(through, by_input, some)
    return d_x, d_input, d_ih


def through_state(deltas: Tensor, out: Tensor, h_0: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The derivative of weight_hh: each step's products read the outputs of the step before."""
    first = sizes[0]
    found = deltas[:first].t() @ h_0
    if sizes[-1] == first:
        return found.addmm_(deltas[first:].t(), out[: len(out) - first])
    for before, at in pairwise(steps(sizes)):
        found.addmm_(deltas[at].t(), out[before][: at.stop - at.start])
    return found


def scaled(x: Tensor, each: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
    if each is None:
        return x
    if sizes[0] == sizes[-1]:
        return (x.view(len(sizes), sizes[0], -1) * each[: sizes[0]]).view(x.shape)
    return x * steps_of(each, sizes)


def steps(sizes: Sequence[int]) -> Iterator[slice]:
    begin = 0
    for size in sizes:
        yield slice(begin, begin + size)
        begin += size


def blocks(sizes: tuple[int, ...]) -> Iterator[tuple[slice, tuple[int, ...]]]:
    """Rows and sizes of several steps at once."""
    begin = end = first = 0
    for t, size in enumerate(sizes):
        end += size
        if end - begin >= BLOCK or t == len(sizes) - 1:
            yield slice(begin, end), sizes[first : t + 1]
            begin, first = end, t + 1
