"""Accelerated modules against float64 on random cases (see runtime_cases.py), all buffers between canaries."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import runtime_checks
from runtime_cases import Chain, make
from runtime_checks import check, check_many
from runtime_guards import Guards
from sparsernn.nn import RHN
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import WIDTHS, processor

# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:LSTM with projections")]

FEW, MANY, SLICE = 600, 200_000, 1_000  # cases; each calls kernels about five times
# Numbers of cases that found a bug stay here: streams in int8, refused because they round otherwise than sequences.
FAILED_ONCE = (2372, 3371, 6046)


@pytest.mark.parametrize("first", range(0, FEW, 200))
def test_random_cases(first: int) -> None:
    check_many(first, first + 200)


@pytest.mark.nightly
@pytest.mark.counts("kernels", SLICE)
@pytest.mark.parametrize("first", range(0, MANY, SLICE))
@pytest.mark.timeout(900)
def test_random_cases_for_a_night(first: int, record_property: Callable[[str, int], None]) -> None:
    record_property("cases", check_many(first, first + SLICE))


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_cases_that_failed_once(seed: int) -> None:
    check(seed)


ROUND = """
import sys, warnings; warnings.simplefilter("ignore"); sys.path.insert(0, {tests!r})
import torch
from sparsernn.runtime.pack import WIDTH
from runtime_checks import check_many
assert WIDTH == {width}
torch.set_num_threads(1)
print(check_many({first}, {last}))
"""


def narrower(width: int, first: int, last: int) -> int:
    """The cases on vectors of `width` floats: 4 is NEON's, 8 is AVX2's. How many calls of kernels they made."""
    if width >= processor().width:
        pytest.skip("this processor's own width")
    code = ROUND.format(tests=str(Path(__file__).parent), width=width, first=first, last=last)
    environment = {**os.environ, "SPARSERNN_VECTOR_WIDTH": str(width), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_random_cases_on_narrower_vectors(width: int) -> None:
    narrower(width, MANY, MANY + 100)


@pytest.mark.nightly
@pytest.mark.counts("kernels", SLICE)
@pytest.mark.parametrize("first", range(MANY, MANY + 5 * SLICE, SLICE))
@pytest.mark.parametrize("width", WIDTHS[:-1])
@pytest.mark.timeout(900)
def test_random_cases_on_narrower_vectors_for_a_night(
    width: int, first: int, record_property: Callable[[str, int], None]
) -> None:
    record_property("cases", narrower(width, first, first + SLICE))


def test_the_cases_are_of_all_kinds() -> None:
    cases = [make(seed) for seed in range(200)]
    assert {case.form for case in cases} == {"stack", "cell", "ragged", "gated", "highway", "stream"}
    assert {case.precision for case in cases} == {"float32", "bfloat16", "int8"}
    kinds = {type(m).__name__ for case in cases for m in case.model.modules()}
    assert kinds >= {"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "RaggedLSTM", "GatedGRU", "Embedding"}
    assert any(isinstance(case.model, Chain) and isinstance(case.model.rnn, RHN) for case in cases)
    assert any(case.packed for case in cases) and any(case.batch_axis is None for case in cases)
    assert any(case.full for case in cases) and any(len(case.arguments) == 2 for case in cases)
    assert {getattr(case.model, "proj_size", 0) > 0 for case in cases} == {False, True}
    assert str(make(7)) == str(make(7))


def test_a_write_past_a_buffer_is_seen() -> None:
    for place in (-1, 3):
        guards = Guards(random.Random(place))
        inner = guards.around(torch.zeros(3))
        guards.check()
        ctypes.c_float.from_address(inner.data_ptr() + 4 * place).value = 0.0
        with pytest.raises(AssertionError, match="a guard was written"):
            guards.check()


def test_a_wrong_weight_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, precision: str) -> nn.Module:
        fast = accelerate(model, precision)  # type: ignore[arg-type]
        weight = next(p for name, p in fast.named_parameters() if "weight_ih" in name)
        weight += 0.05
        return fast

    seen = [seed for seed in range(100) if make(seed).full and make(seed).precision == "float32"][:4]
    monkeypatch.setattr(runtime_checks, "accelerate", wrong)
    for seed in seen:
        with pytest.raises(AssertionError, match=f"(?s)case {seed}, .*off by"):
            check(seed)
