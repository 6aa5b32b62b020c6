"""Scales of int8 inputs that batches fix: the bits of the oracle, the error that rounding explains, clear refusals."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sparsernn as srn
from export_programs import Clock, Sketch, chain, differing, needs_compiler
from sparsernn.export.calibration import limits_of
from sparsernn.export.export_c import export_program
from sparsernn.export.integers import pack_int8, rounded
from sparsernn.export.places import row_major
from sparsernn.export.products import Tables
from test_export_int8 import FLAGS, layouts, some_runs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 20, batch_first=True), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(7, 5), nn.LSTM(5, 9, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.words(x))[0]


@needs_compiler
def test_every_layout_gives_the_bits_of_the_oracle_also_where_inputs_are_cut(tmp_path):
    for name, program in layouts().items():
        given = some_runs(program, 1.3)[0]
        made = {name: program}
        options = {"precision": "int8", "calibrate": some_runs(program), "inputs": given}
        assert differing(tmp_path / name, made, FLAGS[1:2], **options) == {}
        assert "_fixed_" in (tmp_path / name / f"{name}.c").read_text()


@pytest.mark.parametrize("seed", range(20))
def test_a_product_is_off_by_what_rounding_explains(seed):
    """By half a step of each input times its weight, half a step of each weight times its input, and their product."""
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 60, 2)
    weight = random.normal(size=(rows, columns)).astype(np.float32)
    x = random.normal(size=(9, columns)).astype(np.float32) * np.float32(10.0 ** random.integers(-3, 3))
    limit = float(np.abs(x).max())
    packed = pack_int8(weight, 1, Tables(), row_major("q", (columns,), 0, "int8"), limit)
    y = np.zeros((9, rows), np.float32)
    packed.add(x, y)
    step, steps = limit / 127, np.abs(weight).max(1) / 127
    bound = np.abs(weight).sum(1) * step / 2 + np.abs(x).sum(1)[:, None] * steps / 2 + columns * step * steps / 4
    assert (np.abs(y - x.astype(np.float64) @ weight.T) <= bound * 1.001).all()


def test_inputs_beyond_the_limit_are_cut_and_what_is_no_number_leaves_none():
    x = np.array([[0.5, 3.0, -1e30], [1.0, np.inf, 0.0], [np.nan, 0.0, 0.0]], np.float32)
    numbers, scale = rounded(x, 1.0)
    assert numbers[0].tolist() == [64, 127, -127] and scale[0] == 1
    assert np.isnan(scale[1:]).all()


def test_a_net_in_fixed_scales_is_about_as_near_to_the_model_as_with_one_of_each_step(tmp_path):
    torch.manual_seed(0)
    program = chain([nn.GRU(40, 96), nn.Linear(96, 10)])
    runs = some_runs(program)
    inputs = [step for run in runs for step in run][:32]
    fixed = export_program(program, tmp_path, precision="int8", calibrate=runs, inputs=inputs)
    own = export_program(program, tmp_path, precision="int8", inputs=inputs)
    assert fixed["errors"]["relative"] < max(2 * own["errors"]["relative"], 0.03)
    assert len(fixed["limits"]) == 3 and fixed["limits"][1] <= 1  # of the states of a GRU


def linear(weight: Tensor):
    s = Sketch()
    x = s.input(1, weight.shape[1])
    return s.program(s.made("linear", (x, s.constant(weight), None), (1, len(weight))))


def test_the_largest_number_is_the_limit_unless_a_percentile_has_less_error():
    random = np.random.default_rng(0)
    program = linear(torch.randn(8, 50, generator=torch.Generator().manual_seed(0)))
    steps = [[random.uniform(-1, 1, (1, 50)).astype(np.float32)] for _ in range(400)]
    (plain,) = limits_of(program, [steps])
    assert plain == pytest.approx(max(np.abs(x).max() for (x,) in steps))
    steps[7][0][0, 3] = 1.1  # one number of 20,000: cutting it costs less than wider steps for all
    (cut,) = limits_of(program, [steps])
    assert 0.99 < cut < 1.01
    steps[7][0][0, 3] = 5.0
    assert limits_of(program, [steps]) == [5.0]


def test_inputs_near_the_end_of_float32_fix_a_scale_as_well(tmp_path):
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0)) * 3e37
    report = srn.export_c(Net().eval(), tmp_path, precision="int8", calibrate=[x])
    assert 3e37 < report["limits"][0] <= x.abs().max()


def test_batches_are_read_as_a_loader_gives_them(tmp_path):
    torch.manual_seed(0)
    x = 3 * torch.rand(10, 12, 6)
    model = Net().eval()
    loader = DataLoader(TensorDataset(x, torch.zeros(10)), batch_size=4)
    one = srn.export_c(model, tmp_path, precision="int8", calibrate=loader)
    assert one["limits"] == srn.export_c(model, tmp_path, precision="int8", calibrate=[x])["limits"]
    assert one["limits"][0] == pytest.approx(float(x.max()), rel=1e-3)
    with torch.no_grad():
        states = model.rnn(x)[0]
    assert one["limits"][2] == pytest.approx(float(states.abs().max()), rel=0.02)
    assert srn.export_c(model, tmp_path, precision="int8", calibrate=[x], batch=3)["inputs"][0]["shape"] == [3, 6]


def test_sequences_of_tokens_fix_the_scales_of_what_follows(tmp_path):
    model = Words().eval()
    report = srn.export_c(model, tmp_path, precision="int8", calibrate=[torch.tensor([[1, 2, 3, 3, 1]])])
    seen = model.words.weight[1:4].detach().abs().max()
    assert report["limits"][0] == pytest.approx(float(seen), rel=0.02)


@pytest.mark.parametrize(
    "batches, error, message",
    [
        ([], ValueError, "without a step"),
        (torch.zeros(2, 5, 6), TypeError, "calibrate is Tensor, expected an iterable of batches"),
        ([torch.zeros(2, 5, 6), torch.zeros(2, 5, 7)], ValueError, r"batch 2 of calibrate= has x of shape \(2, 5, 7\)"),
        ([torch.zeros(2, 6)], ValueError, "batch 1 of calibrate= has x of shape"),
        (["words"], TypeError, "batch 1 of calibrate= is str, expected inputs as the model takes them"),
        ([torch.zeros(1, 5, 6, dtype=torch.int64)], TypeError, "has x of torch.int64, expected floats"),
        ([torch.full((1, 5, 6), torch.nan)], ValueError, "the model gives NaN or infinity"),
        ([{"y": torch.zeros(1, 5, 6)}], ValueError, "has the inputs y, expected x"),
    ],
)
def test_batches_that_fix_no_scale_are_refused_before_anything_is_written(tmp_path, batches, error, message):
    with pytest.raises(error, match=f"export_c: .*{message}"):
        srn.export_c(Net().eval(), tmp_path / "out", precision="int8", calibrate=batches)
    assert not (tmp_path / "out").exists()


def test_tokens_outside_the_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("calibrate= has the token 7 in x, expected 0 to 6.")):
        srn.export_c(Words().eval(), tmp_path / "out", precision="int8", calibrate=[torch.tensor([[1, 7]])])


def test_fixed_scales_are_for_int8(tmp_path):
    with pytest.raises(ValueError, match="calibrate= with precision='float32', it is for precision='int8'"):
        srn.export_c(Net().eval(), tmp_path / "out", calibrate=[torch.zeros(1, 5, 6)])


def test_sequences_too_short_for_a_product_are_refused(tmp_path):
    s = Sketch()
    x = s.input(1, 4)
    y = s.buffer("work", (1, 3))
    s.emit("linear", (x, s.constant(torch.randn(3, 4)), None), (y,), Clock(5, 4))
    with pytest.raises(ValueError, match="1 of 1 products are not due in the 3 steps of calibrate="):
        limits_of(s.program(y), [[[np.zeros((1, 4), np.float32)]] * 3])
