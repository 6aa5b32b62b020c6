"""Products in int8: the bits of the oracle on every path, near enough to the model, and no number stays none."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from export_programs import Sketch, chain, compiled, differing, needs_compiler, thinned
from sparsernn.export.export_c import export_program
from sparsernn.export.integers import pack_int8
from sparsernn.export.places import row_major
from sparsernn.export.products import Tables
from test_export_chains import programs

CHAINS = ("gru", "projected", "tokens")
FLAGS = [["-O2"], ["-O3", "-march=native"], ["-O1", "-DPORTABLE"]]


@needs_compiler
@pytest.mark.parametrize("share, batch", [(0.0, 1), (0.85, 2)])
def test_c_gives_the_bits_of_the_oracle(tmp_path, share, batch):
    made = {name: program for name, program in programs(share, batch).items() if name in CHAINS}
    assert differing(tmp_path, made, FLAGS if share else FLAGS[1:], precision="int8") == {}
    sparse = [name for name in CHAINS if "_gathered8" in (tmp_path / f"{name}.c").read_text()]
    assert bool(sparse) == (share > 0.5)


@needs_compiler
def test_words_of_four_columns_are_kept_where_the_zeros_come_in_fours(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(40, 40), nn.Linear(40, 300), nn.Linear(300, 20))
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.dim() == 2):
            for rows in weight.split(16):
                for word in rows.split(4, 1):
                    word *= float(torch.rand(()) > 0.8)
    assert differing(tmp_path, {"words": chain(model)}, FLAGS, precision="int8") == {}
    text = (tmp_path / "words.c").read_text()
    assert "words_some_words8" in text and "gathered" not in text


@needs_compiler
def test_more_than_255_columns_are_gathered_by_numbers_of_16_bits(tmp_path):
    torch.manual_seed(0)
    model = thinned(nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 5)), 0.9)
    assert differing(tmp_path, {"wide": chain(model)}, FLAGS, precision="int8") == {}
    assert "wide_gathered16" in (tmp_path / "wide.c").read_text()


@needs_compiler
def test_numbers_at_the_ends_of_their_range_do_not_overflow(tmp_path):
    """Every product is 127 * 127: the most that two of them make in the 16 bits of some processors' instructions."""
    s = Sketch()
    x = s.input(1, 64)
    weight = torch.ones(20, 64) * torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)[:, None]
    program = s.program(s.made("linear", (x, s.constant(weight), None), (1, 20)))
    for sign in (1, -1):
        given = [[np.full((1, 64), sign, np.float32)], [np.full((1, 64), -0.5 * sign, np.float32)]]
        export_program(program, tmp_path, precision="int8", inputs=given)
        for flags in FLAGS:
            assert compiled(tmp_path, ["model"], [*flags, f"-DN={sign}"]).model_test() == 0


def test_a_quarter_of_the_flash_and_an_error_of_a_few_percent(tmp_path):
    torch.manual_seed(0)
    program = chain([nn.GRU(40, 96), nn.Linear(96, 10)])
    single, small = (export_program(program, tmp_path, precision=p) for p in ("float32", "int8"))
    assert small["flash"]["tables"] < 0.3 * single["flash"]["tables"]
    assert small["errors"]["relative"] < 0.03 and small["multiply_adds"] == single["multiply_adds"]


@needs_compiler
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-38, 0.0])
def test_what_is_no_number_is_none_behind_it(tmp_path, value):
    s = Sketch()
    x = s.input(1, 8)
    weight = thinned(nn.Linear(8, 40), 0.9).weight
    program = s.program(s.made("linear", (x, s.constant(weight), s.constant(torch.ones(40))), (1, 40)))
    export_program(program, tmp_path, precision="int8")
    library = compiled(tmp_path, ["model"], ["-O2", "-march=native"])
    state, y = (ctypes.c_char * 4096)(), (ctypes.c_float * 40)()
    library.model_reset(state)
    library.model_step(state, (ctypes.c_float * 8)(*[value] * 8), y)
    got = torch.tensor(list(y))
    if np.isfinite(value):
        assert bool((got == 1).all())
    else:
        reached = (weight != 0).any(1)
        assert not bool(got[reached].isfinite().any())


def test_words_are_the_weights_to_half_a_step_of_their_row():
    random = np.random.default_rng(0)
    weight = random.normal(size=(37, 21)).astype(np.float32)
    weight[5] = 0
    packed = pack_int8(weight, 1, Tables(), row_major("q", (21,), 0, "int8"))
    error = np.abs(packed.weight * packed.scales[:, None] - weight)
    assert (error <= packed.scales[:, None] * 0.5001).all() and (packed.weight[5] == 0).all()


def test_sums_that_could_overflow_are_refused(tmp_path):
    s = Sketch()
    x = s.input(1, 140_000)
    program = s.program(s.made("linear", (x, s.constant(torch.zeros(1, 140_000)), None), (1, 1)))
    with pytest.raises(ValueError, match=re.escape("linear (net.py:1) can't be written in C: its sums of 140000")):
        export_program(program, tmp_path, precision="int8")


def test_a_model_that_int8_spoils_is_refused(tmp_path):
    s = Sketch()
    x = s.input(1, 2)
    weight = torch.tensor([[1.0, 1e5]])
    lost = s.made("linear", (x, s.constant(weight), None), (1, 1))
    program = s.program(s.made("sub", (lost, s.made("mul", (_second(x), 1e5), (1, 1))), (1, 1)))
    with pytest.raises(RuntimeError, match="in int8 y0 is off by"):
        export_program(program, tmp_path, precision="int8")
    assert not list(tmp_path.iterdir())


def _second(x):
    return replace(x, shape=(1, 1), offset=1)
