"""After `compact` a model to which nobody passes a state is plain: all that works with the dense one works with it."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.surgery.attachments import attachments

from .architecture import difference, run

DEAD = [1, 2, 5]
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated",
    "ignore:`torch.jit",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:torch.quantize_per_tensor",
    "ignore:The tensor attributes",
)


class Stack(nn.Module):
    def __init__(self, kind: type[nn.Module], layers: int = 1, both: bool = False) -> None:
        super().__init__()
        self.rnn = kind(3, 8, layers, batch_first=True, bidirectional=both)
        self.fc = nn.Linear(16 if both else 8, 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


class Steps(nn.Module):
    """A loop over a cell; the first state is made from the cell's own width."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.fc = kind(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = torch.zeros(2, self.cell.hidden_size)
        for t in range(4):
            h = self.cell(x[:, t], h)
        return self.fc(h)


MODELS = {
    "LSTM": lambda: Stack(nn.LSTM),
    "GRU of two layers": lambda: Stack(nn.GRU, 2),
    "RNN both ways": lambda: Stack(nn.RNN, 1, True),
    "LSTM of two layers both ways": lambda: Stack(nn.LSTM, 2, True),
    "GRUCell": lambda: Steps(nn.GRUCell),
    "RNNCell": lambda: Steps(nn.RNNCell),
}


def compacted(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(2, 4, 3)
    structure = srn.trace(model, x)
    with torch.no_grad():
        for unit_set in structure.unit_sets:
            for unit in DEAD:
                for parameter, axis, index in structure.readers(unit_set, unit):
                    model.get_parameter(parameter).select(axis, index).zero_()
    small = srn.compact(model, x)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())
    return model, small, x


def through_pickle(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model: nn.Module, x: torch.Tensor) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "deepcopy": lambda model, x: copy.deepcopy(model),
    "copy": lambda model, x: copy.copy(model),
    "pickle": through_pickle,
    "torch.save": through_torch_save,
    "script": lambda model, x: torch.jit.script(model),
    "jit.trace": lambda model, x: torch.jit.trace(model, x),
    "fx": lambda model, x: torch.fx.symbolic_trace(model),
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "functional_call": lambda model, x: lambda y: torch.func.functional_call(model, dict(model.named_parameters()), y),
}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_attached_where_no_state_is_passed(name):
    model, small, x = compacted(name)
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert not any(attachments(m) or m._forward_pre_hooks or m._forward_hooks for m in small.modules())
    noted = {"_sparsernn_dense"}  # the shapes before surgery: plain numbers, for the file
    assert {k for m in small.modules() for k in vars(m)} - noted == {k for m in model.modules() for k in vars(m)}
    assert difference(run(small, x), run(model, x)) <= 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["LSTM of two layers both ways", "GRUCell"])
def test_what_works_with_the_dense_model_works_with_the_small_one(name, way):
    model, small, x = compacted(name)
    with torch.no_grad():
        dense, other = WAYS[way](model, x), WAYS[way](small, x)
        torch.testing.assert_close(other(x), small(x), rtol=0, atol=1e-6)
        torch.testing.assert_close(other(x), dense(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["LSTM", "GRU of two layers", "LSTM of two layers both ways"])
def test_dynamic_quantisation(name):
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without fbgemm")
    model, small, x = compacted(name)
    model, small = model.requires_grad_(False), small.requires_grad_(False)
    quantised = [
        torch.ao.quantization.quantize_dynamic(m, {nn.LSTM, nn.GRU, nn.Linear}, dtype=torch.qint8)(x)
        for m in (model, small)
    ]
    assert float((quantised[0] - quantised[1]).abs().max()) < 0.05
    assert float((model(x) - quantised[1]).abs().max()) < 0.05


class WithState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x, state):
        return self.fc(self.rnn(x, state)[0])


def test_with_states_of_the_dense_width_quantisation_works_as_well():
    torch.manual_seed(0)
    model, x, h = WithState().eval().requires_grad_(False), torch.randn(2, 4, 3), torch.randn(1, 2, 8)
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0, model.fc.weight):
            weight[:, DEAD] = 0.0
    small = srn.compact(model, (x, (h, h)))
    torch.testing.assert_close(small(x, (h, h)), model(x, (h, h)), rtol=0, atol=1e-5)
    left = [k for k in range(8) if k not in DEAD]
    torch.testing.assert_close(small(x, (h[..., left],) * 2), model(x, (h, h)), rtol=0, atol=1e-5)
    quantised = torch.ao.quantization.quantize_dynamic(small, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    assert float((quantised(x, (h, h)) - model(x, (h, h))).abs().max()) < 0.05
    with pytest.raises(ValueError, match=r"width 7; expected \[5\] .* or 8"):
        small(x, (h[..., :7],) * 2)
