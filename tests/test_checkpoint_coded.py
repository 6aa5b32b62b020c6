"""Files of accelerated and of rounded models: small, the same on every processor, and back to the bit."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sparsernn as srn
from golden import make_v1, make_v2
from golden.make_v2 import FOLDER, GOLDEN, Speller
from learn_models import inputs_of_recall, trained_recall
from sparsernn.nn.ragged import RaggedGRU
from sparsernn.nn.rhn import RHN
from sparsernn.runtime.processor import processor
from sparsernn.structure.coded import coded
from sparsernn.structure.grids import integers, on_grid
from sparsernn.structure.held_weights import HeldWeight
from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import load as load_plain
from sparsernn.tensors import TensorFile

pytestmark = pytest.mark.filterwarnings("ignore:.*AVX-512")


def header_of(path: Path) -> dict[str, Any]:
    with TensorFile(path) as file:
        return _container.read_header(file)


def contents(path: Path) -> tuple[Any, bytes]:
    """Header and data: safetensors writes the names of a header in any order."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def matrix(rows: int, columns: int, how: str, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=source)
    if how == "single":
        weight[torch.rand(rows, columns, generator=source) < 0.8] = 0
    elif how == "blocks":
        gone = torch.rand(-(-rows // 16), -(-columns // 4), generator=source) < 0.7
        weight[gone.repeat_interleave(16, 0)[:rows].repeat_interleave(4, 1)[:, :columns]] = 0
    elif how == "nothing":
        weight.zero_()
    return weight


@pytest.mark.parametrize("how", ["dense", "single", "blocks", "nothing"])
@pytest.mark.parametrize(("rows", "columns", "tile"), [(80, 33, 20), (7, 5, 7), (1, 1, 1), (64, 16, 16)])
def test_matrices_in_few_bytes_are_what_they_were(rows, columns, tile, how):
    weight = matrix(rows, columns, how)
    numbers, scales = integers(weight)
    for few in (numbers, (numbers // 16).clamp(-7, 7)):
        found = coded(few, scales, tile)
        assert torch.equal(found.numbers(), few) and torch.equal(found.dense(), few * scales[:, None])
        assert found.fault() == "" and found.form.bits == (8 if int(few.abs().max()) > 7 else 4)
        assert found.bytes <= 4 * rows + -(-rows * columns * found.form.bits // 8)
        wanted = found.form.parts(rows, columns)
        for name, part in found.parts.items():
            dtype, shape = wanted[name]
            assert part.dtype == dtype and (part.shape <= shape if name == "values" else part.shape == shape)
    for plain in (weight, weight.bfloat16()):
        found = coded(plain, None, tile)
        assert torch.equal(found.dense(), plain.float()) and found.fault() == ""
    if how == "blocks" and rows == 64:
        assert coded(numbers, scales, rows).form.block == (16, 4)
    if how == "single" and rows == 80:
        assert coded(numbers, scales, tile).form.block == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_grid_is_found_where_it_is_exact_and_nowhere_else(dtype):
    source = torch.Generator().manual_seed(0)
    numbers = torch.randint(-127, 128, (9, 40), generator=source)
    numbers[0], numbers[1:, 0] = 0, 127
    scales = torch.randint(1, 2, (9, 1), generator=source) * 2.0 ** torch.randint(-9, 3, (9, 1), generator=source)
    weight = (numbers * scales).to(dtype)
    found = on_grid(weight)
    assert found is not None
    assert torch.equal((found[0].double() * found[1].double()[:, None]).to(dtype), weight)
    assert float(found[1][0]) == 0 and on_grid(torch.randn(9, 40, generator=source).to(dtype)) is None
    assert on_grid(torch.eye(9, dtype=dtype)) is None and on_grid(weight * float("nan")) is None
    weight[8, 3] = 255 * scales[8, 0]
    assert on_grid(weight) is None


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LSTMCell(8, 20), nn.GRUCell(20, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 20)
        k = x.new_zeros(len(x), 16)
        for step in x.unbind(1):
            h, c = self.a(step, (h, c))
            k = self.b(h, k)
        return k


class Layered(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(40 if getattr(layer, "bidirectional", False) else 20, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


MODELS = {
    "LSTM": lambda: Layered(nn.LSTM(8, 20, 2, batch_first=True)),
    "projected": lambda: Layered(nn.LSTM(8, 33, batch_first=True, bidirectional=True, proj_size=20)),
    "GRU": lambda: Layered(nn.GRU(8, 20, bidirectional=True, batch_first=True)),
    "RNN": lambda: Layered(nn.RNN(8, 20, bias=False, batch_first=True)),
    "ragged": lambda: Layered(RaggedGRU(8, [16, 20], batch_first=True)),
    "RHN": lambda: Layered(RHN(8, 20, 2, batch_first=True)),
    "cells": Cells,
}


def pruned(model: nn.Module, how: str) -> Any:
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            if parameter.dim() == 2 and how != "dense":
                parameter.mul_(matrix(*parameter.shape, how, n) != 0)
    return model.eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", MODELS)
def test_an_accelerated_model_comes_back_to_the_bit(kind, precision, tmp_path):
    for how in ("dense", "single", "blocks"):
        torch.manual_seed(0)
        fast = srn.accelerate(pruned(MODELS[kind](), how), precision)
        srn.save(fast, tmp_path / "m")
        with torch.device("meta"):
            empty = MODELS[kind]()
        again = srn.load(empty, tmp_path / "m")
        x = torch.randn(3, 6, 8)
        for rows in (1, 3):
            assert torch.equal(again(x[:rows]), fast(x[:rows]))
        assert again.explain(3, 6) == fast.explain(3, 6) and not again.training
        assert type(again).__mro__[1:] == type(fast).__mro__[1:] or type(again).__name__ == type(fast).__name__
        srn.save(again, tmp_path / "n")
        assert contents(tmp_path / "m") == contents(tmp_path / "n")
        values = again.state_dict()
        assert values.keys() == fast.state_dict().keys() and not any(value.is_meta for value in values.values())
        assert torch.equal(copy.deepcopy(again)(x), fast(x))


@pytest.mark.parametrize("precision", ["float32", "int8", {"layer": "int8", "head": "bfloat16"}])
def test_its_streams_are_those_of_the_saved_model(precision, tmp_path):
    torch.manual_seed(0)
    fast = srn.accelerate(pruned(MODELS["LSTM"](), "single"), precision)
    srn.save(fast, tmp_path / "m")
    streams = [model.stream() for model in (fast, srn.load(MODELS["LSTM"](), tmp_path / "m"))]
    for x in torch.randn(5, 1, 8):
        assert torch.equal(*(stream.step(x) for stream in streams))


def test_int8_files_are_a_quarter_and_sparse_ones_less(tmp_path):
    torch.manual_seed(0)
    sizes = {}
    for how in ("dense", "single", "blocks"):
        model = pruned(Layered(nn.LSTM(64, 128, batch_first=True)), how)
        model.head = nn.Linear(128, 65)
        srn.save(model.eval(), tmp_path / "plain")
        for precision in ("float32", "bfloat16", "int8"):
            srn.save(srn.accelerate(model, precision), tmp_path / "m")
            sizes[how, precision] = (tmp_path / "m").stat().st_size / (tmp_path / "plain").stat().st_size
    assert sizes["dense", "int8"] < 0.3 and sizes["dense", "bfloat16"] < 0.55 and sizes["dense", "float32"] < 1.01
    assert sizes["single", "int8"] < 0.15 and sizes["blocks", "int8"] < 0.15 and sizes["blocks", "float32"] < 0.45


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation gives in memory."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not found.is_meta and not isinstance(found, HeldWeight):
            self.bytes = max(self.bytes, found.untyped_storage().nbytes())
        return found


@pytest.mark.parametrize("how", ["dense", "blocks"])
def test_loading_and_running_never_makes_a_dense_matrix(how, tmp_path):
    torch.manual_seed(0)
    fast = srn.accelerate(pruned(nn.LSTM(128, 256), how), "int8")
    srn.save(fast, tmp_path / "m")
    x, dense = torch.randn(3, 2, 128), 4 * 4 * 256 * 256
    with torch.device("meta"):
        empty = nn.LSTM(128, 256)
    with Largest() as largest:
        again = srn.load(empty, tmp_path / "m")
        assert largest.bytes < 0.3 * dense
        found = again(x)[0]
    assert torch.equal(found, fast(x)[0])
    assert largest.bytes < (0.3 if processor().vnni else 1.1) * dense


def test_weights_of_a_loaded_model_can_be_had_and_replaced(tmp_path):
    torch.manual_seed(0)
    fast, x = srn.accelerate(MODELS["LSTM"]().eval(), "int8"), torch.randn(2, 5, 8)
    srn.save(fast, tmp_path / "m")
    again = srn.load(MODELS["LSTM"](), tmp_path / "m")
    held = again.layer.weight_hh_l0
    assert isinstance(held, HeldWeight) and held.shape == (80, 20) and held.device.type == "cpu"
    assert torch.equal(held, again.state_dict()["layer.weight_hh_l0"])
    plain = MODELS["LSTM"]().eval()
    plain.load_state_dict(again.state_dict())
    assert torch.allclose(plain(x), fast(x), atol=0.05)
    assert torch.equal(load_plain(MODELS["LSTM"](), tmp_path / "m").layer.weight_hh_l0, plain.layer.weight_hh_l0)
    other = MODELS["LSTM"]().eval()
    again.load_state_dict(other.state_dict())
    assert torch.equal(again(x), srn.accelerate(other, "int8")(x)) and type(again.layer.weight_hh_l0) is nn.Parameter
    again = srn.load(MODELS["LSTM"](), tmp_path / "m").to("cpu")
    assert type(again.head.weight) is nn.Parameter and torch.allclose(again(x), fast(x), atol=1e-3)
    again = srn.load(MODELS["LSTM"](), tmp_path / "m")
    writes = [lambda p: p.mul_(0), lambda p: p.data.zero_(), lambda p: p[0].fill_(1), lambda p: p.T[:3].zero_()]
    for write in (*writes, lambda p: p.chunk(4)[1].fill_(0), lambda p: p.__setitem__(0, 1)):
        with torch.no_grad(), pytest.raises(RuntimeError, match="can't be written to"):
            write(again.layer.weight_hh_l0)
    assert torch.equal(again(x), fast(x))


def test_shared_weights_stay_whole_and_shared(tmp_path):
    def tied() -> Any:
        model = Speller()
        model.head = nn.Linear(8, 9)
        model.lstm = nn.LSTM(8, 8, batch_first=True)
        model.head.weight = model.embedding.weight
        return model

    fast, x = srn.accelerate(tied().eval(), "int8"), torch.arange(12).view(2, 6) % 9
    srn.save(fast, tmp_path / "m")
    again = srn.load(tied(), tmp_path / "m")
    assert again.head.weight is again.embedding.weight and torch.equal(again(x), fast(x))


class OwnLSTM(nn.LSTM):
    def forward(self, x: Any, hx: Any = None) -> Any:
        y, state = super().forward(x, hx)
        return y + 1, state


def test_a_class_of_ones_own_round_a_layer_comes_back_too(tmp_path):
    torch.manual_seed(0)
    fast, x = srn.accelerate(Layered(OwnLSTM(8, 20, batch_first=True)).eval(), "int8"), torch.randn(2, 5, 8)
    srn.save(fast, tmp_path / "m")
    again = srn.load(Layered(OwnLSTM(8, 20, batch_first=True)), tmp_path / "m")
    assert torch.equal(again(x), fast(x)) and isinstance(again.layer.weight_ih_l0, HeldWeight)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_rounded_model_is_a_small_file_and_comes_back_to_the_bit(bits, tmp_path):
    model = trained_recall()
    folded = srn.fold(model, inputs_of_recall(10), 1, bits=bits, include="all").model
    srn.save(model, tmp_path / "plain")
    srn.save(folded, tmp_path / "m")
    again = srn.load(copy.deepcopy(model), tmp_path / "m")
    found = again.state_dict()
    assert all(torch.equal(found[name], value) for name, value in folded.state_dict().items())
    header = header_of(tmp_path / "m")
    assert header["format"] == 2 and "accelerated" not in header and header_of(tmp_path / "plain")["format"] == 1
    assert header["tensors"]["rnn.weight_hh_l0"]["coded"]["bits"] == bits


@pytest.mark.parametrize("name", make_v1.GOLDEN)
def test_other_models_are_written_as_before_byte_for_byte(name, tmp_path):
    srn.save(make_v1.GOLDEN[name][1](), tmp_path / "m")
    assert contents(tmp_path / "m") == contents(FOLDER / f"v1-{name}.safetensors")


@pytest.mark.counts("golden_files", 1)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_of_format_2_load(name, tmp_path):
    dense, _ = GOLDEN[name]
    path, x = FOLDER / f"v2-{name}.safetensors", make_v2.example(name)
    again = srn.load(dense(), path)
    plain = dense().eval()
    plain.load_state_dict(again.state_dict())
    want = torch.tensor(json.loads(path.with_suffix(".json").read_text()), dtype=plain.head.weight.dtype)
    torch.testing.assert_close(plain(x).flatten(), want)
    if name == "speller":
        assert again.lstm._engine.precision == "int8"
        torch.testing.assert_close(again(x).flatten(), want, atol=0.05, rtol=0)
    srn.save(again, tmp_path / "m")
    assert contents(tmp_path / "m") == contents(path)
