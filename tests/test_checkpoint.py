"""Saved models: the same model back, golden files for ever, and a clear error for every damaged file."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from contracts.architecture import difference, run
from contracts.architectures import ARCHITECTURES
from contracts.compacted import kill, quiet_compact
from golden import make_v1 as golden
from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.surgery import attachments
from sparsernn.surgery.checkpoint import load, save


@attachments.register_attachment
class Doubling:
    """An attachment for tests: doubles some units of the module's output."""

    tag: ClassVar[str] = "test.doubling"

    def __init__(self, units: Tensor, labels: list[str]) -> None:
        self.units, self.labels = units, labels

    def to_json(self) -> dict:
        return {"units": self.units, "labels": {"names": self.labels}}

    @classmethod
    def from_json(cls, data: dict) -> Doubling:
        if not isinstance(data["units"], Tensor):
            raise ValueError("units is no tensor")
        return cls(data["units"], data["labels"]["names"])

    def attach(self, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _x, y: y.index_add(-1, self.units, y[..., self.units]))
        attachments.remember(module, self)


def same_model(a: nn.Module, b: nn.Module, x: Tensor) -> None:
    assert {name: type(m) for name, m in a.named_modules()} == {name: type(m) for name, m in b.named_modules()}
    assert list(a.state_dict()) == list(b.state_dict())
    for name, value in a.state_dict().items():
        assert value.dtype == b.state_dict()[name].dtype and torch.equal(value, b.state_dict()[name]), name
    assert torch.equal(a(x), b(x))


@pytest.mark.smoke
@pytest.mark.parametrize("name", golden.GOLDEN)
def test_loads_what_it_saved_and_leaves_the_argument_alone(name, tmp_path):
    dense_type, make = golden.GOLDEN[name]
    small, dense = make(), dense_type().eval()
    before = copy.deepcopy(dense.state_dict())
    kinds = [type(m) for m in dense.modules()]
    save(small, tmp_path / "small.safetensors")
    again = load(dense, tmp_path / "small.safetensors")
    same_model(small, again, golden.example(name))
    assert kinds == [type(m) for m in dense.modules()]
    assert all(torch.equal(value, dense.state_dict()[key]) for key, value in before.items())
    assert repr(again) == repr(small)
    # Training can go on, and a second round gives the same file.
    again.train()(golden.example(name)).sum().backward()
    save(again.eval(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").stat().st_size == (tmp_path / "small.safetensors").stat().st_size


@pytest.mark.counts("golden_files", 1)
@pytest.mark.parametrize("name", golden.GOLDEN)
def test_golden_files_load_for_ever(name):
    model = load(golden.GOLDEN[name][0]().eval(), golden.FOLDER / f"v1-{name}.safetensors")
    want = json.loads((golden.FOLDER / f"v1-{name}.json").read_text())
    torch.testing.assert_close(
        model(golden.example(name)).flatten().tolist(), want, rtol=0, atol=1e-12, msg="the golden file's function"
    )


def test_ties_stay_ties_and_are_stored_once(tmp_path):
    save(golden.small_tagger(), tmp_path / "m.safetensors")
    model = load(golden.Tagger(), tmp_path / "m.safetensors")
    assert model.out.weight is model.embedding.weight
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        names = list(file.keys())
    assert "embedding.weight" in names and "out.weight" not in names


def test_keeps_device_mode_and_requires_grad_of_the_argument_and_the_files_dtype(tmp_path):
    save(golden.small_tagger(), tmp_path / "m.safetensors")
    dense = golden.Tagger().float().train()
    dense.embedding.weight.requires_grad_(False)
    dense.lstm.weight_hh_l1.requires_grad_(False)
    model = load(dense, tmp_path / "m.safetensors")
    assert model.training and model.lstm.training and model.bridge.weight.dtype == torch.float64
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["embedding.weight", "lstm.weight_hh_l1"]


class Odd(nn.Module):
    """One module under two names, a parameter in a plain list, a buffer that is not persistent, half precision."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.a = nn.LSTM(3, width, batch_first=True)
        self.b = self.a
        self.table = nn.Parameter(torch.rand(width, 2).half(), requires_grad=False)
        self.listed = [self.table]
        self.register_buffer("positions", torch.arange(width), persistent=False)
        self.register_buffer("nothing", None)
        self.cells = nn.ModuleList([nn.GRUCell(width, width), nn.RNNCell(width, width, nonlinearity="relu")])

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)[0][:, -1] + self.b(x)[0][:, 0] + self.positions
        for cell in self.cells:
            h = cell(h)
        return h @ self.listed[0].float()


def test_shared_modules_caches_and_plain_references_follow(tmp_path):
    torch.manual_seed(0)
    small = Odd(2)
    small.positions += 1
    save(small, tmp_path / "m.safetensors")
    model = load(Odd(), tmp_path / "m.safetensors")
    assert model.b is model.a and model.a.hidden_size == 2 and model.cells[0].hidden_size == 2
    assert model.listed[0] is model.table
    same_model(small, model, torch.randn(2, 5, 3))


def test_a_module_alone_and_a_projection(tmp_path):
    torch.manual_seed(0)
    small = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True, proj_sizes=[(2, 1), (1, 6)], dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    save(small, tmp_path / "m.safetensors")
    model = load(nn.LSTM(3, 9, 2, bidirectional=True, proj_size=7), tmp_path / "m.safetensors")
    assert isinstance(model, RaggedLSTM) and torch.equal(model(x)[0], small(x)[0])
    gated = GatedLSTM.from_dense(small)
    save(gated, tmp_path / "g.safetensors")
    assert torch.equal(load(model, tmp_path / "g.safetensors")(x)[0], gated(x)[0])
    plain = nn.LSTM(2, 3, 2, bidirectional=True, proj_size=2).double()
    save(plain, tmp_path / "p.safetensors")
    again = load(nn.LSTM(3, 9, 2, bidirectional=True, proj_size=7), tmp_path / "p.safetensors")
    assert (again.input_size, again.hidden_size, again.proj_size) == (2, 3, 2)
    assert torch.equal(again(x[..., :2])[0], plain(x[..., :2])[0])


def test_what_surgery_attached_comes_back(tmp_path):
    small = golden.small_tagger()
    Doubling(torch.tensor([1, 3]), ["a", "b"]).attach(small.bridge)
    x = golden.example("tagger")
    want = small(x)
    save(small, tmp_path / "m.safetensors")
    model = load(golden.Tagger().eval(), tmp_path / "m.safetensors")
    assert torch.equal(model(x), want)
    (found,) = attachments.attachments(model.bridge)
    assert isinstance(found, Doubling) and found.labels == ["a", "b"]
    with pytest.raises(ValueError, match="freshly built"):
        load(model, tmp_path / "m.safetensors")


def round_trip(name: str, folder: Path) -> None:
    """Compact an architecture as users write them, save it, load it: the same outputs to the bit."""
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    kill(architecture, model, 0.5, seed=1)
    examples = architecture.examples()
    small = quiet_compact(model, examples[0])
    want = run(small, examples)
    save(small, folder / "m.safetensors")
    again = load(architecture.model(), folder / "m.safetensors")
    assert difference(run(again, examples), want) == 0
    assert [(key, v.shape, v.dtype) for key, v in again.state_dict().items()] == [
        (key, v.shape, v.dtype) for key, v in small.state_dict().items()
    ]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", list(ARCHITECTURES)[::6])
def test_compacted_architectures_come_back(name, tmp_path):
    round_trip(name, tmp_path)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_compacted_architecture_comes_back(name, tmp_path):
    round_trip(name, tmp_path)


def test_save_is_atomic_and_says_what_it_cannot_hold(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(nn.Linear(2, 3), path)
    old = path.read_bytes()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(nn.Linear(2, 4), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["m.safetensors"]

    class Unregistered(Doubling):
        tag = "test.unregistered"

    odd = nn.Linear(2, 2)
    attachments.remember(odd, Unregistered(torch.tensor([0]), []))
    for model, words in (
        (nn.LazyLinear(3), "lazy"),
        (nn.Linear(2, 2, device="meta"), "meta"),
        (nn.Linear(2, 2, dtype=torch.complex64), "complex64"),
        (odd, "no registered attachment"),
        ("model", "expected a torch.nn.Module"),
    ):
        with pytest.raises(TypeError, match=words):
            save(model, path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        save(nn.Linear(2, 3), tmp_path / "none" / "m.safetensors")
    assert path.read_bytes() == old
