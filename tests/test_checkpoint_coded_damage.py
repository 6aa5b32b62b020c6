"""Edited, damaged and forged files of accelerated models: a clear error, the identical model, or one that runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from golden import make_v2
from golden.make_v2 import FOLDER, GOLDEN, Speller
from sparsernn.structure.coded import BLOCKS, CodedMatrix, Form
from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import CheckpointError
from sparsernn.tensors import TensorFile
from test_checkpoint_damage import corrupt, mutate

pytestmark = pytest.mark.filterwarnings("ignore:.*AVX-512")


def edited(path: Path, change: Any, name: str = "speller") -> Path:
    with TensorFile(FOLDER / f"v2-{name}.safetensors") as file:
        header, values = _container.read_header(file), file.read()
    _container.write_container(path, change(header, values) or header, values)
    return path


def entry(header: dict[str, Any], name: str = "lstm.weight_hh_l0") -> dict[str, Any]:
    return header["tensors"][name]["coded"]


def extra(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """A matrix that no module has, large, of nothing: each bit of its mask stands for a block that is not there."""
    shape, form = [1 << 14, 1 << 14], {"bits": 32, "block": [16, 1], "tile": 1 << 14, "axis": 0}
    header["tensors"]["other"] = {"role": "attribute", "dtype": "float32", "shape": shape, "coded": form}
    tensors[".mask.other"] = torch.zeros(1 << 21, dtype=torch.uint8)
    tensors[".values.other"] = torch.zeros(0, dtype=torch.float32)


def put(tensors: dict[str, Tensor], part: str, change: Any, name: str = "lstm.weight_hh_l0") -> None:
    tensors[f".{part}.{name}"] = change(tensors[f".{part}.{name}"])


EDITS = [
    ("format", lambda h, t: h.update(format=3, sparsernn="9.0"), "upgrade"),
    ("accelerated", lambda h, t: h.update(accelerated=[]), "precision"),
    ("accelerated", lambda h, t: h["accelerated"].update(precision="int4"), "precision"),
    ("accelerated.layers.gru", lambda h, t: h["accelerated"]["layers"].update(gru="int8"), "no such module"),
    ("accelerated.layers.lstm", lambda h, t: h["accelerated"]["layers"].update(lstm="int4"), "one of float32"),
    ("accelerated.layers.lstm", lambda h, t: h["accelerated"]["layers"].update(lstm=["int8"]), "one of float32"),
    ("accelerated.layers", lambda h, t: h["accelerated"]["layers"].update(lstm={"l0": "int8"}), "expected l0, l1"),
    ("accelerated.layers", lambda h, t: h["accelerated"]["layers"].update(embedding="int8"), "Embedding"),
    ("coded", lambda h, t: h["tensors"]["lstm.weight_hh_l0"].update(coded=1), "bits, block"),
    ("coded", lambda h, t: entry(h).pop("tile"), "bits, block"),
    ("coded.bits", lambda h, t: entry(h).update(bits=2), "4, 8, 16"),
    ("coded.bits", lambda h, t: entry(h).update(bits=True), "4, 8, 16"),
    ("coded.values", lambda h, t: entry(h).update(bits=4), "expected U8"),
    ("coded.axis", lambda h, t: entry(h).update(axis=2), "expected 0"),
    ("coded.block", lambda h, t: entry(h).update(block=[3, 3]), "null or one of"),
    ("coded.block", lambda h, t: entry(h).update(block=10**9), "null or one of"),
    ("coded.block", lambda h, t: entry(h).update(block=[16.0, 4.0]), "null or one of"),
    ("coded", lambda h, t: extra(h, t), "of no parameter"),
    ("coded", lambda h, t: (entry(h).update(block=None), put(t, "values", lambda v: v[:1].repeat(1600))), "is there"),
    ("coded.mask", lambda h, t: t.pop(".mask.lstm.weight_hh_l0"), "missing"),
    ("coded.tile", lambda h, t: entry(h).update(tile=10**12), "divisor of 80"),
    ("coded.tile", lambda h, t: entry(h).update(tile=0), "divisor of 80"),
    ("coded.tile", lambda h, t: entry(h).update(tile=3), "divisor of 80"),
    ("coded.scales", lambda h, t: put(t, "scales", lambda v: v[:5].clone()), "expected F32"),
    ("coded", lambda h, t: put(t, "scales", lambda v: v * float("nan")), "a scale is negative"),
    ("coded", lambda h, t: put(t, "scales", lambda v: -v), "a scale is negative"),
    ("coded.values", lambda h, t: put(t, "values", lambda v: v.repeat(90)), "expected I8"),
    ("coded", lambda h, t: put(t, "values", lambda v: v[:-1].clone()), "values, expected"),
    ("coded", lambda h, t: put(t, "values", lambda v: torch.full_like(v, -128)), "out of -127"),
    ("coded", lambda h, t: put(t, "mask", lambda v: torch.zeros_like(v)), "values, expected"),
    ("coded.mask", lambda h, t: put(t, "mask", lambda v: v.repeat(1000)), "expected U8"),
    ("shape", lambda h, t: h["tensors"]["lstm.weight_hh_l0"].update(shape=[80, 10**12]), "coded"),
    ("shape", lambda h, t: h["tensors"]["lstm.weight_hh_l0"].update(shape=[-80, -20]), "whole numbers"),
    ("dtype", lambda h, t: h["tensors"]["lstm.weight_hh_l0"].update(dtype="int64"), "coded.bits"),
    ("tensors.values.other", lambda h, t: t.update({".values.other": torch.ones(3)}), "of no tensor"),
    ("tensors.lstm.weight_hh_l0", lambda h, t: h["tensors"].pop("lstm.weight_hh_l0"), "weight_hh_l0"),
]


@pytest.mark.parametrize(("field", "change", "words"), EDITS)
def test_edited_files_name_the_field(field, change, words, tmp_path):
    path = edited(tmp_path / "m", lambda h, t: (change(h, t), h)[1])
    with pytest.raises(CheckpointError) as caught:
        srn.load(Speller(), path)
    text = str(caught.value)
    assert str(path) in text and words in text, text
    assert field.rpartition(".")[2] in text and len(text.splitlines()) <= 3 and len(text) < 500 + len(str(path))


def test_numbers_of_four_bits_out_of_range_are_refused(tmp_path):
    def change(header: Any, tensors: Any) -> None:
        put(tensors, "values", torch.zeros_like, "gru.weight_hh_l0")

    with pytest.raises(CheckpointError, match=r"weight_hh_l0.coded: a number is out of -7 to 7"):
        srn.load(make_v2.Counter(), edited(tmp_path / "m", change, "counter"))
    odd = CodedMatrix((1, 3), Form(4, None, 1), torch.tensor([0x99, 0x19], dtype=torch.uint8), torch.ones(1))
    assert odd.fault() == "a number is out of -7 to 7" and BLOCKS[0] == (1, 1)


def test_other_models_than_the_saved_one_are_refused_in_a_sentence(tmp_path):
    path = FOLDER / "v2-speller.safetensors"
    narrow = Speller()
    narrow.lstm, narrow.head = nn.LSTM(8, 16, 2, batch_first=True), nn.Linear(16, 9)
    wide = Speller()
    wide.head = nn.Linear(20, 11)
    for other in (narrow, wide, make_v2.Counter(), nn.LSTM(8, 20)):
        with pytest.raises(CheckpointError, match=r"speller.safetensors: (\w+)\..*before accelerate"):
            srn.load(other, path)


def fuzz(count: int, folder: Path, seed: int) -> None:
    rng, path = random.Random(seed), folder / "m"
    states = {name: srn.load(GOLDEN[name][0](), FOLDER / f"v2-{name}.safetensors").state_dict() for name in GOLDEN}
    for n in range(count):
        name = rng.choice(list(GOLDEN))
        path.write_bytes(corrupt((FOLDER / f"v2-{name}.safetensors").read_bytes(), rng))
        try:
            found = srn.load(GOLDEN[name][0](), path).state_dict()
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) <= 3, (seed, n)
            continue
        assert found.keys() == states[name].keys(), (seed, n)
        assert all(torch.equal(value, states[name][key]) for key, value in found.items()), (seed, n)


def fuzz_contents(count: int, folder: Path, seed: int) -> None:
    """Headers and numbers edited by someone who signs them again: a clear error, or a model that runs."""
    rng, x = random.Random(seed), make_v2.example("speller")
    for n in range(count):

        def change(header: Any, tensors: Any) -> Any:
            if rng.random() < 0.3:
                name = rng.choice([name for name in tensors if name.startswith(".")])
                flat = tensors[name].view(torch.uint8).view(-1)
                flat[rng.randrange(len(flat))] = rng.randrange(256)
                return header
            part = rng.choice(["tensors", "tensors", "accelerated", "modules"])
            return header | {part: mutate(header[part], rng)}

        try:
            path = edited(folder / "m", change)
            again = srn.load(Speller(), path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) <= 3, (seed, n)
            continue
        assert again(x).shape == (2, 7, 9), (seed, n)


def test_damaged_files_raise_or_load_the_identical_model(tmp_path):
    fuzz(200, tmp_path, seed=1)


def test_forged_files_raise_or_load_a_model_that_runs(tmp_path):
    fuzz_contents(200, tmp_path, seed=2)


@pytest.mark.nightly
@pytest.mark.counts("malformed_files", 10_000)
def test_many_damaged_and_forged_files(tmp_path):
    fuzz(5_000, tmp_path, seed=3)
    fuzz_contents(5_000, tmp_path, seed=4)
