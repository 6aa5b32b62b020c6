"""Which models an ONNX file can hold: computed weights and wrapped ones, or what to export in their place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

import sparsernn as srn
from onnx_models import check, shapes
from sparsernn.surgery.onnx import export_onnx


class Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv1d(4, 5, 3), cell

    def forward(self, x: Tensor) -> Any:
        return self.cell(self.conv(x).squeeze(2))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_after_a_convolution_is_exported(kind, tmp_path):
    torch.manual_seed(0)
    export_onnx(Cells(kind(5, 6)), tmp_path / "m.onnx", torch.randn(2, 4, 3))


class LowRank(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(len(weight), 2)), nn.Parameter(torch.randn(2, weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * self.a @ self.b


class DropsWeights(nn.Module):
    """Weight drop: the raw weight is a parameter of the wrapper, and each call writes the layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 6, batch_first=True)
        self.raw = nn.Parameter(self.rnn.weight_hh_l0.detach() * 2)
        del self.rnn._parameters["weight_hh_l0"]

    def forward(self, x: Tensor) -> Tensor:
        self.rnn.weight_hh_l0 = functional.dropout(self.raw, 0.5, self.training)
        return self.rnn(x)[0]


def parametrized(change: Callable[[Plain], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = Plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own word on the older forms
            change(model)
        return model

    return make


COMPUTED = {
    "weight norm": parametrized(lambda m: parametrizations.weight_norm(m.rnn, "weight_hh_l0")),
    "older weight norm": parametrized(lambda m: nn.utils.weight_norm(m.rnn, "weight_ih_l0")),
    "spectral norm": parametrized(lambda m: parametrizations.spectral_norm(m.fc)),
    "spectral norm of the layer": parametrized(lambda m: parametrizations.spectral_norm(m.rnn, "weight_hh_l0")),
    "orthogonal": parametrized(lambda m: parametrizations.orthogonal(m.fc)),
    "mask": parametrized(lambda m: prune.l1_unstructured(m.rnn, "weight_hh_l0", 0.5)),
    "mask of a head": parametrized(lambda m: prune.l1_unstructured(m.fc, "weight", 0.5)),
    "low rank": parametrized(
        lambda m: parametrize.register_parametrization(m.rnn, "weight_hh_l0", LowRank(m.rnn.weight_hh_l0))
    ),
    "weight drop": DropsWeights,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed_are_exported_as_they_are_now(name, tmp_path):
    """Also after a step of training, which leaves tensors with a history on the layer; the model stays as it was."""
    torch.manual_seed(0)
    model = COMPUTED[name]()
    model(torch.randn(2, 5, 4)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    kinds, keys = [type(m) for m in model.modules()], list(model.state_dict())
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert [type(m) for m in model.modules()] == kinds and list(model.state_dict()) == keys
    check(tmp_path / "m.onnx", model.eval(), torch.randn(3, 9, 4))


def lazy() -> nn.Module:
    model = Plain()
    model.fc = nn.LazyLinear(3)
    return model


def scripted_part() -> nn.Module:
    model = Plain()
    model.fc = torch.jit.script(model.fc)  # type: ignore[assignment]
    return model


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, dtype=torch.qint8)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class TrainGivesNone(Plain):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: srn.accelerate(Plain().eval()), "before accelerate"),
        (lambda: torch.jit.script(Plain()), "torch.jit"),
        (lambda: torch.jit.trace(Plain().eval(), torch.randn(2, 5, 4)), "torch.jit"),
        (scripted_part, "fc is compiled by torch.jit"),
        (quantized, "fc is quantized by torch"),
        (lambda: Plain().to("meta"), "rnn.weight_ih_l0 is on the meta device"),
        (lazy, "fc.weight has no size yet"),
        (lambda: Plain().half(), "float16"),
    ],
)
def test_models_without_an_onnx_form_get_what_to_export_in_their_place(make, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        export_onnx(make(), tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())


class ReadsData(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.data)


def test_the_data_of_an_input_is_the_input(tmp_path):
    torch.manual_seed(0)
    model = ReadsData().eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))
    check(tmp_path / "m.onnx", model, torch.randn(3, 9, 4))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: m])
def test_wrapped_models_are_exported_as_what_is_inside(wrap, tmp_path):
    export_onnx(wrap(TrainGivesNone()), tmp_path / "m.onnx", torch.randn(2, 5, 4), dynamic=False)
    assert shapes(tmp_path / "m.onnx") == {"x": [2, 5, 4]}
