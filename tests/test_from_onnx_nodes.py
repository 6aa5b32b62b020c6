"""Nodes of an ONNX file become layers: gates in any order, forms of a GRU, every direction; branches are decided."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sparsernn as srn
from onnx_models import agree

onnx_files = pytest.importorskip("onnx_files")
node, saved, rnn_file, INT64 = onnx_files.node, onnx_files.saved, onnx_files.rnn_file, onnx_files.INT64


def lstm_by_hand(order: str, joined: bool):
    """One step as Keras exports it, gates in `order`: the nodes, and constants."""
    random = np.random.default_rng(0)
    constants = {"w": random.standard_normal((5, 12)).astype(np.float32), "b": random.standard_normal(12)}
    constants["r"] = random.standard_normal((3, 12)).astype(np.float32)
    constants["b"] = constants["b"].astype(np.float32)
    if joined:
        constants = {"w": np.concatenate([constants["w"], constants["r"]]), "b": constants["b"]}
        nodes = [node("Concat", "x h", "xh", axis=1), node("MatMul", "xh w", "s")]
    else:
        nodes = [node("MatMul", "x w", "s1"), node("MatMul", "h r", "s2"), node("Add", "s1 s2", "s")]
    nodes += [node("Add", "s b", "all"), node("Split", "all", " ".join(f"p{gate}" for gate in order), axis=1)]
    nodes += [node("Tanh" if gate == "g" else "Sigmoid", f"p{gate}", gate) for gate in order]
    nodes += [
        node("Mul", "f c", "kept"), node("Mul", "g i", "new"), node("Add", "kept new", "c_next"),
        node("Tanh", "c_next", "squashed"), node("Mul", "o squashed", "h_next"),
    ]  # fmt: skip
    return nodes, constants


@pytest.mark.parametrize("order", ["ifgo", "igfo", "iofg"])
@pytest.mark.parametrize("joined", [False, True])
def test_gates_are_found_by_what_they_do_in_any_order(order, joined, tmp_path):
    nodes, constants = lstm_by_hand(order, joined)
    inputs = {"x": ["n", 5], "h": ["n", 3], "c": ["n", 3]}
    model = srn.from_onnx(saved(tmp_path, nodes, inputs, "h_next c_next", constants, opset=13))
    cell = next(m for m in model.modules() if isinstance(m, nn.LSTMCell))
    assert (cell.input_size, cell.hidden_size) == (5, 3)


@pytest.mark.parametrize("form", ["z h + (1 - z) n", "n + z (h - n)"])
def test_forms_of_a_gru(form, tmp_path):
    random = np.random.default_rng(0)
    constants = {"w": random.standard_normal((5, 9)).astype(np.float32), "one": np.float32(1)}
    constants |= {"r": random.standard_normal((3, 9)).astype(np.float32), "b": np.ones(9, dtype=np.float32)}
    nodes = [
        node("Gemm", "x w b", "sx"), node("Gemm", "h r b", "sh"), node("Split", "sx", "rx zx nx", axis=1),
        node("Split", "sh", "rh zh nh", axis=1), node("Add", "rx rh", "ra"), node("Sigmoid", "ra", "rr"),
        node("Add", "zh zx", "za"), node("Sigmoid", "za", "z"), node("Mul", "rr nh", "rn"), node("Add", "nx rn", "na"),
        node("Tanh", "na", "n"),
    ]  # fmt: skip
    if form.startswith("z"):
        nodes += [node("Sub", "one z", "u"), node("Mul", "z h", "a"), node("Mul", "n u", "b2"), node("Add", "a b2")]
    else:
        nodes += [node("Sub", "h n", "d"), node("Mul", "d z", "a"), node("Add", "a n")]
    inputs = {"x": ["n", 5], "h": ["n", 3]}
    model = srn.from_onnx(saved(tmp_path, nodes, inputs, "y", constants, opset=13))
    assert [type(m) for m in model.children()] == [nn.GRUCell]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_node_of_every_direction_with_states_and_lengths(op, direction, tmp_path):
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    states = " c" if op == "LSTM" else ""
    outputs = "y h_n c_n" if op == "LSTM" else "y h_n"
    for inputs in ("x w r", "x w r b - h" + states, "x w r b lens h" + states):
        srn.from_onnx(rnn_file(tmp_path, op, {}, inputs, outputs=outputs, direction=direction, **more))


def test_a_node_with_the_batch_first(tmp_path):
    """onnxruntime runs none; the same node with time first is compared."""
    plain = srn.from_onnx(rnn_file(tmp_path, "LSTM", {}, "x w r b - h c", outputs="y h_n c_n"))
    with pytest.warns(UserWarning, match="was not checked"):
        first = srn.from_onnx(rnn_file(tmp_path, "LSTM", {}, "x w r b - h c", outputs="y h_n c_n", layout=1))
    x, h, c = torch.randn(2, 5, 4), torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    y, h_n, c_n = first(x, h, c)
    want = plain(x.transpose(0, 1), h.transpose(0, 1), c.transpose(0, 1))
    agree([y.permute(1, 2, 0, 3), h_n.transpose(0, 1), c_n.transpose(0, 1)], want, 0.0)


def test_a_reset_before_the_product_where_it_is_the_same(tmp_path):
    random = np.random.default_rng(0)
    r = random.standard_normal((1, 9, 3)).astype(np.float32)
    r[0, 6:] *= np.eye(3)
    constants = {"w": random.standard_normal((1, 9, 4)).astype(np.float32), "r": r}
    constants["b"] = random.standard_normal((1, 18)).astype(np.float32)
    made = [node("GRU", "x w r b", hidden_size=3, linear_before_reset=0)]
    srn.from_onnx(saved(tmp_path, made, {"x": ["t", "n", 4]}, "y", constants))


def branching(condition_nodes, inputs, constants):
    """y = 2 x or x + 1."""
    ways = [onnx_files.graph([node(op, "x two", f"{op}_y")], {}, f"{op}_y", name=op) for op in ("Mul", "Add")]
    nodes = [*condition_nodes, node("If", "yes", "y", then_branch=ways[0], else_branch=ways[1])]
    return nodes, {"x": ["n", "t"], **inputs}, "y", {"two": np.float32(2), **constants}


def test_an_input_that_is_fixed_decides_a_branch(tmp_path):
    made = branching([node("Equal", "sr rate", "yes")], {"sr": (INT64, [])}, {"rate": np.array(16000)})
    file = saved(tmp_path, *made)
    x = torch.randn(2, 3)
    agree(srn.from_onnx(file, inputs={"sr": 16000})(x), 2 * x, 0.0)
    agree(srn.from_onnx(file, inputs={"sr": torch.tensor(8000)})(x), x + 2, 0.0)
    with pytest.raises(ValueError, match=r"branches on the numbers of an input.*inputs=\{name: value\}"):
        srn.from_onnx(file)
    with pytest.raises(ValueError, match="inputs names rate; the file's inputs are x, sr"):
        srn.from_onnx(file, inputs={"rate": 1})


def test_a_branch_on_a_size_that_never_comes_is_left_out_and_said_so(tmp_path):
    sizes = [node("Shape", "x", "s"), node("Gather", "s one", "t"), node("Equal", "t many", "yes")]
    model = srn.from_onnx(saved(tmp_path, *branching(sizes, {}, {"one": np.array(1), "many": np.array(77)})))
    x = torch.randn(2, 3)
    agree(model(x), x + 2, 0.0)
    with pytest.raises(ValueError, match=r"the_If_y \(If\): inputs of these sizes go another way"):
        model(torch.randn(2, 77))
