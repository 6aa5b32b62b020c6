"""Small ONNX files made node by node, for the tests of `from_onnx`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """`inputs`, `outputs`: names with spaces between; "-" for one that is left out."""
    names = [["" if part == "-" else part for part in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=f"the_{op}_{outputs.split()[0]}", **attributes)


def graph(nodes, inputs, outputs="y", constants=None, name="graph"):
    """inputs: name -> shape, or (element type, shape)."""
    given = []
    for key, shape in inputs.items():
        kind, sizes = shape if isinstance(shape, tuple) and isinstance(shape[1], list) else (FLOAT, shape)
        given.append(helper.make_tensor_value_info(key, kind, sizes))
    stored = [numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()]
    results = [helper.make_empty_tensor_value_info(key) for key in outputs.split()]
    return helper.make_graph(nodes, name, given, results, stored)


def model(nodes, inputs, outputs="y", constants=None, opset=17) -> onnx.ModelProto:
    made = graph(nodes, inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(path, *args, **kwargs):
    """The path of such a file, written below `path`."""
    file = path / "file.onnx"
    file.write_bytes(model(*args, **kwargs).SerializeToString())
    return file


def rnn_file(path, op: str, shapes, inputs="x w r b", rows=None, outputs="y h_n", **attributes):
    """A file of one recurrent node, I = 4, H = 3."""
    random = np.random.default_rng(1)
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = {"LSTM": 12, "GRU": 9, "RNN": 3}[op]
    constants = {
        "w": random.standard_normal((count, rows, 4)), "r": random.standard_normal((count, rows, 3)),
        "b": random.standard_normal((count, 2 * rows)), "p": random.standard_normal((count, 9)),
    }  # fmt: skip
    constants = {name: array.astype(np.float32) for name, array in constants.items() if name in inputs.split()}
    given = {"x": ["t", "n", 4], "h": [count, "n", 3], "c": [count, "n", 3], "lens": (INT32, ["n"])}
    given = {name: shape for name, shape in given.items() if name in inputs.split()}
    made = [node(op, inputs, outputs, hidden_size=3, **attributes)]
    return saved(path, made, given | shapes, outputs.replace("-", ""), constants)
