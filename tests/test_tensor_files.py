"""Reading tensors: in memory of their own, in proportion to the file, and a sentence for whatever is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sparsernn import tensors
from sparsernn.surgery.checkpoint import CheckpointError, load, save
from sparsernn.tensors import DTYPES, TensorFile
from sparsernn_studies import checkpoint as training


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list | None = None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(dtype, tmp_path):
    values = {"a": torch.arange(6).view(2, 3).to(dtype), "none": torch.zeros(0, 3, dtype=dtype), "one": torch.tensor(1)}
    save_file(values, tmp_path / "f")
    with TensorFile(tmp_path / "f") as file:
        found = file.read()
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


BAD = {
    "overlapping": {"a": entry(0, 8), "b": entry(4, 12)},
    "a hole": {"a": entry(0, 4), "b": entry(8, 12)},
    "the same bytes twice": {"a": entry(0, 12), "b": entry(0, 12)},
    "beyond the end": {"a": entry(0, 16)},
    "bytes left over": {"a": entry(0, 8)},
    "negative": {"a": entry(-4, 8)},
    "backwards": {"a": entry(12, 0, [3])},
    "more elements than bytes": {"a": entry(0, 12, [2**40])},
    "sizes that overflow": {"a": entry(0, 12, [2**33, 2**33])},
    "a negative size": {"a": entry(0, 12, [-3])},
    "a size that is no whole number": {"a": entry(0, 12, [3.0])},
    "a size that is a truth": {"a": entry(0, 4, [True]), "b": entry(4, 12)},
    "not a number": b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,12]}}',
    "nested": b"[" * 50_000,
    "deep metadata": {"__metadata__": {"sparsernn": {"a": 1}}, "a": entry(0, 12)},
    "a list": [1, 2],
    "an unknown dtype": {"a": entry(0, 12, dtype="F33")},
    "half a character": b'{"\\ud800":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}',
}


@pytest.mark.parametrize("name", BAD)
def test_headers_that_lie_are_refused(name, tmp_path):
    path = raw(tmp_path / "f", BAD[name], bytes(12))
    with pytest.raises(ValueError, match=r"cut short, damaged or no safetensors file|far more than"):
        TensorFile(path)
    with pytest.raises(CheckpointError) as caught:
        load(nn.Linear(2, 2), path)
    assert str(caught.value).startswith(f"{path}: file: ") and "\n" not in str(caught.value)
    with pytest.raises(training.CheckpointError, match="truncated or not a checkpoint"):
        training.read(path)


def test_names_from_a_file_are_printed_as_plain_text(tmp_path):
    save(nn.Linear(2, 2), tmp_path / "m")
    with TensorFile(tmp_path / "m") as file:
        header, values = json.loads(file.metadata["sparsernn"]), file.read()
    name = "\x1b[31mred\nline\ud800"
    header["modules"][name] = {"class": "Linear"}
    text = json.dumps(header)
    save_file(values, tmp_path / "f", {"sparsernn": text, "sha256": ""})
    with pytest.raises(CheckpointError) as caught:
        load(nn.Linear(2, 2), tmp_path / "f")
    assert "no such module" in str(caught.value) and str(caught.value).isprintable()
    str(caught.value).encode()


def mebibytes(key: str) -> float:
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 1024


def peak(path: Path, model: nn.Module) -> float:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = mebibytes("VmRSS:")
    try:
        load(model, path)
    except CheckpointError as error:
        assert "far more than" in str(error)
    return mebibytes("VmHWM:") - before


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
def test_memory_stays_below_twice_the_file(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    save(nn.Linear(2048, 4096), good)
    raw(bad, {"__metadata__": {f"k{n}": "v" for n in range(300_000)}})
    for path, rows in ((good, 4096), (bad, 1)):
        assert peak(path, nn.Linear(2048, rows)) < 2 * path.stat().st_size / 2**20


def test_tensors_outlive_their_file(tmp_path):
    model = nn.LSTM(8, 64)
    save(model, tmp_path / "m")
    training.write(tmp_path / "t", {"weight": model.weight_hh_l0, "step": 3})
    again, state = load(nn.LSTM(8, 64), tmp_path / "m"), training.read(tmp_path / "t")
    for name in ("m", "t"):
        os.truncate(tmp_path / name, 0)
        (tmp_path / name).unlink()
    assert torch.equal(again.weight_hh_l0, model.weight_hh_l0) and torch.equal(state["weight"], model.weight_hh_l0)


@pytest.mark.parametrize("left", [0, 4, 8, 100, -4000, -1])
def test_cut_after_the_header_was_read(left, tmp_path):
    path = tmp_path / "f"
    save_file({"a": torch.ones(1000), "b": torch.ones(500)}, path)
    with TensorFile(path) as file:
        os.truncate(path, left % path.stat().st_size)
        with pytest.raises(ValueError, match="cut short: it ends within the tensor"):
            file.read()


def test_a_header_that_would_be_refused_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "m"
    monkeypatch.setattr(tensors, "most_values", lambda size: 100)
    with pytest.raises(ValueError, match="too many parts"):
        save(nn.ModuleList([nn.Linear(1, 1) for _ in range(9)]), path)
    assert not path.exists()
    save(nn.Linear(1, 1), path)
    load(nn.Linear(1, 1), path)
