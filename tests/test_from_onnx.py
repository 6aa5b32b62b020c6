"""An ONNX file becomes a plain model: round trips, torch's own exports, cells found again, and what the rest does."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import sparsernn as srn
from onnx_models import Tagger, flat

pytest.importorskip("onnxruntime")
onnx_files = pytest.importorskip("onnx_files")
node, saved, INT64 = onnx_files.node, onnx_files.saved, onnx_files.INT64


def agree(got, want, tolerance: float = 1e-12) -> None:
    for a, b in zip(flat(got), flat(want), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def round_trip(model: nn.Module, path, example) -> nn.Module:
    model.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        srn.export_onnx(model, path / "m.onnx", example)
    return srn.from_onnx(path / "m.onnx")


KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}
# Layers, both directions, bias, batch first.
OPTIONS = [(1, False, True, True), (2, True, False, True), (2, False, False, False), (1, True, True, False)]
TRIPS = [*itertools.product(["LSTM"], OPTIONS), *zip(["GRU", "GRU", "tanh", "relu"], OPTIONS)]


@pytest.mark.parametrize("kind, options", TRIPS)
def test_a_file_of_our_own_gives_the_model_again(kind, options, tmp_path):
    torch.manual_seed(0)
    layers, both, bias, first = options
    own = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    rnn = KINDS[kind](5, 6, layers, bidirectional=both, bias=bias, batch_first=first, **own)
    model = Tagger(rnn, 12 if both else 6)
    again = round_trip(model, tmp_path, torch.randint(20, (2, 7)))
    assert [type(m) for m in again.modules() if isinstance(m, nn.RNNBase)] == [KINDS[kind]] * layers
    assert not [name for name, _ in again.named_parameters() if "." not in name]  # all weights are in layers
    for size in ((1, 7), (4, 3)):
        tokens = torch.randint(20, size)
        agree(again(tokens), model(tokens), 1e-6)
        agree(copy.deepcopy(again).double()(tokens), copy.deepcopy(model).double()(tokens))


def test_a_projection_and_layers_of_unequal_width_come_back(tmp_path):
    torch.manual_seed(0)
    ragged = srn.nn.RaggedLSTM(5, [(3, 2), (4, 1)], bidirectional=True, batch_first=True)
    for rnn, width in ((nn.LSTM(5, 6, proj_size=2, batch_first=True), 2), (ragged, 5)):
        model = Tagger(rnn, width)
        again = round_trip(model, tmp_path, torch.randint(20, (2, 7)))
        tokens = torch.randint(20, (3, 5))
        agree(again.double()(tokens)[0], model.double()(tokens)[0], 1e-6)


class Packed(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(4, 6, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, state = self.rnn(packed)
        return pad_packed_sequence(y, batch_first=True)[0], state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_sequences_of_unequal_length(kind, tmp_path):
    torch.manual_seed(0)
    model = Packed(kind)
    again = round_trip(model, tmp_path, (torch.randn(2, 7, 4), torch.tensor([3, 7])))
    given = torch.randn(3, 9, 4, dtype=torch.float64), torch.tensor([5, 9, 1])
    agree(again.double()(*given), model.double()(*given))


class WithStates(nn.Module):
    """A step: x (batch, 4) and the states (layers, batch, 6), to a score and the next states."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(4, 5)
        self.rnn = nn.LSTM(5, 6, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor):
        y, (h, c) = self.rnn(torch.relu(self.front(x))[None], (h, c))
        return self.head(y[0]), h, c


def test_states_are_inputs_and_outputs_by_name(tmp_path):
    torch.manual_seed(0)
    model = WithStates()
    again = round_trip(model, tmp_path, (torch.randn(2, 4), torch.randn(2, 2, 6), torch.randn(2, 2, 6)))
    assert list(inspect.signature(again.forward).parameters) == ["x", "h", "c"]
    x, h, c = torch.randn(3, 4), torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    agree(again(x, c=c, h=h), model(x, h, c), 1e-6)
    with pytest.raises(TypeError, match="missing a required argument: 'c'"):
        again(x, h)


def torch_export(model: nn.Module, path, example, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), example, path, verbose=False, **options)


class Step(nn.Module):
    """Two cells, one after the other, with their states as one tensor."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.first, self.second = kind(4, 6), kind(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, state: Tensor):
        if isinstance(self.first, nn.LSTMCell):
            h, c = self.first(x, (state[0], state[1]))
            g, d = self.second(h, (state[2], state[3]))
            return self.head(g), torch.stack([h, c, g, d])
        h = self.first(x, state[0])
        g = self.second(h, state[1])
        return self.head(g), torch.stack([h, g])


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_that_were_written_out_are_found_again(kind, tmp_path):
    torch.manual_seed(0)
    model, states = Step(kind), 4 if kind is nn.LSTMCell else 2
    example = torch.randn(2, 4), torch.randn(states, 2, 6)
    torch_export(model, tmp_path / "m.onnx", example, dynamo=False, opset_version=17)
    again = srn.from_onnx(tmp_path / "m.onnx")
    assert len([m for m in again.modules() if isinstance(m, (nn.RNNCellBase, nn.RNNBase))]) == 2
    given = [value.double() for value in example]
    agree(again.double()(*given), model.double()(*given))


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, 2, bidirectional=True, batch_first=True)
        self.front = nn.Sequential(nn.Conv1d(8, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU())
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.lstm_step, self.gru_step = Step(nn.LSTMCell), Step(nn.GRUCell)

    def forward(self, x: Tensor, h: Tensor, g: Tensor):
        y = self.gru(self.front(self.rnn(x)[0].transpose(1, 2)).transpose(1, 2))[0]
        return self.lstm_step(y[:, -1], h), self.gru_step(y[:, 0], g)


def test_a_file_of_torchs_new_exporter(tmp_path):
    torch.manual_seed(0)
    model, example = Everything(), (torch.randn(2, 5, 4), torch.randn(4, 2, 6), torch.randn(2, 2, 6))
    torch_export(model, tmp_path / "m.onnx", example, dynamo=True, external_data=False)
    again = srn.from_onnx(tmp_path / "m.onnx")
    kinds = [type(m) for m in again.children()]
    assert [kinds.count(kind) for kind in (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)] == [2, 1, 2, 2]
    given = [value.double() for value in example]
    agree(again.double()(*given), model.double()(*given), 1e-7)  # the exporter puts the norm into the convolution


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_whole_sequences_as_torch_exports_them(kind, tmp_path):
    torch.manual_seed(0)
    model = Tagger(kind(5, 6, 2, bidirectional=True, batch_first=True), 12)
    more = {"input_names": ["tokens"], "dynamic_axes": {"tokens": {0: "batch", 1: "time"}}, "opset_version": 17}
    torch_export(model, tmp_path / "m.onnx", (torch.randint(20, (2, 7)),), dynamo=False, **more)
    again = srn.from_onnx(tmp_path / "m.onnx")
    assert sum(isinstance(m, kind) for m in again.modules()) == 2
    tokens = torch.randint(20, (3, 4))
    agree(again.double()(tokens), model.double()(tokens))


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
    given = {"x": ["t", "n", 4], "h": [count, "n", 3], "c": [count, "n", 3], "lens": (onnx_files.INT32, ["n"])}
    given = {name: shape for name, shape in given.items() if name in inputs.split()}
    made = [node(op, inputs, outputs, hidden_size=3, **attributes)]
    return saved(path, made, given | shapes, outputs.replace("-", ""), constants)


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


def test_shared_weights_stay_shared(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(9, 6), nn.GRU(6, 6, batch_first=True)

        def forward(self, tokens: Tensor):
            return nn.functional.linear(self.rnn(self.embedding(tokens))[0], self.embedding.weight)

    again = round_trip(Tied(), tmp_path, torch.randint(9, (2, 5)))
    linear, table = (next(m for m in again.modules() if isinstance(m, kind)) for kind in (nn.Linear, nn.Embedding))
    assert linear.weight is table.weight


def test_names_are_those_of_the_weights(tmp_path):
    model = round_trip(Tagger(nn.LSTM(5, 6, batch_first=True), 6), tmp_path, torch.randint(20, (2, 7)))
    assert [name for name, _ in model.named_children()] == ["embedding", "rnn", "head"]
    text = model.explain()
    assert "input tokens: (batch, time)" in text and "rnn: LSTM(5, 6) <-" in text and "outputs output" in text


def test_copies_and_pickles_are_models_of_their_own(tmp_path):
    again = round_trip(Tagger(nn.LSTM(5, 6, batch_first=True), 6), tmp_path, torch.randint(20, (2, 7)))
    tokens = torch.randint(20, (2, 4))
    content = io.BytesIO()
    torch.save(again, content)
    content.seek(0)
    for other in (copy.deepcopy(again), torch.load(content, weights_only=False)):
        agree(other(tokens), again(tokens), 0.0)
        with torch.no_grad():
            other.head.weight.zero_()
        assert again.head.weight.any()


def test_it_trains(tmp_path):
    model = round_trip(Tagger(nn.LSTM(5, 6, batch_first=True), 6), tmp_path, torch.randint(20, (2, 7)))
    model.train()(torch.randint(20, (2, 4)))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
