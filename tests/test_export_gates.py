"""Rows that are all zero, as constant gates have them, cost nothing in C, whatever the layout of the others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import sparsernn as srn
from export_programs import FLAGS, chain, compiled, differing, needs_compiler, thinned
from sparsernn.export.export_c import export_program
from sparsernn.export.machines import missing
from sparsernn.nn.gated import GatedLSTM


def with_constant_gates(model: Any, share: float) -> Any:
    """Without the rows of that share of each layer's gates, of both matrices."""
    with torch.no_grad():
        for layer in (m for m in model.modules() if isinstance(m, nn.RNNBase)):
            gone = torch.rand(len(layer.weight_ih_l0)) < share
            layer.weight_ih_l0[gone] = 0
            layer.weight_hh_l0[gone] = 0
    return model


def nets() -> dict[str, Any]:
    torch.manual_seed(0)
    made = {"gru": nn.Sequential(nn.GRU(30, 64)), "lstm": nn.Sequential(nn.LSTM(40, 50), nn.Linear(50, 4))}
    made["rnn"] = nn.Sequential(nn.RNN(70, 90))
    made = {name: with_constant_gates(model, 0.7) for name, model in made.items()}
    return made | {"thin": with_constant_gates(thinned(nn.Sequential(nn.LSTM(60, 70)), 0.6), 0.6)}


@needs_compiler
@pytest.mark.parametrize("precision, batch", [("float32", 1), ("float32", 2), ("int8", 1)])
def test_c_gives_the_bits_of_the_oracle(tmp_path, precision, batch):
    made = {name: chain(model, batch) for name, model in nets().items()}
    assert differing(tmp_path, made, FLAGS[1:] if batch == 1 else FLAGS[:1], precision=precision) == {}
    for name in made:
        assert "_taken(" in (tmp_path / f"{name}.c").read_text()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_rows_of_constant_gates_take_no_room_and_no_multiplication(tmp_path, precision):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(48, 64))
    thin = with_constant_gates(copy.deepcopy(model), 0.75)
    dense, small = (export_program(chain(m), tmp_path, precision=precision) for m in (model, thin))
    left = int((thin[0].weight_ih_l0 != 0).any(1).sum())
    assert small["multiply_adds"] == left * (48 + 64)
    biases = 4 * 256
    whole, part = (report["flash"]["tables"] - biases for report in (dense, small))
    assert part < whole * (left + 16) / 256 + 4 * left


@needs_compiler
def test_a_model_whose_gates_are_folded_is_the_same_c(tmp_path):
    torch.manual_seed(0)
    model = with_constant_gates(nn.Sequential(nn.LSTM(12, 64, batch_first=True)), 0.6).eval()
    folded = nn.Sequential(GatedLSTM.from_dense(model[0])).eval()
    reports = [srn.export_c(m, tmp_path, f"m{k}") for k, m in enumerate((model, folded, folded[0]))]
    assert len({report["multiply_adds"] for report in reports}) == 1
    assert reports[0]["multiply_adds"] < 0.5 * 256 * 76
    library = compiled(tmp_path, ["m0", "m1", "m2"], ["-O2"])
    assert [library.m0_test(), library.m1_test(), library.m2_test()] == [0, 0, 0]
    assert isinstance(folded[0], GatedLSTM)


def test_a_step_on_a_cortex_m4_takes_less_by_what_the_rows_took(tmp_path):
    if lacking := missing("ziglang", "unicorn"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(40, 64))
    thin = with_constant_gates(copy.deepcopy(model), 0.75)
    reports = [export_program(chain(m), tmp_path, measure=True) for m in (model, thin)]
    dense, small = (report["measured"]["Cortex-M4"]["instructions"] for report in reports)
    assert small < 0.55 * dense
