"""`export_c` of whole models: what it writes, what it refuses, and that nothing is half written."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from export_programs import compiled, needs_compiler
from program_models import STREAMS
from program_steps import STEPS
from sparsernn.export.integers import pack_int8
from sparsernn.export.places import row_major
from sparsernn.export.products import Dense, Tables, pack

MODELS = ("CRN", "stride 2", "values so far", "attention over a memory", "valid conv")


class Tagger(nn.Module):
    def __init__(self, cls: type[nn.RNNBase] = nn.GRU, **options: Any) -> None:
        super().__init__()
        self.rnn = cls(6, 20, batch_first=True, **options)
        self.head = nn.Linear(20 * (1 + self.rnn.bidirectional), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


@needs_compiler
@pytest.mark.parametrize("weights", ["source", "file"])
def test_c_is_the_model_step_by_step(tmp_path, weights):
    torch.manual_seed(0)
    model = Tagger().eval()
    report = srn.export_c(model, tmp_path, "tagger", weights=weights)
    assert report == json.loads((tmp_path / "tagger.json").read_text())
    written = {"tagger.c", "tagger.h", "tagger.json", "tagger_test.c"} | (
        {"tagger.bin"} if weights == "file" else set()
    )
    assert {p.name for p in tmp_path.iterdir()} == written
    library = compiled(tmp_path, ["tagger"], ["-O2"])
    blob = (tmp_path / "tagger.bin").read_bytes() if weights == "file" else b""
    loaded = [(ctypes.c_uint32 * (len(blob) // 4)).from_buffer_copy(blob)] if blob else []
    assert library.tagger_test(*loaded) == 0
    state = (ctypes.c_char * report["ram"]["state"])()
    x, y = torch.randn(1, 30, 6), torch.zeros(1, 30, 3)
    library.tagger_reset(state)
    for t in range(30):
        given, out = (ctypes.c_float * 6)(*x[0, t]), (ctypes.c_float * 3)()
        assert library.tagger_step(state, *loaded, given, out) == 0
        y[0, t] = torch.tensor(list(out))
    torch.testing.assert_close(y, model(x), atol=1e-5, rtol=0)


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_file_of_weights_is_checked_before_it_is_used(tmp_path, precision):
    srn.export_c(Tagger().eval(), tmp_path, "one", precision=precision, weights="file")
    srn.export_c(Tagger().eval(), tmp_path, "two", precision=precision, weights="file")
    one, two = ((tmp_path / f"{name}.bin").read_bytes() for name in ("one", "two"))
    library = compiled(tmp_path, ["one"], ["-O2"])

    def opened(data: bytes, shift: int = 0) -> int:
        memory = (ctypes.c_uint8 * (len(data) + shift)).from_buffer_copy(bytes(shift) + data)
        return library.one_open(ctypes.byref(memory, shift), len(data))

    assert opened(one) == 0
    assert opened(one[:-4]) == 1
    assert opened(one, 1) == 2
    assert opened(b"SRNX" + one[4:]) == 3
    assert opened(one[:4] + bytes([9]) + one[5:]) == 3
    assert opened(one[:40] + bytes([one[40] ^ 1]) + one[41:]) == 4
    assert opened(two) == 4


@needs_compiler
def test_causal_models_of_many_kinds_give_the_bits_of_the_oracle(tmp_path):
    names = []
    for number, (make, example, *options) in enumerate([*(STREAMS[name] for name in MODELS), *[*STEPS.values()][:2]]):
        torch.manual_seed(number)
        names.append(f"net{number}")
        srn.export_c(make().eval(), tmp_path, names[-1], example(), **(options[0] if options else {}))
    library = compiled(tmp_path, names, ["-O2", "-march=native"])
    assert {name: getattr(library, f"{name}_test")() for name in names} == dict.fromkeys(names, 0)


@needs_compiler
def test_a_copy_of_the_state_is_a_snapshot_and_states_run_side_by_side(tmp_path):
    torch.manual_seed(0)
    size = srn.export_c(Tagger(nn.LSTM).eval(), tmp_path)["ram"]["state"]
    library = compiled(tmp_path, ["model"], ["-O2"])
    one, other = ((ctypes.c_char * size)() for _ in range(2))
    out = (ctypes.c_float * 3)()

    def step(state: Any, value: float) -> list[float]:
        assert library.model_step(state, (ctypes.c_float * 6)(*[value] * 6), out) == 0
        return list(out)

    library.model_reset(one)
    library.model_reset(other)
    alone = [step(one, 0.1 * t) for t in range(4)]
    library.model_reset(one)
    for t in range(4):
        step(other, -1.0)
        assert step(one, 0.1 * t) == alone[t]
    snapshot = bytes(one)
    after = step(one, 5.0)
    ctypes.memmove(one, snapshot, size)
    assert step(one, 5.0) == after


@needs_compiler
def test_a_token_out_of_range_is_refused_and_changes_nothing(tmp_path):
    model = nn.Sequential(nn.Embedding(7, 4), Tagger().rnn.__class__(4, 5, batch_first=True)).eval()
    report = srn.export_c(model, tmp_path, batch=2)
    library = compiled(tmp_path, ["model"], ["-O2"])
    state = (ctypes.c_char * report["ram"]["state"])()
    outputs = [(ctypes.c_float * 64)() for _ in report["outputs"]]
    library.model_reset(state)
    assert library.model_step(state, (ctypes.c_int32 * 2)(3, 6), *outputs) == 0
    before = bytes(state)
    for tokens in ((3, 7), (-1, 2)):
        assert library.model_step(state, (ctypes.c_int32 * 2)(*tokens), *outputs) == 1
    assert bytes(state) == before


class Levels(nn.Module):
    """Reads the word of the level, of five, that its input has between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(5, 3), nn.GRU(3, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.embedding((x.clamp(0, 0.99) * 5).long()))[0]


@needs_compiler
def test_a_token_that_the_model_computes_never_reads_outside_its_table(tmp_path):
    torch.manual_seed(0)
    report = srn.export_c(Levels().eval(), tmp_path, example=torch.rand(1, 9))
    library = compiled(tmp_path, ["model"], ["-O2"])

    def fresh(x: float) -> list[float]:
        state, out = (ctypes.c_char * report["ram"]["state"])(), (ctypes.c_float * 6)()
        library.model_reset(state)
        assert library.model_step(state, (ctypes.c_float * 1)(x), out) == 0
        return list(out)

    words = [fresh(x) for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert len({tuple(word) for word in words}) == 5
    assert fresh(float("nan")) in words  # which whole number that is, C leaves open


def test_the_batch_is_that_of_the_call_whatever_the_example_has(tmp_path):
    report = srn.export_c(Tagger().eval(), tmp_path, example=torch.randn(5, 9, 6), batch=2)
    assert report["inputs"][0]["shape"] == [2, 6]


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "two words"}, "beginning of C names"),
        ({"name": "while"}, "beginning of C names"),
        ({"name": "8bit"}, "beginning of C names"),
        ({"precision": "float16"}, "expected 'float32' or 'int8'"),
        ({"weights": "flash"}, "expected 'source' or 'file'"),
        ({"batch": 0}, "how many sequences"),
        ({"batch": True}, "how many sequences"),
        ({"name": "signal"}, "a header of C's library has it"),
        ({"name": "net_test"}, "NAME_test.c is the test of NAME"),
        ({"name": "match", "wrappers": ["rust"]}, r"match.rs can't be a module"),
        ({"name": "numpy", "wrappers": ["python"]}, r"numpy.py can't be a module"),
        ({"wrappers": None}, "expected several of"),
        ({"example": torch.zeros(0, 9, 6)}, "the example has no rows"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        srn.export_c(Tagger().eval(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


class Later(nn.Module):
    """Looks at what comes after."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.flip(1))[0]


def spoilt() -> nn.Module:
    model = Tagger().eval()
    with torch.no_grad():
        model.head.weight[1, 2] = torch.inf
    return model


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Tagger().train(), "training mode"),
        (lambda: srn.accelerate(Tagger().eval()), "is accelerated"),
        (lambda: Tagger(bidirectional=True).eval(), "Tagger can't run step by step.*bidirectional"),
        (lambda: Later().eval(), r"Later can't run step by step: flip \(test_export_c.py:\d+\)"),
        (spoilt, "1 numbers that are infinite or not a number"),
        (lambda: nn.Sequential(nn.ReLU()).eval(), "give an example"),
        (lambda: nn.Sequential(nn.Conv1d(4, 6, 1), nn.Linear(9, 2)).eval(), r"inputs of shape \(1, 16, 9\), which one"),
    ],
)
def test_models_that_are_no_c_are_refused_before_anything_is_written(tmp_path, make, message):
    with pytest.raises((ValueError, RuntimeError), match=f"(?s)export_c: .*{message}"):
        srn.export_c(make(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_example_that_tells_nothing_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="export_c: on the example the model gives no number that is finite"):
        srn.export_c(Tagger().eval(), tmp_path / "out", example=torch.full((1, 9, 6), torch.nan))
    assert not (tmp_path / "out").exists()


def test_an_operation_that_c_lacks_is_named(tmp_path):
    class Powers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x + 1) ** 1.7

    with pytest.raises(ValueError, match=r"export_c: pow \(test_export_c.py:\d+\) can't be written in C: C has powers"):
        srn.export_c(Powers().eval(), tmp_path / "out", example=torch.randn(1, 9, 4))
    assert not (tmp_path / "out").exists()


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    model = Tagger().eval()
    srn.export_c(model, tmp_path)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with torch.no_grad():
        model.head.weight *= 2
    count = iter(range(100))
    real = os.fsync

    def full(descriptor: int) -> None:
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        srn.export_c(model, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == old


def test_a_folder_that_is_a_file_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError):
        srn.export_c(Tagger().eval(), tmp_path / "out")
    with pytest.raises(OSError):
        srn.export_c(Tagger().eval(), tmp_path / "out" / "inside" / "it")
    assert Path(tmp_path / "out").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_columns_that_16_bits_do_not_number_are_not_taken_by_their_numbers(precision):
    weight = np.zeros((4, 65_540), np.float32)
    weight[:, ::97] = 1
    if precision == "int8":
        packed = pack_int8(weight, 1, Tables(), row_major("q", (65_540,), 0, "int8"))
        assert not packed.gathered  # words of four columns are numbered instead
    else:
        assert isinstance(pack(weight, 1, Tables()), Dense)
