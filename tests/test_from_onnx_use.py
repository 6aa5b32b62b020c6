"""A model that came from an ONNX file is folded, cut, saved, streamed and exported like any other."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


class Denoiser(nn.Module):
    """A frame and the states of two cells, in one tensor as converters write it, to a frame and the next states."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(9, 8)
        self.first, self.second = nn.LSTMCell(8, 10), nn.LSTMCell(10, 10)
        self.head = nn.Linear(10, 9)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.front(frame))
        h, c = self.first(x, (state[:, 0, :, 0], state[:, 0, :, 1]))
        g, d = self.second(h, (state[:, 1, :, 0], state[:, 1, :, 1]))
        stacked = torch.stack([torch.stack([h, g], 1), torch.stack([c, d], 1)], -1)
        return torch.sigmoid(self.head(g)) * frame, stacked


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The file of a classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("classifier") / "m.onnx"
    srn.export_onnx(Classifier().eval(), path, torch.randint(20, (2, 7)))
    return path


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("denoiser") / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Denoiser().eval(), (torch.randn(1, 9), torch.zeros(1, 2, 10, 2)), path, dynamo=False,
            input_names=["frame", "state"], output_names=["clean", "state_next"],
        )  # fmt: skip
    return path


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=tolerance)


def test_fold_compact_save_and_load(classifier, tmp_path):
    torch.manual_seed(1)
    model = srn.from_onnx(classifier)
    batches = [torch.randint(20, (16, 12)) for _ in range(4)]
    folded = srn.fold(model, batches, to=0.5).model
    small = srn.compact(folded, batches[0])
    count = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert count[1] < 0.7 * count[0]
    x = torch.randint(20, (3, 5))
    close(small(x), folded(x))
    srn.save(small, tmp_path / "small.safetensors")
    close(srn.load(srn.from_onnx(classifier), tmp_path / "small.safetensors")(x), small(x), 0.0)


def test_accelerate_and_export_again(classifier, tmp_path):
    model = srn.from_onnx(classifier)
    x = torch.randint(20, (3, 11))
    close(srn.accelerate(model)(x), model(x))
    srn.export_onnx(model, tmp_path / "again.onnx", x)
    close(srn.from_onnx(tmp_path / "again.onnx")(x), model(x), 1e-6)


def test_a_sequence_model_streams_and_goes_to_c(classifier, tmp_path):
    model = srn.from_onnx(classifier)
    x = torch.randint(20, (1, 9))
    stream = srn.accelerate(model).stream(1, example=x)
    steps = [stream.step(x[:, t]).clone() for t in range(9)]
    close(torch.stack(steps, 1), model(x))
    written = srn.export_c(model, tmp_path / "c", name="small", example=x)
    assert (tmp_path / "c" / "small.c").exists() and written["errors"]["largest"] < 1e-5


def test_a_step_with_states_is_folded_and_streams(denoiser):
    torch.manual_seed(2)
    model = srn.from_onnx(denoiser)
    assert [type(m) for m in model.children()].count(nn.LSTMCell) == 2
    frames, state, batches = torch.randn(40, 1, 9), torch.zeros(1, 2, 10, 2), []
    with torch.no_grad():
        for frame in frames:
            batches.append({"frame": frame, "state": state})
            _, state = model(frame, state)
    with pytest.warns(UserWarning, match="40 positions"):
        folded = srn.fold(model, batches, to=0.7, carried_states=True).model
    small = srn.compact(folded, batches[0], carried_states=True)
    assert small.first.hidden_size + small.second.hidden_size < 20
    for one, exact in ((model, model), (small, folded)):
        start = torch.zeros_like(one(**batches[0])[1])  # of the width that the states have
        stream = srn.accelerate(one).stream(1, example={**batches[0], "state": start}, states={"state": 1})
        state = torch.zeros(1, 2, 10, 2)
        for frame in frames:
            want, state = exact(frame, state)
            close(stream.step(frame)[0], want)
