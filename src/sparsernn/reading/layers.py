"""Nodes with weights as layers of torch: linear, convolutions, norms, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .builder import Builder, builds
from .graph import Node, refuse
from .operators.padding import around
from .operators.table import operator
from .steps import Step


@builds("MatMul")
def matmul(b: Builder, node: Node) -> list[Step] | None:
    """x W, with the sum that follows it as the bias, is a linear layer."""
    x, w = node.inputs
    if w not in b.constants or x in b.constants or b.constants[w].ndim != 2 or b.constants[w].dtype.kind != "f":
        return None
    bias, output = _bias_behind(b, node.outputs[0], b.constants[w].shape[1])
    return _linear(b, node, x, b.parameter(w, turned=True), w, bias, output)


@builds("Gemm")
def gemm(b: Builder, node: Node) -> list[Step] | None:
    x, w, *rest = node.inputs
    bias = b.constants.get(rest[0]) if rest and rest[0] else None
    if w not in b.constants or x in b.constants or b.constants[w].ndim != 2 or node.get("transA", 0):
        return None
    if rest and rest[0] and (bias is None or bias.size not in (1, bias.shape[-1] if bias.ndim else 1)):
        return None
    alpha, beta, turned = node.get("alpha", 1.0), node.get("beta", 1.0), not node.get("transB", 0)
    array = b.constants[w].T if turned else b.constants[w]
    weight = b.parameter(w, turned) if alpha == 1 else b.made(array * array.dtype.type(alpha), w)
    own = None
    if bias is not None:
        spread = np.broadcast_to(bias.reshape(-1) * bias.dtype.type(beta), len(array))
        own = b.parameter(rest[0]) if bias.shape == (len(array),) and beta == 1 else b.made(spread, rest[0])
    return _linear(b, node, x, weight, w, own, node.outputs[0])


def _linear(b: Builder, node: Node, x: str, weight: Any, name: str, bias: Any, output: str) -> list[Step]:
    out, size = weight.shape
    weights = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    module = b.layer(lambda: nn.Linear(size, out, bias is not None, device="meta"), weights, name, node)
    return [Step("Linear", node.name, (b.operand(x),), (output,), module=module)]


@operator("Linear", "Embedding", "BatchNormalization", "LayerNorm", module=True)
def call(step: Step, module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def _bias_behind(b: Builder, output: str, size: int) -> tuple[nn.Parameter | None, str]:
    """The constant that alone is added to a value, which then is a bias, and the name of the sum."""
    reader = b.only_reader(output)
    if reader is None or reader.op != "Add":
        return None, output
    other = reader.inputs[1] if reader.inputs[0] == output else reader.inputs[0]
    array = b.constants.get(other)
    if array is None or array.shape not in ((size,), (1, size)):
        return None, output
    b.done.add(id(reader))
    return (b.parameter(other) if array.ndim == 1 else b.made(array.reshape(-1), other)), reader.outputs[0]


@builds("Gather")
def embedding(b: Builder, node: Node) -> list[Step] | None:
    table, places = node.inputs
    array = b.constants.get(table)
    if array is None or array.ndim != 2 or array.dtype.kind != "f" or node.get("axis", 0) or places in b.constants:
        return None
    rows, width = array.shape
    weights = {"weight": b.parameter(table)}
    module = b.layer(lambda: nn.Embedding(rows, width, device="meta"), weights, table, node)
    return [Step("Embedding", node.name, (b.operand(places),), node.outputs[:1], module=module)]


_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}


@builds("Conv", "ConvTranspose")
def convolution(b: Builder, node: Node) -> list[Step]:
    weight = b.fixed(node, 1, "weight")
    if weight.ndim not in _CONVOLUTIONS:
        raise refuse(node.title, f"has a weight of shape {weight.shape}; expected 1 to 3 axes of a window.")
    ones = (1,) * (weight.ndim - 2)
    groups, pads = node.get("group", 1), tuple(node.get("pads", (0,) * 2 * len(ones)))
    begin, end = pads[: len(ones)], pads[len(ones) :]
    options: dict[str, Any] = {
        "kernel_size": weight.shape[2:], "stride": tuple(node.get("strides", ones)), "groups": groups,
        "dilation": tuple(node.get("dilations", ones)), "bias": bool(node.input(2)),
    }  # fmt: skip
    plain = node.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    more: dict[str, Any] = {}
    if plain and begin == end and min(begin, default=0) >= 0:
        options["padding"] = begin
    else:
        more = {"pads": pads, "auto_pad": node.get("auto_pad", "NOTSET")}
    if node.op == "Conv":
        make, channels = _CONVOLUTIONS[weight.ndim], (weight.shape[1] * groups, weight.shape[0])
    else:
        if not plain or "output_shape" in node.attributes:
            raise refuse(node.title, "pads to a size that it is told (auto_pad, output_shape), which is not read.")
        make, channels = _TRANSPOSED[weight.ndim], (weight.shape[0], weight.shape[1] * groups)
        options["output_padding"] = tuple(node.get("output_padding", (0,) * len(ones)))
    weights = {"weight": b.parameter(node.input(1))}
    if options["bias"]:
        b.fixed(node, 2, "bias")
        weights["bias"] = b.parameter(node.input(2))
    module = b.layer(lambda: make(*channels, **options, device="meta"), weights, node.input(1), node)
    return [b.step(node, module, node.inputs[:1], node.outputs, **more)]


@operator("Conv", module=True)
def convolve(step: Step, module: Any, x: Tensor) -> Tensor:
    if step.attributes:
        x = around(x, step, list(module.kernel_size), list(module.stride), list(module.dilation), 0.0)
    return module(x)


@operator("ConvTranspose", module=True)
def convolve_transposed(step: Step, module: nn.Module, x: Tensor) -> Tensor:
    y = module(x)
    pads = step.get("pads", ())
    for axis, (begin, end) in enumerate(zip(pads, pads[len(pads) // 2 :])):
        y = y.narrow(axis + 2, begin, y.shape[axis + 2] - begin - end)
    return y


@builds("BatchNormalization")
def batch_norm(b: Builder, node: Node) -> list[Step]:
    if node.get("training_mode", 0):
        raise refuse(node.title, "is in training mode.", "Export the model in eval mode.")
    scale, bias, mean, variance = (b.fixed(node, n, "statistic") for n in range(1, 5))
    kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    kind = kinds[_axes_before(b, node.input(0))]
    eps, momentum = node.get("epsilon", 1e-5), 1 - node.get("momentum", 0.9)
    weights = {"weight": b.parameter(node.input(1)), "bias": b.parameter(node.input(2))}

    def make() -> nn.Module:
        made = kind(len(scale), eps, momentum, device="meta")
        made.running_mean, made.running_var = torch.from_numpy(mean.copy()), torch.from_numpy(variance.copy())
        made.num_batches_tracked = torch.zeros((), dtype=torch.int64)
        return made

    if len(bias) != len(scale) or len(mean) != len(scale) or len(variance) != len(scale):
        raise refuse(node.title, "has statistics of unequal length.")
    module = b.layer(make, weights, node.input(1), node, also=node.inputs[1:])
    return [b.step(node, module, node.inputs[:1], node.outputs[:1])]


def _axes_before(b: Builder, name: str) -> int:
    """How many axes a window has at the convolution that a value comes from; 1 where there is none."""
    for _ in range(20):
        maker = b.makers.get(name)
        if maker is None:
            break
        if maker.op in ("Conv", "ConvTranspose"):
            return min(max(b.fixed(maker, 1, "weight").ndim - 2, 1), 3)
        name = maker.inputs[0] if maker.inputs else ""
    given = next((g for g in b.folded.inputs if g.name == name and g.shape is not None), None)
    return 1 if given is None or given.shape is None else min(max(len(given.shape) - 2, 1), 3)


@builds("LayerNormalization")
def layer_norm(b: Builder, node: Node) -> list[Step] | None:
    scale = b.constants.get(node.input(1))
    if any(node.outputs[1:]) or scale is None or node.get("axis", -1) != -scale.ndim:
        return None
    bias = b.constants.get(node.input(2))
    if (node.input(2) and bias is None) or (bias is not None and bias.shape != scale.shape):
        return None
    eps, shape = node.get("epsilon", 1e-5), list(scale.shape)
    weights = {"weight": b.parameter(node.input(1))}
    if bias is not None:
        weights["bias"] = b.parameter(node.input(2))

    def make() -> nn.Module:
        return nn.LayerNorm(shape, eps, bias=bias is not None, device="meta")

    module = b.layer(make, weights, node.input(1), node)
    return [Step("LayerNorm", node.name, (b.operand(node.input(0)),), node.outputs[:1], module=module)]
