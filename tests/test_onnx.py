"""ONNX export: single nodes, dynamic batch and time, the same outputs in onnxruntime at sizes it was not made for."""

from __future__ import annotations

import collections
import copy
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from contracts.architectures import ARCHITECTURES
from contracts.compacted import kill, quiet_compact
from onnx_models import Tagger, check
from sparsernn.nn.gated import GatedGRU, GatedLSTM, GatedRNN
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from sparsernn.surgery.onnx import export_onnx

onnx = pytest.importorskip("onnx")


class PackedTagger(Tagger):
    def forward(self, tokens: Tensor, lengths: Tensor):
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        y, state = self.rnn(packed)
        return self.head(pad_packed_sequence(y, batch_first=True)[0]), state


def gated(kind, dense: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(dense, name)[torch.arange(len(getattr(dense, name))) % 3 == 0] = 0.0
    return kind.from_dense(dense)


STACKS = {
    "LSTM": lambda: (nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True), 12, {"LSTM": 2}),
    "GRU": lambda: (nn.GRU(5, 6, batch_first=True, bias=False), 6, {"GRU": 1}),
    "RNN": lambda: (nn.RNN(5, 6, nonlinearity="relu", bidirectional=True, batch_first=True), 12, {"RNN": 1}),
    "projection": lambda: (nn.LSTM(5, 6, 2, proj_size=2, batch_first=True), 2, {"LSTM": 2}),
    "RaggedLSTM": lambda: (
        RaggedLSTM(5, [(3, 2), (4, 4), (4, 1)], bidirectional=True, batch_first=True),
        5,
        {"LSTM": 5},
    ),
    "RaggedGRU": lambda: (RaggedGRU(5, [(3, 2), (4, 1)], bidirectional=True, batch_first=True), 5, {"GRU": 4}),
    "RaggedRNN": lambda: (RaggedRNN(5, [3, 2], batch_first=True), 2, {"RNN": 2}),
    "ragged projection": lambda: (
        RaggedLSTM(5, [(3, 2), (4, 1)], proj_sizes=[(1, 3), (2, 2)], bidirectional=True, batch_first=True),
        4,
        {"LSTM": 4},
    ),
    "GatedLSTM": lambda: (gated(GatedLSTM, nn.LSTM(5, 6, batch_first=True)), 6, {"LSTM": 1}),
    "GatedGRU": lambda: (gated(GatedGRU, nn.GRU(5, 6, batch_first=True)), 6, {"GRU": 1}),
    "GatedRNN": lambda: (gated(GatedRNN, nn.RNN(5, 6, batch_first=True)), 6, {"RNN": 1}),
}


def nodes(path) -> collections.Counter:
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


def dynamic_axes(path) -> dict[str, list]:
    graph = onnx.load(path).graph
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", STACKS)
def test_padded_models_keep_single_nodes_and_dynamic_sizes(name, tmp_path):
    torch.manual_seed(0)
    rnn, width, expected = STACKS[name]()
    model = Tagger(rnn, width).eval()
    path = tmp_path / "m.onnx"
    export_onnx(model, path, torch.randint(20, (1, 7)))
    found = nodes(path)
    assert {kind: found[kind] for kind in ("LSTM", "GRU", "RNN") if found[kind]} == expected
    assert not {"Loop", "Scan", "If"} & set(found)
    axes = dynamic_axes(path)
    assert axes["tokens"] == ["batch", "time"] and axes["output"] == ["batch", "time", 3]
    for size in ((1, 7), (4, 3), (2, 19)):
        check(path, model, torch.randint(20, size))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", STACKS)
def test_packed_models_take_lengths(name, tmp_path):
    torch.manual_seed(0)
    rnn, width, expected = STACKS[name]()
    model = PackedTagger(rnn, width).eval()
    path = tmp_path / "m.onnx"
    export_onnx(model, path, (torch.randint(20, (2, 7)), torch.tensor([3, 7])))
    found = nodes(path)
    assert {kind: found[kind] for kind in ("LSTM", "GRU", "RNN") if found[kind]} == expected
    assert dynamic_axes(path)["lengths"] == ["batch"]
    check(path, model, torch.randint(20, (2, 7)), torch.tensor([7, 1]))
    check(path, model, torch.randint(20, (4, 9)), torch.tensor([2, 8, 5, 8]))  # shorter than the padding


class WithStates(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor], scale: float = 1.0):
        y, (h, c) = self.rnn(x * scale, states)
        return {"y": y, "states": (h, c)}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("proj_size", [0, 2])
def test_states_go_in_and_out_and_nests_are_flattened(proj_size, tmp_path):
    torch.manual_seed(0)
    model = WithStates(nn.LSTM(4, 5, 2, proj_size=proj_size)).eval()
    path = tmp_path / "m.onnx"
    h, c = torch.randn(2, 3, proj_size or 5), torch.randn(2, 3, 5)
    export_onnx(model, path, {"x": torch.randn(6, 3, 4), "states": (h, c), "scale": 2.0})
    axes = dynamic_axes(path)
    assert axes["x"] == ["time", "batch", 4] and axes["states_0"][1] == axes["states_1"][1] == "batch"

    def scaled(x: Tensor, h: Tensor, c: Tensor):
        found = model(x, (h, c), 2.0)
        return found["y"], found["states"]

    check(path, scaled, torch.randn(2, 5, 4), torch.randn(2, 5, proj_size or 5), torch.randn(2, 5, 5))


class Attentive(nn.Module):
    """An encoder's memory read by a GRU's last state; BatchNorm and dropout inside, time before batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 5, bidirectional=True, dropout=0.0)
        self.norm = nn.BatchNorm1d(10)
        self.gru = nn.GRU(10, 6)
        self.key = nn.Linear(10, 6)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.norm(self.encoder(x)[0].permute(1, 2, 0)).permute(2, 0, 1)
        _, h = self.gru(self.drop(memory))
        weights = torch.softmax((self.key(memory) * h).sum(-1), 0)
        context = (weights.unsqueeze(-1) * memory).sum(0)
        return self.out(torch.cat([context, h[-1]], -1))


@pytest.mark.smoke
def test_a_model_in_training_mode_is_exported_in_eval_and_left_alone(tmp_path):
    torch.manual_seed(0)
    model = Attentive().train()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(6, 1, 4)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(model, tmp_path / "m.onnx", x)
    assert model.training and model.encoder.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "forward" not in vars(model.encoder)
    assert dynamic_axes(tmp_path / "m.onnx") == {"x": ["time", "batch", 4], "output": ["batch", 2]}
    for size in ((3, 5, 4), (11, 1, 4)):
        check(tmp_path / "m.onnx", model.eval(), torch.randn(size))


def test_equal_sizes_of_batch_and_time_are_told_apart(tmp_path):
    torch.manual_seed(0)
    model = PackedTagger(nn.GRU(5, 6, batch_first=True), 6).eval()
    export_onnx(model, tmp_path / "m.onnx", (torch.randint(20, (3, 3)), torch.tensor([3, 1, 2])))
    axes = dynamic_axes(tmp_path / "m.onnx")
    assert axes["tokens"] == ["batch", "time"] and axes["lengths"] == ["batch"]


COMPACTED = ("state_of_ones", "every_layers_state", "split_units", "conv_before", "bilinear_head", "final_states")


@pytest.mark.parametrize("name", COMPACTED)
def test_compacted_architectures_are_exported(name, tmp_path):
    """Ragged stacks, adapters, narrowed states: `export_onnx` compares with torch at several sizes."""
    architecture = ARCHITECTURES[name]
    model = architecture.model(torch.float32)
    kill(architecture, model, 0.5, seed=1)
    example = architecture.examples(torch.float32)[0]
    small = quiet_compact(model, example)
    export_onnx(small, tmp_path / "m.onnx", example)
    assert (tmp_path / "m.onnx").stat().st_size > 0


class KeepLargest(nn.Module):
    """Numbers put where an index says: the two largest of a step's scores stay, and are marked."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 6, batch_first=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor):
        scores = self.fc(self.rnn(x)[0])
        top = scores.topk(2, -1).indices
        hidden = torch.full_like(scores, -1e4).scatter(-1, top, 0)
        marked = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, top, True)
        return scores + hidden, marked.float(), torch.zeros_like(scores).scatter(-1, top, scores.gather(-1, top))


def test_numbers_that_are_scattered_are_exported(tmp_path):
    torch.manual_seed(0)
    model = KeepLargest().eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 7, 4))
    for size in ((1, 3, 4), (5, 9, 4)):
        check(tmp_path / "m.onnx", model, torch.randn(size))


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], 4)
        for step in x:
            h = self.cell(step, h)
        return h


class ReturnsPacked(PackedTagger):
    def forward(self, tokens: Tensor, lengths: Tensor):
        return self.rnn(pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True))[0]


def dependent_rows() -> nn.Module:
    rnn = nn.LSTM(4, 5, proj_size=2)
    with torch.no_grad():
        rnn.weight_hr_l0[1] = rnn.weight_hr_l0[0]
    return WithStates(rnn)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("make", "example", "error", "words"),
    [
        (Loop, torch.zeros(4, 2, 3), ValueError, "time"),
        (lambda: Attentive().double(), torch.zeros(4, 2, 4).double(), ValueError, "float32"),
        (Attentive, torch.zeros(4, 2, 3), ValueError, "could not run"),
        (
            lambda: nn.LSTM(4, 5),
            nn.utils.rnn.pack_sequence([torch.zeros(3, 4)]),
            ValueError,
            "holds a PackedSequence",
        ),
        (
            lambda: ReturnsPacked(nn.GRU(5, 6, batch_first=True), 6),
            (torch.ones(2, 4).long(), torch.tensor([4, 2])),
            ValueError,
            "returns a PackedSequence",
        ),
        (
            dependent_rows,
            (torch.zeros(3, 2, 4), (torch.zeros(1, 2, 2), torch.zeros(1, 2, 5))),
            ValueError,
            "has no projections",
        ),
        (lambda: "model", torch.zeros(1), TypeError, "expected a torch.nn.Module"),
    ],
)
def test_what_cannot_be_exported_gets_a_sentence_and_writes_nothing(make, example, error, words, tmp_path):
    torch.manual_seed(0)
    with pytest.raises(error, match=words) as caught:
        export_onnx(make(), tmp_path / "m.onnx", example)
    assert len(str(caught.value).splitlines()) <= 3
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_or_folder_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_onnx(Loop(), tmp_path / "none" / "m.onnx", torch.zeros(4, 2, 3))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsernn\[onnx\]'"):
        export_onnx(Loop(), tmp_path / "m.onnx", torch.zeros(4, 2, 3))
