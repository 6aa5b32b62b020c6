"""Saved models: the same model back, golden files for ever, and a clear error for every damaged file."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import random
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.surgery import _container, attachments
from sparsernn.surgery.checkpoint import CheckpointError, load, save

FOLDER = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("golden_v1", FOLDER / "make_v1.py")
assert _spec is not None and _spec.loader is not None
golden = importlib.util.module_from_spec(_spec)
sys.modules["golden_v1"] = golden
_spec.loader.exec_module(golden)


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


@pytest.mark.parametrize("name", golden.GOLDEN)
def test_golden_files_load_for_ever(name):
    model = load(golden.GOLDEN[name][0]().eval(), FOLDER / f"v1-{name}.safetensors")
    want = json.loads((FOLDER / f"v1-{name}.json").read_text())
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


def edited(path: Path, change) -> Path:
    """The golden tagger with its header and tensors changed by `change` and signed again."""
    source = FOLDER / "v1-tagger.safetensors"
    with safe_open(source, "pt") as file:
        header = json.loads(file.metadata()["sparsernn"])
        names = list(file.keys())
        tensors = {name: file.get_tensor(name).clone() for name in names}
    header = change(header, tensors) or header
    _container.write_container(path, header, tensors)
    return path


EDITS = [
    ("format", lambda h, t: h.update(format=2, sparsernn="9.0"), "upgrade"),
    ("format", lambda h, t: h.update(format="1"), "whole number"),
    ("modules", lambda h, t: h.pop("modules"), "object"),
    ("modules", lambda h, t: h.update(modules=[1]), "object"),
    ("ties", lambda h, t: h.update(ties={"out.weight": 3}), "object"),
    ("modules.lstm", lambda h, t: h["modules"].pop("lstm"), "missing"),
    ("modules.other", lambda h, t: h["modules"].update(other={"class": "Linear"}), "no such module"),
    ("modules.lstm.class", lambda h, t: h["modules"]["lstm"].update({"class": "os.system"}), "expected one of"),
    ("modules.lstm.class", lambda h, t: h["modules"]["lstm"].update({"class": ["LSTM"]}), "expected one of"),
    ("modules.lstm.class", lambda h, t: h["modules"]["lstm"].update({"class": "RaggedGRU"}), "has a LSTM"),
    ("modules.bridge.class", lambda h, t: h["modules"]["bridge"].update({"class": "LSTM"}), "has a Linear"),
    ("modules.bridge.in_features", lambda h, t: h["modules"]["bridge"].update(in_features=10**12), "1 to 12"),
    ("modules.bridge.in_features", lambda h, t: h["modules"]["bridge"].update(in_features=5.0), "1 to 12"),
    ("modules.bridge.in_features", lambda h, t: h["modules"]["bridge"].update(in_features=True), "1 to 12"),
    ("modules.bridge.out_features", lambda h, t: h["modules"]["bridge"].pop("out_features"), "1 to 4"),
    ("modules.lstm.input_size", lambda h, t: h["modules"]["lstm"].update(input_size=-1), "1 to 4"),
    ("modules.lstm.hidden_sizes", lambda h, t: h["modules"]["lstm"].update(hidden_sizes=[[3, 2]]), "2 lists of 2"),
    ("modules.lstm.hidden_sizes[1][0]", lambda h, t: h["modules"]["lstm"]["hidden_sizes"][1].__setitem__(0, 7), "1 to"),
    ("modules.lstm.hidden_sizes[1][0]", lambda h, t: h["modules"]["lstm"]["hidden_sizes"][1].__setitem__(0, None), "1"),
    ("modules.lstm.proj_sizes", lambda h, t: h["modules"]["lstm"].update(proj_sizes=[[1, 1]] * 2), "no projection"),
    ("tensors.lstm.weight_ih_l1", lambda h, t: h["modules"]["lstm"]["hidden_sizes"][0].__setitem__(0, 2), "sizes give"),
    ("tensors.bridge.bias", lambda h, t: t.pop("bridge.bias"), "only one of the two headers"),
    ("tensors.bridge.bias", lambda h, t: (t.pop("bridge.bias"), h["tensors"].pop("bridge.bias")), "missing"),
    ("tensors.extra", lambda h, t: t.update(extra=torch.ones(2)), "only one of the two headers"),
    ("tensors.bridge.bias.dtype", lambda h, t: h["tensors"]["bridge.bias"].update(dtype="float32"), "data are F64"),
    ("tensors.bridge.bias.dtype", lambda h, t: h["tensors"]["bridge.bias"].update(dtype=["x"]), "data are F64"),
    ("tensors.bridge.bias.shape", lambda h, t: h["tensors"]["bridge.bias"].update(shape=[2, 2]), "data are"),
    ("tensors.bridge.bias.shape", lambda h, t: h["tensors"]["bridge.bias"].update(shape=[4.0]), "whole numbers"),
    ("tensors.bridge.bias.role", lambda h, t: h["tensors"]["bridge.bias"].update(role="buffer"), "parameter there"),
    ("tensors.out.weight", lambda h, t: h["ties"].pop("out.weight"), "out.weight"),
    ("tensors.x.weight", lambda h, t: h["ties"].update({"x.weight": "embedding.weight"}), "no such parameter"),
    ("attached.zzz", lambda h, t: h["attached"].update(zzz=[]), "no such module"),
    ("attached.lstm[0].tag", lambda h, t: h["attached"].update(lstm=[{"tag": "os", "data": {}}]), "does not know"),
    ("attached.lstm[0].tag", lambda h, t: h["attached"].update(lstm=[7]), "does not know"),
    (
        "attached.lstm[0].data",
        lambda h, t: h["attached"].update(lstm=[{"tag": "test.doubling", "data": {"units": {"$tensor": "no"}}}]),
        "KeyError",
    ),
]


@pytest.mark.parametrize(("field", "change", "words"), EDITS)
def test_edited_headers_name_the_field(field, change, words, tmp_path):
    def apply(header: dict, tensors: dict) -> None:
        change(header, tensors)

    path = edited(tmp_path / "edited.safetensors", apply)
    with pytest.raises(CheckpointError) as caught:
        load(golden.Tagger(), path)
    text = str(caught.value)
    assert str(path) in text and field.rsplit(".", 1)[0] in text and words in text
    assert len(text.splitlines()) <= 3 and len(text) < 400 + len(str(path))


def test_dtypes_that_do_not_fit_and_rows_out_of_range(tmp_path):
    def whole(header: dict, tensors: dict) -> None:
        tensors["bridge.bias"] = tensors["bridge.bias"].long()
        header["tensors"]["bridge.bias"]["dtype"] = "int64"

    with pytest.raises(CheckpointError, match=r"bridge.bias.dtype: got int64"):
        load(golden.Tagger(), edited(tmp_path / "a", whole))
    small = GatedLSTM(2, [3], [[(1, 2, 3, 0)]])
    small.rows_l0[0] = 10**9
    save(small, tmp_path / "b")
    with pytest.raises(CheckpointError, match="rows_l0"):
        load(nn.LSTM(2, 3), tmp_path / "b")
    small = GatedLSTM(2, [3], [[(1, 2, 3, 0)]])
    save(small, tmp_path / "c")
    with pytest.raises(CheckpointError, match="input_size"):
        load(nn.LSTM(1, 3), tmp_path / "c")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: torch.save({"a": torch.ones(2)}, p), "a pickle"),
        (lambda p: safetensors.torch.save_file({"a": torch.ones(2)}, p), "sparsernn.save did not write this"),
        (lambda p: p.write_bytes(b""), "too few"),
        (lambda p: p.write_text("hello, this is no model, just some text"), "no safetensors file"),
        (lambda p: p.write_bytes((1 << 60).to_bytes(8, "little") + b"{}"), "too few for its header"),
        (lambda p: p.write_bytes((2).to_bytes(8, "little") + b"[]"), "no safetensors file"),
        (lambda p: _container_with(p, "[" * 100_000 + "]" * 100_000), "no valid JSON|more than"),
        (lambda p: _container_with(p, '{"format": NaN}'), "NaN is no number"),
        (lambda p: _container_with(p, '{"format": 1, "format": 1}'), "a key stands twice"),
        (lambda p: _container_with(p, '{"format": ' + "9" * 5000 + "}"), "no valid JSON"),
        (lambda p: _container_with(p, "[" + "1," * 300_000 + "1]"), "more than"),
        (lambda p: _container_with(p, "[1]"), "JSON object"),
    ],
)
def test_foreign_files_get_a_sentence(make, words, tmp_path):
    path = tmp_path / "m.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(nn.Linear(2, 2), path)
    assert len(str(caught.value)) < 400 + len(str(path))


def _container_with(path: Path, text: str) -> None:
    safetensors.torch.save_file({"weight": torch.ones(2, 2)}, path, {"sparsernn": text, "sha256": ""})


def test_absent_files_and_wrong_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(nn.Linear(2, 2), tmp_path / "none")
    with pytest.raises(TypeError, match="freshly built"):
        load({"a": 1}, tmp_path)


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path, monkeypatch):
    def huge(header: dict, tensors: dict) -> None:
        header["modules"]["lstm"]["hidden_sizes"] = [[2**40, 2**40]] * 2

    path = edited(tmp_path / "huge.safetensors", huge)
    built: list[tuple] = []
    monkeypatch.setattr(RaggedLSTM, "__init__", lambda self, *a, **k: built.append(a))
    with pytest.raises(CheckpointError, match="hidden_sizes"):
        load(golden.Tagger(), path)
    assert not built


def corrupt(data: bytes, rng: random.Random) -> bytes:
    """One damage: flipped bits, a cut, an insertion, a swap of two parts, or an edited text in the header."""
    kind = rng.randrange(6)
    raw = bytearray(data)
    header_end = 8 + int.from_bytes(data[:8], "little")
    if kind == 0:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        raw[rng.randrange(header_end)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del raw[rng.randrange(len(raw)) :]
    elif kind == 3:
        place = rng.randrange(len(raw))
        raw[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 4:
        a, b = sorted(rng.sample(range(len(raw)), 2))
        raw[a : a + 16], raw[b : b + 16] = raw[b : b + 16], raw[a : a + 16]
    else:
        digits = [n for n in range(8, header_end) if 48 <= raw[n] <= 57]
        raw[rng.choice(digits)] = rng.choice(b"0123456789-.e")
    return bytes(raw)


def fuzz(count: int, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = folder / "m.safetensors"
    states = {name: make().state_dict() for name, (_, make) in golden.GOLDEN.items()}
    for n in range(count):
        name = rng.choice(list(golden.GOLDEN))
        path.write_bytes(corrupt((FOLDER / f"v1-{name}.safetensors").read_bytes(), rng))
        try:
            model = load(golden.GOLDEN[name][0](), path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) <= 3, (seed, n)
            continue
        found = model.state_dict()
        assert found.keys() == states[name].keys(), (seed, n)
        assert all(torch.equal(value, states[name][key]) for key, value in found.items()), (seed, n)


def test_damaged_files_raise_or_load_the_identical_model(tmp_path):
    fuzz(400, tmp_path, seed=1)


@pytest.mark.nightly
def test_many_damaged_files_raise_or_load_the_identical_model(tmp_path):
    fuzz(5_000, tmp_path, seed=2)


def mutate(value, rng: random.Random):
    """`value`, a JSON value, with one part of it replaced by something odd."""
    odd = [None, True, -1, 0, 1, 2, 7, 10**18, 1.5, "x", "", [], {}, [[]], [[1, 2], [3, 4]], {"class": "LSTM"}]
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        n = rng.randrange(len(value))
        return value[:n] + [mutate(value[n], rng)] + value[n + 1 :]
    return rng.choice(odd)


def fuzz_headers(count: int, folder: Path, seed: int) -> None:
    """Headers edited by someone who signs them again: a clear error, or a model that fits the dense one."""
    rng = random.Random(seed)
    path = folder / "m.safetensors"
    x = golden.example("tagger")
    for n in range(count):
        edited(path, lambda header, _tensors: mutate(header, rng))
        try:
            model = load(golden.Tagger().eval(), path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) <= 3, (seed, n)
            continue
        assert torch.equal(model(x), golden.small_tagger()(x)), (seed, n)


def test_forged_headers_raise_or_load_the_identical_model(tmp_path):
    fuzz_headers(300, tmp_path, seed=3)


@pytest.mark.nightly
def test_many_forged_headers_raise_or_load_the_identical_model(tmp_path):
    fuzz_headers(5_000, tmp_path, seed=4)
