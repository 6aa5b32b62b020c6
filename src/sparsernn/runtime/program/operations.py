"""The kinds of operations of a step program, each as the torch function that defines it.

Every entry of OPERATIONS is called with the inputs (tensors of their views' shapes, numbers, None) and the options as
keywords; it gives the output, or a tuple of outputs. Shapes, with r any leading axes:

  copy(x), unary kinds(x): elementwise; binary kinds(x, y), where(c, x, y): of equal shapes, or numbers; what is
      broadcast is so by its view, with strides of 0
  linear(x (r, in), weight (out, in), bias (out,) | None) -> (r, out)
  recurrent(x (B, in), w_ih, w_hh, b_ih | None, b_hh | None, w_hr | None, h, [c]; mode) -> h, [c]: one time step of one
      layer; rows of the weights in torch's order of the gates
  matmul(x (r, n, k), y (r, k, m)) -> (r, n, m)
  conv(x (B, C, n...), weight, bias | None; stride, padding, dilation, groups), conv_transpose(... output_padding)
  avg_pool, max_pool(x (B, C, n...); kernel, stride, padding, ...)
  softmax, log_softmax(x): along the last axis
  sum, mean, amax, amin, prod(x; axes: the last so many) -> without those axes
  normalise(x, weight | None, bias | None; axes: the last so many, eps, rms): mean 0 and variance 1, or only root mean
      square 1; then times weight plus bias, which have the shape of those axes. An eps of
      None is the epsilon of the numbers that the program is run in
  lookup(tokens (r) int, weight (n, width)) -> (r, width)
  pick(x (n, r); index: numbers of rows) -> (len(index), r)
  push(x (r)) -> (n, r): rows 1 to n - 1 move to the front, x becomes the last; the output is a state
  before(x, start (n, r) | number; until): from step `until` on x; at the steps before it, of which there are n, the
      rows of `start`, or the number. An `until` of 0 or less asks nothing of a step from 0 on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

UNARY: Mapping[str, Callable[..., Tensor]] = MappingProxyType({
    "copy": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "abs": torch.abs,
    "neg": torch.neg,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,  # approximate: "none" or "tanh"
    "elu": lambda x, alpha, scale, input_scale: torch.ops.aten.elu(x, alpha, scale, input_scale),  # selu, celu as well
    "leaky_relu": F.leaky_relu,  # negative_slope
    "clamp": torch.clamp,  # min, max, either may be None; relu6, hardtanh
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softplus": F.softplus,  # beta, threshold
    "log_sigmoid": F.logsigmoid,
    "logical_not": torch.logical_not,
})  # fmt: skip

BINARY: Mapping[str, Callable[..., Tensor]] = MappingProxyType({
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "pow": torch.pow,
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "gt": torch.gt,
    "ge": torch.ge,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "ne": torch.ne,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
})  # fmt: skip


def _recurrent(x: Tensor, *weights_and_states: Any, mode: str) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh, w_hr, *states = weights_and_states
    if mode == "LSTM":
        if w_hr is None:
            return torch.lstm_cell(x, states, w_ih, w_hh, b_ih, b_hh)
        # torch's cell knows no states that are narrower than its gates.
        sums = F.linear(x, w_ih, b_ih) + F.linear(states[0], w_hh, b_hh)
        i, f, g, o = sums.chunk(len(w_ih) // w_hr.shape[1], -1)
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return (o.sigmoid() * c.tanh()) @ w_hr.T, c
    cell = {"GRU": torch.gru_cell, "RNN_TANH": torch.rnn_tanh_cell, "RNN_RELU": torch.rnn_relu_cell}[mode]
    return (cell(x, states[0], w_ih, w_hh, b_ih, b_hh),)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
    return (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3](x, weight, bias, **options)


def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
    functions = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    return functions[x.dim() - 3](x, weight, bias, **options)


def _avg_pool(x: Tensor, *, kernel: Any, **options: Any) -> Tensor:
    return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3](x, kernel, **options)


def _max_pool(x: Tensor, *, kernel: Any, **options: Any) -> Tensor:
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3](x, kernel, **options)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes: function(x.flatten(x.dim() - axes), -1)


def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, axes: int, eps: float | None, rms: bool
) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    shape = x.shape[x.dim() - axes :]
    if not rms:
        return F.layer_norm(x, shape, weight, bias, eps)
    y = x * torch.rsqrt(x.square().flatten(x.dim() - axes).mean(-1)[(..., *[None] * axes)] + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


OPERATIONS: Mapping[str, Callable[..., Any]] = MappingProxyType({
    **UNARY,
    **BINARY,
    "where": torch.where,
    "linear": F.linear,
    "recurrent": _recurrent,
    "matmul": torch.matmul,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "sum": _reduced(torch.sum),
    "mean": _reduced(torch.mean),
    "amax": _reduced(torch.amax),
    "amin": _reduced(torch.amin),
    "prod": _reduced(torch.prod),
    "normalise": _normalise,
    "lookup": lambda tokens, weight: F.embedding(tokens, weight),
    "pick": lambda x, index: x[list(index)],
    "push": lambda x, rows: torch.cat([rows[1:], x[None]]),
    "before": lambda x, start, until: x,
})  # fmt: skip
