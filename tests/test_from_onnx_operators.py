"""Every operator that `from_onnx` reads gives what onnxruntime gives: the call itself compares them, at two sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsernn as srn
from sparsernn.reading.operators.hosted import HOSTED
from sparsernn.reading.operators.table import TABLE

pytest.importorskip("onnxruntime")
onnx_files = pytest.importorskip("onnx_files")
node, saved, INT64, FLOAT = onnx_files.node, onnx_files.saved, onnx_files.INT64, onnx_files.FLOAT

X = {"x": ["n", "t", 6]}
XX = {"x": ["n", "t", 6], "z": ["n", "t", 6]}
SEQUENCE = {"x": ["n", 6, "t"]}
ONE, HALF = {"one": np.float32(1)}, {"half": np.float32(0.5)}
IMAGE = {"x": ["n", 4, "h", 9]}
random = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


ALONE = """Abs Neg Exp Sigmoid Tanh Relu Erf Floor Ceil Round Sign Sin Cos Tan Atan Sinh Cosh Asinh Softplus Softsign
HardSwish Identity IsNaN IsInf LeakyRelu Elu Selu Celu ThresholdedRelu HardSigmoid Softmax LogSoftmax
ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax ArgMin
Transpose Squeeze Flatten Shape Size LpNormalization""".split()
CASES = {name: ([node(name, "x")], X) for name in ALONE if name not in ("Squeeze", "HardSwish")}
CASES |= {name: ([node(name, "x z")], XX) for name in "Add Sub Mul Div Max Min Sum Mean".split()}
CASES |= {
    f"{name} to a choice": ([node(name, "x z", "c"), node("Where", "c x z")], XX)
    for name in "Equal Less LessOrEqual Greater GreaterOrEqual".split()
}
CASES |= {
    f"{name} of positive numbers": (
        [node("Abs", "x", "a"), node("Add", "a one", "b"), node(name, "b")],
        X,
        {"one": np.float32(1)},
    )
    for name in "Sqrt Log Reciprocal ReduceLogSum Acosh".split()
}
CASES |= {
    f"{name} within one": (
        [node("Tanh", "x", "a"), node("Mul", "a half", "b"), node(name, "b")],
        X,
        {"half": np.float32(0.5)},
    )
    for name in "Asin Acos Atanh".split()
}
CASES |= {
    f"{name} of truths": (
        [node("Greater", "x z", "a"), node("Less", "x half", "b"), node(name, "a b", "c"), node("Not", "c", "d"),
         node("Cast", "d", to=1)], XX, HALF)
    for name in "And Or Xor".split()
}  # fmt: skip
CASES |= {
    "HardSwish": ([node("HardSwish", "x")], X),
    "Pow": ([node("Pow", "x two")], X, {"two": np.float32(2)}),
    "Mod of whole numbers": ([node("Mod", "x three")], {"x": (INT64, ["n", 5])}, {"three": ints(3)}),
    "Div of whole numbers": ([node("Neg", "x", "a"), node("Div", "a two")], {"x": (INT64, ["n", 5])}, {"two": ints(2)}),
    "Clip": ([node("Clip", "x low high")], X, {"low": np.float32(-0.3), "high": np.float32(0.4)}),
    "Clip on one side": ([node("Clip", "x - high")], X, {"high": np.float32(0.4)}),
    "PRelu": ([node("PRelu", "x slope")], SEQUENCE, {"slope": floats(6, 1)}),
    "Gelu": ([node("Gelu", "x")], X, {}, 20),
    "Cast there and back": ([node("Cast", "x", "a", to=7), node("Cast", "a", to=1)], X),
    "CastLike": ([node("CastLike", "x z")], {"x": (INT64, ["n", 5]), "z": ["n", 5]}),
    "Softmax over the middle": ([node("Softmax", "x", axis=1)], X),
    "Softmax of old": ([node("Softmax", "x", axis=1)], X, {}, 11),
    "ReduceMean over axes": ([node("ReduceMean", "x", axes=[1, 2], keepdims=0)], X),
    "ReduceSum over an input's axes": ([node("ReduceSum", "x a", keepdims=0)], X, {"a": ints(-1)}),
    "ReduceMax of version 18": ([node("ReduceMax", "x a")], X, {"a": ints(1)}, 18),
    "ArgMax, the last": ([node("ArgMax", "x", axis=2, select_last_index=1, keepdims=0)], X),
    "TopK": ([node("TopK", "x k", "y i")], X, {"k": ints(2)}),
    "CumSum": ([node("CumSum", "x a")], X, {"a": np.array(1)}),
    "CumSum backwards": ([node("CumSum", "x a", exclusive=1, reverse=1)], X, {"a": np.array(1)}),
    "Concat": ([node("Concat", "x z", axis=-1)], XX),
    "Split in halves": ([node("Split", "x", "a b", axis=2), node("Mul", "a b")], X, {}, 13),
    "Split by sizes": ([node("Split", "x s", "y b", axis=2)], X, {"s": ints(2, 4)}),
    "Split of version 18": ([node("Split", "x", "y b", axis=2, num_outputs=2)], X, {}, 18),
    "Split of old": ([node("Split", "x", "y b", axis=2, split=[1, 5])], X, {}, 11),
    "Slice": ([node("Slice", "x s e a t")], X, {"s": ints(1, 0), "e": ints(-1, 99), "a": ints(2, 1), "t": ints(2, 1)}),
    "Slice backwards": ([node("Slice", "x s e a t")], X, {"s": ints(-1), "e": ints(-99), "a": ints(2), "t": ints(-1)}),
    "Slice backwards by two": (
        [node("Slice", "x s e a t")], X, {"s": ints(4), "e": ints(0), "a": ints(2), "t": ints(-2)}),
    "Slice of old": ([node("Slice", "x", axes=[2], starts=[1], ends=[4])], X, {}, 9),
    "Reshape": ([node("Reshape", "x s")], X, {"s": ints(0, -1, 3)}),
    "Reshape by a computed shape": (
        [node("Shape", "x", "s"), node("Gather", "s zero", "b"), node("Unsqueeze", "b zero_", "c"),
         node("Concat", "c minus", "d", axis=0), node("Reshape", "x d")], X,
        {"zero": np.array(0), "zero_": ints(0), "minus": ints(-1)}),
    "Sizes in arithmetic": (
        [node("Shape", "x", "s"), node("Slice", "s zero two", "a"), node("ReduceProd", "a", "b", keepdims=1),
         node("Mul", "b two", "c"), node("Concat", "c three", "d", axis=0), node("Reshape", "x d")],
        X, {"zero": ints(0), "two": ints(2), "three": ints(3)}),
    "Sizes as numbers": (
        [node("Shape", "x", "s"), node("Gather", "s one", "a"), node("Cast", "a", "b", to=1), node("Sqrt", "b", "c"),
         node("Div", "x c")], X, {"one": np.array(1)}),
    "Transpose": ([node("Transpose", "x", perm=[2, 0, 1])], X),
    "Squeeze and Unsqueeze": ([node("Unsqueeze", "x a", "u"), node("Squeeze", "u a")], X, {"a": ints(1)}),
    "Squeeze and Unsqueeze of old": (
        [node("Unsqueeze", "x", "u", axes=[0, 3]), node("Squeeze", "u", axes=[3])], X, {}, 11),
    "Expand": ([node("Expand", "x s")], X, {"s": ints(2, 1, 1, 1)}),
    "Tile": ([node("Tile", "x s")], X, {"s": ints(1, 2, 1)}),
    "Gather of one place": ([node("Gather", "x i", axis=1)], X, {"i": np.array(-1)}),
    "Gather of places": ([node("Gather", "x i", axis=2)], X, {"i": np.array([[0, 5], [-1, 2]])}),
    "Gather of a table": ([node("Gather", "w x")], {"x": (INT64, ["n", "t"])}, {"w": floats(7, 3)}),
    "GatherElements": ([node("GatherElements", "x i", axis=1)], {"x": [2, 6]}, {"i": np.array([[0, 1], [-1, 2]])}),
    "GatherND": ([node("GatherND", "x i")], {"x": [2, 6]}, {"i": np.array([[0, 1], [-1, 2]])}),
    "ScatterND": ([node("ScatterND", "x i u")], {"x": [4, 6]}, {"i": np.array([[0], [2]]), "u": floats(2, 6)}),
    "ScatterElements": (
        [node("ScatterElements", "x i u", axis=1)], {"x": [2, 6]},
        {"i": np.array([[0, 1], [-1, 2]]), "u": floats(2, 2)}),
    "Trilu": ([node("Trilu", "x k", upper=0)], X, {"k": np.array(1)}),
    "Pad": ([node("Pad", "x p v")], X, {"p": ints(0, 1, 2, 0, 0, 3), "v": np.float32(0.5)}),
    "Pad by reflection": ([node("Pad", "x p", mode="reflect")], X, {"p": ints(0, 1, 2, 0, 0, 3)}),
    "Pad by the edge": ([node("Pad", "x p", mode="edge")], X, {"p": ints(0, 1, 2, 0, 0, 3)}),
    "Pad of old": ([node("Pad", "x", pads=[0, 0, 1, 0, 0, 1], value=0.25)], X, {}, 10),
    "ConstantOfShape": ([node("Shape", "x", "s"), node("ConstantOfShape", "s", "o"), node("Add", "o x")], X),
    "Range": (
        [node("Shape", "x", "s"), node("Gather", "s one", "n"), node("Range", "zero n one", "r"),
         node("Cast", "r", "f", to=1), node("Unsqueeze", "f last", "g"), node("Add", "x g")], X,
        {"zero": np.array(0), "one": np.array(1), "last": ints(1)}),
    "OneHot": ([node("OneHot", "x d v")], {"x": (INT64, ["n", "t"])}, {"d": np.array(5), "v": floats(2)}),
    "MatMul": ([node("MatMul", "x z")], {"x": ["n", 3, 4], "z": ["n", 4, "m"]}),
    "MatMul by a weight": ([node("MatMul", "x w", "a"), node("Add", "a b")], X, {"w": floats(6, 4), "b": floats(4)}),
    "MatMul by a weight on the left": ([node("MatMul", "w x")], SEQUENCE, {"w": floats(4, 6)}),
    "MatMul by many matrices": ([node("MatMul", "x w")], {"x": [3, "t", 6]}, {"w": floats(3, 6, 4)}),
    "Gemm": ([node("Gemm", "x w b", transB=1)], {"x": ["n", 6]}, {"w": floats(4, 6), "b": floats(4)}),
    "Gemm with factors": (
        [node("Gemm", "x w b", alpha=0.5, beta=2.0)], {"x": ["n", 6]}, {"w": floats(6, 4), "b": floats(1, 4)}),
    "Gemm turned over": ([node("Gemm", "x w b", transA=1)], {"x": [6, "n"]}, {"w": floats(6, 4), "b": floats(4)}),
    "Gemm of inputs": ([node("Gemm", "x z b")], {"x": ["n", 6], "z": [6, "m"]}, {"b": np.float32(2)}),
    "Einsum": ([node("Einsum", "x z", equation="ntk, nsk -> nts")], {"x": ["n", "t", 6], "z": ["n", "s", 6]}),
    "Conv": ([node("Conv", "x w b")], {"x": ["n", 6, 9]}, {"w": floats(4, 6, 3), "b": floats(4)}),
    "Conv with everything": (
        [node("Conv", "x w", group=2, pads=[2, 1], strides=[2], dilations=[2])], {"x": ["n", 6, 9]},
        {"w": floats(4, 3, 3)}),
    "Conv of images": ([node("Conv", "x w b", pads=[1, 0, 1, 0])], IMAGE, {"w": floats(5, 4, 3, 3), "b": floats(5)}),
    "Conv, same above": (
        [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2])], SEQUENCE, {"w": floats(4, 6, 4)}),
    "Conv, same below": ([node("Conv", "x w", auto_pad="SAME_LOWER")], SEQUENCE, {"w": floats(4, 6, 4)}),
    "ConvTranspose": (
        [node("ConvTranspose", "x w b", strides=[2], pads=[1, 1], output_padding=[1])], SEQUENCE,
        {"w": floats(6, 4, 3), "b": floats(4)}),
    "ConvTranspose with groups, unevenly cut": (
        [node("ConvTranspose", "x w", group=2, pads=[0, 2])], {"x": ["n", 6, 7]}, {"w": floats(6, 2, 5)}),
    "BatchNormalization": (
        [node("BatchNormalization", "x g b m v", epsilon=1e-3)], SEQUENCE,
        {"g": floats(6), "b": floats(6), "m": floats(6), "v": np.abs(floats(6))}),
    "BatchNormalization of images": (
        [node("BatchNormalization", "x g b m v")], IMAGE,
        {"g": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4))}),
    "LayerNormalization": ([node("LayerNormalization", "x g b")], X, {"g": floats(6), "b": floats(6)}),
    "LayerNormalization by axis": ([node("LayerNormalization", "x g", axis=2)], X, {"g": floats(6)}),
    "InstanceNormalization": ([node("InstanceNormalization", "x g b")], SEQUENCE, {"g": floats(6), "b": floats(6)}),
    "GroupNormalization": (
        [node("GroupNormalization", "x g b", num_groups=2)], SEQUENCE, {"g": floats(6), "b": floats(6)}, 21),
    "MaxPool": ([node("MaxPool", "x", kernel_shape=[3], strides=[2], pads=[1, 0])], {"x": ["n", 6, 9]}),
    "AveragePool": ([node("AveragePool", "x", kernel_shape=[3], strides=[2], pads=[1, 1])], {"x": ["n", 6, 9]}),
    "AveragePool over borders": (
        [node("AveragePool", "x", kernel_shape=[2, 3], pads=[0, 1, 0, 1], count_include_pad=1)], IMAGE),
    "GlobalAveragePool": ([node("GlobalAveragePool", "x")], IMAGE),
    "GlobalMaxPool": ([node("GlobalMaxPool", "x")], IMAGE),
    "Dropout": ([node("Dropout", "x", "a"), node("Relu", "a")], X),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_onnxruntime_gives(name, tmp_path):
    nodes, inputs, *rest = CASES[name]
    constants, opset = (*rest, {}, 17)[:2] if len(rest) != 1 else (rest[0], 17)
    srn.from_onnx(saved(tmp_path, nodes, inputs, constants=constants, opset=opset))


@pytest.mark.parametrize("name", ["Conv with everything", "Sizes as numbers", "Clip", "Range", "ConstantOfShape"])
def test_in_double_precision_everything_is(name, tmp_path):
    nodes, inputs, *rest = CASES[name]
    model = srn.from_onnx(saved(tmp_path, nodes, inputs, constants=rest[0] if rest else {}))
    x = torch.randn([3 if isinstance(size, str) else size for size in inputs["x"]])
    exact = model.double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(model.float()(x).double(), exact, rtol=1e-5, atol=1e-5)


def test_every_operator_of_the_tables_is_tested():
    made = {made.op_type for nodes, *_ in CASES.values() for made in nodes}
    with_weights = {"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "Linear", "Embedding", "LayerNorm"}
    untested = {"Mish", "Swish", "RMSNormalization"}  # newer than the operator sets here
    assert set(TABLE) | set(HOSTED) <= made | with_weights | untested
