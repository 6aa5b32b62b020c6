"""Damaged, foreign, forged and edited files: a clear error that names file and field, or the identical model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from golden import make_v1 as golden
from golden.make_v1 import FOLDER
from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import CheckpointError, load, save


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
    ("format", lambda h, t: h.update(format=3, sparsernn="9.0"), "upgrade"),
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
        lambda h, t: h["attached"].update(lstm=[{"tag": "kept_states", "data": {"rows": {"$tensor": "no"}}}]),
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


class Bare(nn.Module):
    """A parameter of no module in the table: its size is known from the dense model only."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(rows, columns))


def test_bare_parameters_may_only_be_parts_of_the_models(tmp_path):
    save(Bare(3, 2), tmp_path / "m")
    assert load(Bare(4, 2), tmp_path / "m").table.shape == (3, 2)
    for rows, columns in ((2, 2), (3, 1)):
        with pytest.raises(CheckpointError, match=r"tensors.table.shape: got \[3, 2\], which is no part of"):
            load(Bare(rows, columns), tmp_path / "m")


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
@pytest.mark.counts("malformed_files", 5_000)
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
@pytest.mark.counts("malformed_files", 5_000)
def test_many_forged_headers_raise_or_load_the_identical_model(tmp_path):
    fuzz_headers(5_000, tmp_path, seed=4)
