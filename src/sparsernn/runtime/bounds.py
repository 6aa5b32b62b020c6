"""How far weights in bfloat16 or int8 can lead a model from its float32 self, over all inputs.

A recurrent net may carry the smallest rounding as far as its states reach, so the only bound that holds for every
sequence is that of the states themselves: units of LSTM, GRU, tanh RNN and RHN stay within -1 and 1 (from states of
zero), hence at most 2 from each other. From there on the bound goes through the layers behind, with what each of their
own products adds. It is wide: what inputs of a kind really lose is measured, not derived.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..structure.coded import dense
from .agreement import accelerated, twin
from .held import Precision
from .modules import Accelerated
from .recording import record
from .weights import layer_weights, linear_names, linear_weight, parts_of

_HALF = 2.0**-8  # largest relative error of a float32 rounded to bfloat16
_FLOAT = 1e-5  # share of a value that float32 itself may lose, as the runtime promises
Reach = tuple[Tensor, Tensor]  # for each feature the largest |value| and the largest error


def error_bound(model: Any, example: Any) -> float | None:
    """The largest absolute difference of the output of an accelerated model from that in float32, for any finite input.

    Of any length, from states of zero; the output is that of the last part of the chain (`Stream` says what a chain is;
    here layers of both directions may stand in it). None for a model in float32, for one that is no chain, and where
    the output has no bound (a recurrent layer with relu).
    """
    engines = [module._engine for module in accelerated(model)]
    x = example[0] if isinstance(example, tuple) and len(example) == 1 else example
    if all(engine.precision == "float32" for engine in engines) or not isinstance(x, Tensor):
        return None
    try:
        parts, _ = record(twin(model), x)
    except (RuntimeError, TypeError):  # no chain, or one that can't be copied
        return None
    unknown = torch.full((1,), torch.inf, dtype=torch.float64, device="cpu")
    reach = (unknown, torch.zeros_like(unknown))
    for _, part in parts:
        reach = _after(part, *reach)
    size, error = reach
    bound = float((error + _FLOAT * size.clamp(min=1)).max())
    return bound if bound < torch.inf else None


def _after(part: Any, size: Tensor, error: Tensor) -> Reach:
    if part == "relu":
        return size, error
    if part == "tanh":
        return size.clamp(max=1), error.clamp(max=2)
    if part == "sigmoid":
        return torch.ones_like(size), (error / 4).clamp(max=1)
    if isinstance(part, nn.Embedding):
        size = part.weight.detach().double().abs().amax(0)
        return size, torch.zeros_like(size)
    if linear_names(part):
        bias = None if part.bias is None else part.bias.detach()
        precision = part._engine.precision if isinstance(part, Accelerated) else "float32"
        outer, *inner = map(dense, parts_of(linear_weight(part)))
        for weight in inner:
            size, error = _product(weight, None, size, error, precision)
            size = size + error  # the outer one rounds what the inner one gives
        return _product(outer, bias, size, error, precision)
    assert isinstance(part, Accelerated)
    found = layer_weights(part)  # type: ignore[arg-type]
    last = [weights for weights in found if weights.layer == found[-1].layer]
    reaches = []
    for weights in last:
        one = torch.ones(weights.hidden_size, dtype=torch.float64, device="cpu")
        own = (one * torch.inf, one * torch.inf) if weights.kind == "RNN_RELU" else (one, 2 * one)
        hr = None if weights.hr is None else dense(weights.hr)
        reaches.append(own if hr is None else _product(hr, None, *own, part._engine.precision))
    sizes, errors = zip(*reaches)
    return torch.cat(sizes), torch.cat(errors)


def _product(weight: Tensor, bias: Tensor | None, size: Tensor, error: Tensor, precision: Precision) -> Reach:
    weight = weight.double().abs()
    outputs, inputs = weight.shape
    size, error = size.expand(inputs), error.expand(inputs)
    if not bool(size.isfinite().all()):
        # Rounding in proportion to a value without bound has none itself.
        lost = 0.0 if precision == "float32" and not bool(error.any()) else torch.inf
        return weight.new_full((outputs,), torch.inf), weight.new_full((outputs,), lost)
    far = weight @ error + product_error(weight, size, precision)
    start = 0.0 if bias is None else bias.double().abs()
    return weight @ size + start, far


def product_error(weight: Tensor, size: Tensor, precision: Precision) -> Tensor:
    """For each row of `weight` (O, I) the most that its product with an x of |x| <= size (I,) is off.

    bfloat16: each weight by 2^-8 of itself. int8: each weight by half a step of its row, each input by half a step of
    the vector, zeros by nothing; single weights of sparse rows may be kept in bfloat16 then, their inputs exact.
    """
    weight = weight.double().abs()
    if precision == "float32":
        return weight.new_zeros(len(weight))
    if precision == "bfloat16":
        return _HALF * (weight @ size)
    step, input_step = weight.amax(1, keepdim=True) / 127, size.max() / 127
    there = (weight > 0).double() * step / 2
    whole = weight @ torch.full_like(size, float(input_step) / 2) + there @ (size + input_step / 2)
    half = there @ size + _HALF * ((weight + there) @ size)
    return torch.maximum(half, whole)
