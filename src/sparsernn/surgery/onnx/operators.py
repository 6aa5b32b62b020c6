"""Translations of torch operators that the exporter lacks, or writes in a form of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.onnx import symbolic_helper

from .nodes import constant_integer, gru_symbolic, lstm_symbolic

_INT64 = 7  # of onnx.TensorProto


def pack(g: Any, x: Any, lengths: Any, batch_first: Any) -> tuple[Any, Any]:
    """In ONNX a packed sequence is the padded one, time first and as long as the longest, with the lengths."""
    if constant_integer(batch_first):
        x = g.op("Transpose", x, perm_i=_swapped(x.type().dim() or 3))
    lengths = g.op("Cast", lengths, to_i=_INT64)
    one = _constant(g, [1])
    zero = _constant(g, [0])
    longest = g.op("Reshape", g.op("ReduceMax", lengths, keepdims_i=0), one)
    return g.op("Slice", x, zero, longest, zero), lengths


def padded(g: Any, data: Any, lengths: Any) -> tuple[Any, Any]:
    return data, lengths


def unpack(g: Any, data: Any, lengths: Any, batch_first: Any, padding_value: Any, total_length: Any) -> tuple[Any, Any]:
    """`padding_value` behind the end of each sequence, whatever was computed there, up to `total_length`."""
    rank = g.original_node.outputsAt(0).type().dim()
    # A number that was made of a size is no constant.
    fixed = symbolic_helper._maybe_get_const(total_length, "i")
    value: Any = symbolic_helper._maybe_get_const(padding_value, "f")
    padding = g.op("Cast", g.op("Constant", value_t=torch.tensor(float(value))), to_i=_type(data))
    zero, one = _constant(g, [0]), _constant(g, [1])
    longest = g.op("Slice", g.op("Shape", data), zero, one)
    scalar = g.op("Squeeze", longest, zero)
    steps = g.op("Range", _constant(g, 0), scalar, _constant(g, 1))
    inside = g.op("Less", g.op("Unsqueeze", steps, one), g.op("Unsqueeze", lengths, zero))
    if rank > 2:
        inside = g.op("Unsqueeze", inside, _constant(g, list(range(2, rank))))
    data = g.op("Where", inside, data, padding)
    if not isinstance(fixed, int) or fixed > 0:
        total = _constant(g, [fixed]) if isinstance(fixed, int) else g.op("Reshape", total_length, one)
        zeros = _constant(g, [0] * (rank - 1))
        pads = g.op("Concat", _constant(g, [0] * rank), g.op("Sub", total, longest), zeros, axis_i=0)
        data = g.op("Pad", data, pads, padding)
    if constant_integer(batch_first):
        data = g.op("Transpose", data, perm_i=_swapped(rank))
    return data, lengths


def unsafe_chunk(g: Any, x: Any, chunks: Any, dim: Any, _outputs: int | None = None) -> Any:
    """Split of an axis whose size the exporter lost: it is computed in the file."""
    count, axis = constant_integer(chunks), constant_integer(dim)
    size = g.op("Gather", g.op("Shape", x), _constant(g, [axis]), axis_i=0)
    part = g.op("Div", g.op("Add", size, _constant(g, [count - 1])), _constant(g, [count]))
    last = g.op("Sub", size, g.op("Mul", part, _constant(g, [count - 1])))
    return g.op("Split", x, g.op("Concat", *[part] * (count - 1), last, axis_i=0), axis_i=axis, outputs=count)


def _swapped(rank: int) -> list[int]:
    return [1, 0, *range(2, rank)]


def _type(value: Any) -> int:
    return symbolic_helper._type_utils.JitScalarType.from_value(value).onnx_type()


def _constant(g: Any, value: Any) -> Any:
    return g.op("Constant", value_t=torch.tensor(value))


def transpose_last(g: Any, x: Any) -> Any:
    rank = x.type().dim()
    return g.op("Transpose", x, perm_i=[*range(rank - 2), rank - 1, rank - 2])


def bilinear(g: Any, a: Any, b: Any, weight: Any, bias: Any) -> Any:
    y = g.op("Einsum", a, weight, b, equation_s="...i,oij,...j->...o")
    return y if bias.node().mustBeNone() else g.op("Add", y, bias)


SYMBOLIC = {
    "sparsernn_onnx::lstm": lstm_symbolic,
    "sparsernn_onnx::gru": gru_symbolic,
    "sparsernn_onnx::padded": padded,
    "aten::_pack_padded_sequence": pack,
    "aten::_pad_packed_sequence": unpack,
    "aten::unsafe_chunk": unsafe_chunk,
    "aten::mT": transpose_last,
    "aten::bilinear": bilinear,
}
