"""What a file says of modules: nothing of wrappers, one of a layer of two names, and how one was accelerated."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.split import SplitGRU, SplitLSTM
from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import CheckpointError, load, save
from sparsernn.tensors import TensorFile


class Inner(nn.Module):
    def __init__(self, wrap: Any = lambda m: m) -> None:
        super().__init__()
        self.rnn = wrap(nn.LSTM(3, 4, batch_first=True))
        self.head = wrap(nn.Sequential(wrap(nn.Linear(4, 2))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


WRAPPERS = {
    "none": lambda m: m,
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "data parallel": nn.DataParallel,
    "both": lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
}


@pytest.mark.parametrize("outside", WRAPPERS)
@pytest.mark.parametrize("inside", WRAPPERS)
def test_wrappers_are_no_part_of_a_file(inside, outside, tmp_path):
    model, x = Inner(WRAPPERS[inside]), torch.randn(2, 5, 3)
    want = model(x) if inside == "none" else None
    save(WRAPPERS[outside](model), tmp_path / "m")
    for other in WRAPPERS.values():
        dense = other(Inner(WRAPPERS["none" if other is WRAPPERS["both"] else inside]))
        again = load(dense, tmp_path / "m")
        assert type(again) is Inner and type(again.rnn) is nn.LSTM and type(again.head) is nn.Sequential
        assert want is None or torch.equal(again(x), want)
        assert [name for name, _ in again.named_parameters()] == [name for name, _ in Inner().named_parameters()]


def gated() -> nn.Module:
    dense = nn.LSTM(4, 6)
    with torch.no_grad():
        dense.weight_ih_l0[:6] = dense.weight_hh_l0[:6] = 0
    return GatedLSTM.from_dense(dense)


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.a = layer
        self.more = nn.ModuleList([layer, nn.Linear(6, 2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.more[1](self.a(x)[0] + self.more[0](x)[0])


LAYERS = {
    "gated": (gated, lambda: nn.LSTM(4, 6)),
    "split": (lambda: SplitLSTM(4, 6, blocks=2), lambda: SplitLSTM(4, 6, blocks=2)),
    "split GRU": (lambda: SplitGRU(4, 6, blocks=3), lambda: SplitGRU(4, 6, blocks=3)),
    "plain": (lambda: nn.GRU(4, 6), lambda: nn.GRU(4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_two_names_stays_one(name, tmp_path):
    make, dense = LAYERS[name]
    model, x = Twice(make()).eval(), torch.randn(3, 2, 4)
    save(model, tmp_path / "m")
    again = load(Twice(dense()).eval(), tmp_path / "m")
    assert again.a is again.more[0] and type(again.a) is type(model.a) and torch.equal(again(x), model(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


@pytest.mark.filterwarnings("ignore:.*AVX-512")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", {"*": "bfloat16", "head": "float32"}])
def test_a_file_of_format_1_says_what_an_accelerated_model_was_and_how_to_get_it_again(precision, tmp_path):
    model, x, path = Net().eval(), torch.randn(2, 5, 8), tmp_path / "m"
    fast = srn.accelerate(model, precision=precision)
    save(model, path)
    with TensorFile(path) as file:
        header, values = _container.read_header(file), file.read()
    own = {name: fast.get_submodule(name)._engine.precision for name in ("lstm", "head")}
    _container.write_container(path, header | {"precision": own}, values)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = load(Net().eval(), path)
    assert torch.equal(again(x), model(x)) and type(again.lstm) is nn.LSTM
    assert torch.equal(srn.accelerate(again, precision=precision)(x), fast(x))
    assert len(told) == (0 if precision == "float32" else 1)
    for one in told:
        text = str(one.message)
        assert "float32" in text and "accelerate(load(model, path), precision=" in text and one.filename == __file__
        given = ast.literal_eval(text.rpartition("precision=")[2].partition(") makes")[0])  # the words themselves work
        assert torch.equal(srn.accelerate(again, precision=given)(x), fast(x))


def test_a_file_of_an_accelerated_model_that_does_not_fit_says_why(tmp_path):
    save(srn.accelerate(SplitLSTM(4, 32, blocks=2).eval()), tmp_path / "m")
    with pytest.raises(CheckpointError, match="save the one before accelerate"):
        load(SplitLSTM(4, 32, blocks=2), tmp_path / "m")


def test_the_record_of_precisions_is_checked(tmp_path):
    path = Path(tmp_path / "m")
    save(Net().eval(), path)
    with TensorFile(path) as file:
        header, values = _container.read_header(file), file.read()
    for odd in (None, [], 3, {"lstm": "int4"}, {"lstm": None}, {"lstm": ["int8"]}, "int8"):
        _container.write_container(path, header | {"precision": odd}, values)
        with pytest.raises(CheckpointError, match="precision: got "):
            load(Net(), path)


def test_a_file_that_does_not_speak_of_norms_of_each_channel_loads(tmp_path):
    """As those that were written before such norms could be cut."""
    model, path = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(4, 8), nn.LayerNorm(8)), tmp_path / "early.safetensors"
    srn.save(model, path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["sparsernn"])
        values = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    assert header["modules"].pop("1")["class"] == "GroupNorm"
    _container.write_container(path, header, values)
    again = srn.load(nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(4, 8), nn.LayerNorm(8)), path)
    x = torch.randn(3, 4)
    assert torch.equal(again(x), model(x))
