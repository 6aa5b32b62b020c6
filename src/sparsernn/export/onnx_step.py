"""One time step as ONNX: states go in and come out, one node a recurrent layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..extras import require
from ..files import write_atomically
from .layers import Link, links

OPSET, IR = 17, 8
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}  # ONNX: i o f c, z r h
_NODE = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}


def export_onnx_step(model: nn.Module, path: str | Path, example: Any = None) -> None:
    """Write one step of a chain of Embedding, LSTM, GRU, RNN, Linear layers and activations as ONNX.

    Inputs: `x` (batch, features), or (batch,) of tokens, and the states `h_0`, `c_0`, `h_1`, ... (batch, units), zeros
    at the start. Outputs: `y` (batch, features) and the next states `h_0_next`, ... The batch is free. Raises
    ValueError for a model of another form, ImportError without the extra `onnx`.
    """
    onnx: Any = require("onnx", "ONNX export")
    found = links("export_onnx_step", model, example)
    if any(np.any(state) for link in found for state in link.states):
        raise ValueError("export_onnx_step: a state of this model does not begin as zeros; hand it in by export_onnx.")
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes, constants, inputs, outputs = [], [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    first = constant("first_axis", np.array([0], np.int64))
    if found[0].kind == "lookup":
        inputs.append(helper.make_tensor_value_info("x", tensor.INT64, ["batch"]))
    else:
        inputs.append(helper.make_tensor_value_info("x", tensor.FLOAT, ["batch", found[0].inputs]))
    now, layer = "x", 0
    for k, link in enumerate(found):
        out = "y" if k == len(found) - 1 else f"t{k}"
        if link.kind == "lookup":
            nodes.append(helper.make_node("Gather", [constant(f"w{k}", link.weights[0]), now], [out]))
        elif link.kind == "linear":
            weights = constant(f"w{k}", link.weights[0]), constant(f"b{k}", link.weights[1])
            nodes.append(helper.make_node("Gemm", [now, *weights], [out], transB=1))
        elif link.kind in _NODE:
            nodes.append(helper.make_node(_NODE[link.kind], [now], [out]))
        else:
            names = [f"h_{layer}", f"c_{layer}"][: len(link.states)]
            for name in names:
                inputs.append(helper.make_tensor_value_info(name, tensor.FLOAT, ["batch", link.outputs]))
                outputs.append(helper.make_tensor_value_info(f"{name}_next", tensor.FLOAT, ["batch", link.outputs]))
                nodes.append(helper.make_node("Unsqueeze", [name, first], [f"{name}_3"]))
            nodes.append(helper.make_node("Unsqueeze", [now, first], [f"s{k}"]))
            given = [constant(f"{name}{k}", value) for name, value in zip("wrb", _packed(link))]
            kind, options = link.kind.partition("_")[0], {"hidden_size": link.outputs}
            options |= {"linear_before_reset": 1} if kind == "GRU" else {}
            options |= {"activations": ["Relu"]} if link.kind == "RNN_RELU" else {}
            results = ["", *(f"{name}_next_3" for name in names)]
            nodes.append(helper.make_node(kind, [f"s{k}", *given, "", *(f"{n}_3" for n in names)], results, **options))
            nodes += [helper.make_node("Squeeze", [f"{n}_next_3", first], [f"{n}_next"]) for n in names]
            nodes.append(helper.make_node("Identity", [f"h_{layer}_next"], [out]))
            layer += 1
        now = out
    outputs.insert(0, helper.make_tensor_value_info("y", tensor.FLOAT, ["batch", found[-1].outputs]))
    graph = helper.make_graph(nodes, "step", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made)
    write_atomically(Path(path), made.SerializeToString())


def _packed(link: Link) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, R, B of ONNX's node, of one direction."""
    w_ih, w_hh, b_ih, b_hh = (
        np.concatenate([np.split(w, len(_ORDER[link.kind]))[g] for g in _ORDER[link.kind]]) for w in link.weights
    )
    return w_ih[None], w_hh[None], np.concatenate([b_ih, b_hh])[None]
