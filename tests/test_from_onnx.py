"""An ONNX file becomes a plain model: round trips, torch's own exports, cells found again, and models to work with."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import sparsernn as srn
from onnx_models import Tagger, agree


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
