"""What `from_onnx` can't read it refuses in a sentence that names the node; a damaged file never ends the process."""

from __future__ import annotations

import builtins
import importlib
import tracemalloc

import numpy as np
import pytest
import torch

import sparsernn as srn
from sparsernn.reading import opening

onnx = pytest.importorskip("onnx")
onnx_files = pytest.importorskip("onnx_files")
node, saved, graph, model = onnx_files.node, onnx_files.saved, onnx_files.graph, onnx_files.model
rnn_file = onnx_files.rnn_file
X = {"x": ["n", 4]}
INTS = {"i": np.array([1 << 40, 1 << 40])}


def refused(path, text: str, **options) -> str:
    """The message, which is one of at most three lines."""
    with pytest.raises(ValueError, match=text) as found:
        srn.from_onnx(path, **options)
    assert len(str(found.value).splitlines()) <= 3
    return str(found.value)


def test_unknown_operators_and_domains_by_node_and_name(tmp_path):
    refused(
        saved(tmp_path, [node("NonMaxSuppression", "x x")], X),
        r"the_NonMaxSuppression_y \(NonMaxSuppression\) is an operator",
    )
    own = onnx.helper.make_node("FusedGelu", ["x"], ["y"], name="gelu", domain="com.microsoft")
    refused(saved(tmp_path, [own], X), r"gelu \(FusedGelu\) is of com.microsoft")
    body = graph([node("Identity", "go", "on")], {"i": [], "go": []}, "on", name="body")
    refused(
        saved(tmp_path, [node("Loop", "count - x", "y", body=body)], X, constants={"count": np.array(3)}), r"\(Loop\)"
    )


@pytest.mark.parametrize("opset", [8, 99])
def test_operator_sets_out_of_range(opset, tmp_path):
    message = refused(saved(tmp_path, [node("Relu", "x")], X, opset=opset), f"operator set {opset}; expected 9 to")
    assert "version_converter" in message


def test_functions_of_the_file(tmp_path):
    made = model([node("Relu", "x")], X)
    relu = onnx.helper.make_node("Relu", ["a"], ["b"])
    made.functions.append(
        onnx.helper.make_function("own", "Twice", ["a"], ["b"], [relu], [onnx.helper.make_opsetid("", 17)])
    )
    (tmp_path / "f.onnx").write_bytes(made.SerializeToString())
    assert "inline_local_functions" in refused(tmp_path / "f.onnx", "functions of its own")


def test_external_data_is_not_opened(tmp_path):
    made = model([node("Add", "x w")], X, constants={"w": np.ones(4, dtype=np.float32)})
    onnx.save(made, tmp_path / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert "onnx.save(onnx.load(path)" in refused(tmp_path / "e.onnx", "w keeps its values in another file")


@pytest.mark.parametrize(
    "op, options, text",
    [
        ("LSTM", {"inputs": "x w r b - - - p"}, "peepholes"),
        ("LSTM", {"clip": 3.0}, "clip=3.0"),
        ("LSTM", {"input_forget": 1}, "input_forget=1"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "activations sigmoid, tanh, relu"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations hardsigmoid, tanh"),
        ("RNN", {"activations": ["Relu", "Tanh"], "direction": "bidirectional"}, "activations relu, tanh"),
        ("GRU", {}, "reset gate before the product"),
        ("GRU", {"linear_before_reset": 1, "direction": "sideways"}, "direction sideways"),
    ],
)
def test_recurrent_nodes_that_no_layer_of_torch_is(op, options, text, tmp_path):
    message = refused(rnn_file(tmp_path, op, {}, **options), text)
    assert f"the_{op}_y ({op})" in message


def test_weights_of_wrong_shapes_and_computed_weights(tmp_path):
    weights = {"w": np.ones((1, 12, 4), dtype=np.float32), "r": np.ones((1, 8, 3), dtype=np.float32)}
    lstm = [node("LSTM", "x w r", hidden_size=3)]
    refused(saved(tmp_path, lstm, {"x": ["t", "n", 4]}, "y", weights), r"shapes \(1, 12, 4\) and \(1, 8, 3\)")
    conv = [node("Relu", "k", "w"), node("Conv", "x w")]
    refused(saved(tmp_path, conv, {"x": ["n", 4, "t"], "k": [2, 4, 3]}), "weight that is computed")


def test_a_value_that_is_missing_made_twice_or_too_early(tmp_path):
    refused(saved(tmp_path, [node("Relu", "x"), node("Neg", "x")], X), "makes y, which is there already")
    refused(saved(tmp_path, [node("Relu", "a"), node("Neg", "x", "a")], X), "needs a, which is made after it")
    refused(saved(tmp_path, [node("Add", "x nowhere")], X), "reads nowhere, which nothing in it makes")
    refused(saved(tmp_path, [node("Relu", "x")], X, outputs="z"), "reads z")


@pytest.mark.parametrize(
    "nodes, constants",
    [
        ([node("ConstantOfShape", "i", "c"), node("ReduceMax", "c", "d", keepdims=0), node("Add", "x d")], INTS),
        ([node("Expand", "w i", "c"), node("Gather", "c zero", "d"), node("Add", "x d")], INTS),
        ([node("Tile", "w many", "c"), node("Add", "x c")], {"many": np.array([1 << 40])}),
        ([node("Pad", "w pads", "c"), node("Add", "x c")], {"pads": np.array([0, 1 << 40])}),
        ([node("Range", "zero big one", "c"), node("Cast", "c", "d", to=1), node("Add", "x d")],
         {"big": np.array(1 << 40), "one": np.array(1)}),
        ([node("Add", "col row", "c"), node("ReduceMax", "c", "d", keepdims=0), node("Add", "x d")],
         {"col": np.ones((200_000, 1), dtype=np.float32), "row": np.ones((1, 200_000), dtype=np.float32)}),
        ([node("MatMul", "col row", "c"), node("ReduceMax", "c", "d", keepdims=0), node("Add", "x d")],
         {"col": np.ones((200_000, 1), dtype=np.float32), "row": np.ones((1, 200_000), dtype=np.float32)}),
        ([node("Concat", " ".join(["ones"] * 1000), "c", axis=0), node("ReduceMax", "c", "d", keepdims=0),
          node("Add", "x d")], {"ones": np.ones(300_000, dtype=np.float32)}),
        ([*(node("Concat", f"{a} {a}", b, axis=0) for a, b in zip("cdefghijklmno", "defghijklmnop")),
          node("ReduceMax", "p", "q", keepdims=0), node("Add", "x q")], {"c": np.ones(70_000, dtype=np.float32)}),
    ],
)  # fmt: skip
def test_a_small_file_that_asks_for_a_large_tensor(nodes, constants, tmp_path):
    constants = {"w": np.ones(1, dtype=np.float32), "zero": np.array(0), **constants}
    file = saved(tmp_path, nodes, X, constants=constants)
    tracemalloc.start()
    refused(file, "can't be computed: .*(at most|more than|asks for)")
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_what_is_small_is_computed_and_constants_are_those_of_onnx(tmp_path):
    table, places = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024), np.arange(1024)
    nodes = [node("Gather", "table places", "a"), node("ReduceMax", "a", "b", keepdims=0)]
    nodes += [node("Range", "zero end by", "r"), node("ReduceSum", "r", "s", keepdims=0)]
    nodes += [node("Div", "minus two", "e"), node("Cast", "e", "f", to=1)]
    nodes += [node("Add", "x b", "g"), node("Add", "g s", "h"), node("Add", "h f")]
    scalars = {"zero": np.float32(0), "end": np.float32(5), "by": np.float32(1.5)}
    constants = {"table": table, "places": places, "minus": np.array(-7), "two": np.array(2)}
    constants |= {name: np.array(value, dtype=np.float32) for name, value in scalars.items()}
    found = srn.from_onnx(saved(tmp_path, nodes, X, constants=constants))
    x = torch.zeros(2, 4)
    assert torch.equal(found(x), x + float(table.max()) + (0 + 1.5 + 3 + 4.5) - 3)


@pytest.mark.parametrize("name", ["in", "lambda", "from"])
def test_an_input_may_be_named_like_a_word_of_python(name, tmp_path):
    model = srn.from_onnx(saved(tmp_path, [node("Relu", name)], {name: X["x"]}))
    assert torch.equal(model(torch.ones(2, 4)), torch.ones(2, 4))


@pytest.mark.parametrize("op", ["Identity", "If", "Tanh", "Add"])
def test_a_node_without_its_inputs_is_a_sentence(op, tmp_path):
    made = model([node("Relu", "x", "a"), node(op, "a", "b"), node("Add", "a b")], X)
    del made.graph.node[1].input[:]
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match="from_onnx: "):
        srn.from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["run", "explain", "precision", "spec", "training"])
def test_a_layer_may_be_named_like_what_the_model_has(name, tmp_path):
    weight = np.ones((4, 4), dtype=np.float32)
    file = saved(tmp_path, [node("MatMul", f"x {name}.weight")], X, constants={f"{name}.weight": weight})
    assert torch.equal(srn.from_onnx(file)(torch.ones(2, 4)), torch.full((2, 4), 4.0))


def test_a_tensor_whose_shape_says_more_than_it_holds(tmp_path):
    made = model([node("Add", "x w")], X, constants={"w": np.ones(4, dtype=np.float32)})
    made.graph.initializer[0].dims[0] = 1 << 40
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    refused(tmp_path / "m.onnx", r"w is said to be a tensor of shape \(1099511627776,\), but the file holds 4 values")


def test_sizes_and_numbers_of_nodes_have_limits(tmp_path, monkeypatch):
    file = saved(tmp_path, [node("Neg", "x", "a"), node("Relu", "a")], X)
    monkeypatch.setattr(opening, "MAX_NODES", 1)
    refused(file, "more than 1 nodes")
    monkeypatch.setattr(opening, "MAX_BYTES", 10)
    refused(file, "expected an ONNX file of 1 to 10 bytes")
    refused(tmp_path, "no regular file")
    with pytest.raises(FileNotFoundError):
        srn.from_onnx(tmp_path / "none.onnx")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_end_in_a_sentence(tmp_path):
    """Cut short, or with bytes changed: a model, or a ValueError."""
    whole = rnn_file(tmp_path, "LSTM", {}, "x w r b").read_bytes()
    random = np.random.default_rng(0)
    refused_ones = 0
    damaged = [whole[:length] for length in random.integers(0, len(whole), 20)]
    for _ in range(60):
        content = bytearray(whole)
        # Behind the weights, where the structure is.
        for place in random.integers(len(whole) - 200, len(whole), 2):
            content[place] = random.integers(256)
        damaged.append(bytes(content))
    for content in [*damaged, b"not onnx at all", b"\x08" * 100]:
        (tmp_path / "d.onnx").write_bytes(content)
        try:
            srn.from_onnx(tmp_path / "d.onnx")
        except ValueError:
            refused_ones += 1
    assert refused_ones > 40


def test_a_missing_extra_is_a_sentence(tmp_path, monkeypatch):
    file = saved(tmp_path, [node("Relu", "x")], X)
    real = importlib.import_module
    for gone in ("onnx", "onnxruntime"):

        def without(name, *rest, gone=gone):
            if name == gone:
                raise ModuleNotFoundError(f"No module named {gone!r}", name=gone)
            return real(name, *rest)

        monkeypatch.setattr(importlib, "import_module", without)
        if gone == "onnx":
            with pytest.raises(ImportError, match=r"onnx is needed for from_onnx: pip install 'sparsernn\[onnx\]'"):
                srn.from_onnx(file)
        else:
            with pytest.warns(UserWarning, match=r"was not checked: onnxruntime is needed .* pip install"):
                assert srn.from_onnx(file)(torch.randn(2, 4)).shape == (2, 4)


def test_a_difference_names_the_first_node(tmp_path, monkeypatch):
    from sparsernn.reading.operators.table import TABLE, Operator

    nodes = [node("Neg", "x", "a"), node("Softsign", "a", "b"), node("Relu", "b", "c"), node("Exp", "c")]
    monkeypatch.setitem(TABLE, "Softsign", Operator(lambda step, x: x / (1.001 + x.abs())))
    refused(
        saved(tmp_path, nodes, X), r"y differs from onnxruntime's by .*; the first node that differs is the_Softsign_b"
    )


def test_nothing_of_a_file_is_executed(tmp_path, monkeypatch):
    file = saved(tmp_path, [node("Relu", "x")], X)
    srn.from_onnx(file)  # whatever is imported is
    for name in ("eval", "exec", "compile"):

        def never(*args, **kwargs):
            raise AssertionError("executed")

        monkeypatch.setattr(builtins, name, never)
    srn.from_onnx(file)
