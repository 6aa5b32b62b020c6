"""Other formats: RTNeural's JSON and the .nam file by readers of our own, the step as ONNX in onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsernn.export.audio import export_nam, export_rtneural
from sparsernn.export.onnx_step import export_onnx_step


class Effect(nn.Module):
    """Recurrent layers, a hidden layer or none, a head."""

    def __init__(self, kind: str, size: int = 8, layers: int = 1, inputs: int = 1, hidden: int = 0, **options) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(inputs, size, layers, batch_first=True, **options)
        self.hidden = nn.Sequential(nn.Linear(size, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.rnn(x)[0]))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def read_rtneural(path: Path, x: np.ndarray) -> np.ndarray:
    """A reader of the JSON as RTNeural's loader takes it: Keras' layouts. x (time, inputs) -> (time, outputs)."""
    content = json.loads(path.read_text())
    assert content["in_shape"][-1] == x.shape[1]
    for layer in content["layers"]:
        size, weights = layer["shape"][-1], [np.array(w) for w in layer["weights"]]
        if layer["type"] == "dense":
            x = x @ weights[0] + weights[1]
            x = {"": x, "relu": np.maximum(x, 0), "tanh": np.tanh(x), "sigmoid": sigmoid(x)}[layer["activation"]]
            continue
        kernel, recurrent, bias = weights
        h, c, ys = np.zeros(size), np.zeros(size), []
        for row in x:
            if layer["type"] == "lstm":
                i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (az, ar, an), (bz, br, bn) = (np.split(row @ kernel + bias[0], 3), np.split(h @ recurrent + bias[1], 3))
                z, r = sigmoid(az + bz), sigmoid(ar + br)
                h = z * h + (1 - z) * np.tanh(an + r * bn)
            ys.append(h)
        x = np.stack(ys)
    return x


def read_nam(path: Path, x: np.ndarray) -> np.ndarray:
    """A reader of the .nam file: layer by layer the matrix of inputs and states, bias, first h and c; the head."""
    content = json.loads(path.read_text())
    assert content["architecture"] == "LSTM" and content["sample_rate"] == 44_100
    config, left = content["config"], np.array(content["weights"])

    def take(*shape: int) -> np.ndarray:
        nonlocal left
        count = int(np.prod(shape))
        got, left = left[:count], left[count:]
        return got.reshape(shape)

    size = config["hidden_size"]
    for layer in range(config["num_layers"]):
        inputs = config["input_size"] if layer == 0 else size
        w, b, h, c = take(4 * size, inputs + size), take(4 * size), take(size), take(size)
        ys = []
        for row in x:
            i, f, g, o = np.split(w @ np.r_[row, h] + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            ys.append(h)
        x = np.stack(ys)
    y = x @ take(size) + take(1)
    assert left.size == 0
    return y[:, None]


@pytest.mark.parametrize("options", [{"kind": "LSTM"}, {"kind": "GRU", "layers": 2, "inputs": 3, "hidden": 5},
                                     {"kind": "GRU", "bias": False}])  # fmt: skip
def test_the_json_of_rtneural_is_the_model(tmp_path, options):
    torch.manual_seed(0)
    model = Effect(**options).eval()
    x = torch.randn(1, 20, model.rnn.input_size)
    export_rtneural(model, tmp_path / "model.json")
    assert np.allclose(read_rtneural(tmp_path / "model.json", x[0].numpy()), model(x)[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_nam_file_is_the_model(tmp_path, layers):
    torch.manual_seed(0)
    model, x = Effect("LSTM", layers=layers).eval(), torch.randn(1, 20, 1)
    export_nam(model, tmp_path / "model.nam", sample_rate=44_100)
    assert np.allclose(read_nam(tmp_path / "model.nam", x[0].numpy()), model(x)[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_step_as_onnx_is_the_model_step_by_step(tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layers = [nn.Embedding(9, 4), Effect(kind, layers=2, inputs=4, hidden=6)]
    model, x = nn.Sequential(*layers).eval(), torch.randint(9, (3, 12))
    export_onnx_step(model, tmp_path / "step.onnx", x)
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    nodes = [n.op_type for n in pytest.importorskip("onnx").load(tmp_path / "step.onnx").graph.node]
    assert nodes.count(kind) == 2
    states = {i.name: np.zeros((3, 8), np.float32) for i in session.get_inputs() if i.name != "x"}
    names = [o.name for o in session.get_outputs()]
    assert names == ["y", *(f"{name}_next" for name in states)]
    ys = []
    for t in range(12):
        found = dict(zip(names, session.run(None, {"x": x[:, t].numpy(), **states})))
        ys.append(found["y"])
        states = {name: found[f"{name}_next"] for name in states}
    assert np.allclose(np.stack(ys, 1), model(x).detach().numpy(), atol=1e-5)


class Residual(Effect):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize(
    "export, model, message",
    [
        (export_rtneural, Effect("RNN"), "no layer of the kind RNN_TANH"),
        (export_rtneural, Residual("GRU"), "add .* chains of layers only"),
        (export_rtneural, Effect("LSTM", proj_size=8, size=9), "projection|mat1"),
        (export_nam, Effect("GRU"), "got GRU 1 to 8, linear 8 to 1; expected LSTM"),
        (export_nam, Effect("LSTM", bidirectional=True), "can't run step by step|mat1"),
        (export_onnx_step, Residual("LSTM"), "chains of layers only"),
        (export_nam, nn.Sequential(nn.Conv1d(3, 2, 1), nn.Linear(4, 1)), r"export_nam: .* shape \(1, 16, 4\)"),
    ],
)  # fmt: skip
def test_models_of_another_form_are_refused_and_nothing_is_written(tmp_path, export, model, message):
    with pytest.raises((ValueError, RuntimeError), match=f"(?s){message}"):
        export(model.eval(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_rtneural, export_nam, export_onnx_step])
def test_refusals_speak_of_the_file_that_was_asked_for(tmp_path, export):
    spoilt = Effect("LSTM").eval()
    with torch.no_grad():
        spoilt.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=f"^{export.__name__}: head.weight has 1 numbers"):
        export(spoilt, tmp_path / "model")
    with pytest.raises(RuntimeError, match=f"^{export.__name__}: the model is in training mode"):
        export(Effect("LSTM"), tmp_path / "model")
    with pytest.raises(ValueError, match=f"^{export.__name__}: Identity has no layer"):
        export(nn.Identity().eval(), tmp_path / "model", torch.randn(1, 9, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "48k", None])
def test_a_sample_rate_that_is_none_is_refused(tmp_path, rate):
    with pytest.raises(ValueError, match="export_nam: got sample_rate="):
        export_nam(Effect("LSTM").eval(), tmp_path / "model.nam", sample_rate=rate)
    assert not list(tmp_path.iterdir())
