"""Folding to 8 and 4 bits: integers to kernels, C and files, and least squares at every step of the rounding."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from learn_models import inputs_of_recall, loss_of_recall, trained_recall
from sparsernn.export.integers import pack_int8
from sparsernn.learn.rounding import _scales, rounded
from sparsernn.runtime.processor import processor
from sparsernn.structure.grids import integers


@pytest.mark.parametrize("bits", [8, 4])
def test_after_each_input_the_rest_is_the_least_squares_solution(bits):
    source = torch.Generator().manual_seed(0)
    x_NI = torch.randn(400, 9, generator=source).double() @ torch.randn(9, 9, generator=source).double()
    x_NI[:, -1] = 1
    rows_RI = torch.randn(5, 9, generator=source).double()
    rows_RI[:, 3] = 0  # read by nobody: stays so
    moment = x_NI.T @ x_NI / 400
    found = rounded(rows_RI, moment, 8, bits)
    order = [j for j in moment.diagonal()[:8].argsort(descending=True, stable=True).tolist() if j != 3]
    largest = {8: 127, 4: 7}[bits]
    scale = _scales(rows_RI[:, order], moment.diagonal()[order], largest, 16)
    wanted, left = rows_RI @ x_NI.T, rows_RI.clone()
    for place, j in enumerate(order):
        left[:, j] = (left[:, j] / scale).round().clamp(-largest, largest) * scale
        free = [*order[place + 1 :], 8]
        fixed = left[:, order[: place + 1]] @ x_NI[:, order[: place + 1]].T
        left[:, free] = torch.linalg.lstsq(x_NI[:, free], (wanted - fixed).T).solution.T
    torch.testing.assert_close(found, left, rtol=1e-9, atol=1e-9)
    assert not bool(found[:, 3].any())


@pytest.mark.parametrize("steps", [1, 3, 7, 50, 127])
def test_rows_on_a_grid_keep_it(steps):
    source = torch.Generator().manual_seed(steps)
    numbers = torch.randint(-steps, steps + 1, (40, 30), generator=source).float()
    numbers[0] = 0
    numbers[1:, 0] = steps
    scale = torch.rand(40, generator=source) + 0.1
    weight = numbers * scale[:, None]
    found, scales = integers(weight)
    torch.testing.assert_close(found * scales[:, None], weight, rtol=1e-6, atol=0)
    assert bool((scales[1:] > 0).all()) and float(scales[0]) == 0


def test_other_rows_end_at_127_and_err_by_half_a_step():
    weight = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    found, scales = integers(weight)
    torch.testing.assert_close(scales, weight.abs().amax(1) / 127, rtol=0, atol=0)
    assert bool((found.abs().amax(1) == 127).all())
    assert bool(((weight - found * scales[:, None]).abs() <= scales[:, None] * 0.5001).all())


def matrices(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.rnn.named_parameters() if "weight" in name}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("level", "to"), [("unit", 1), ("unit", 0.5), ("weight", 0.3), ("block", 0.6)])
def test_a_rounded_model_is_integers_times_a_scale_to_the_bit(level, to, bits):
    model, data = trained_recall(), inputs_of_recall(10)
    before = copy.deepcopy(model.state_dict())
    plain = srn.fold(model, data, to, level=level) if to < 1 else None
    folded = srn.fold(model, data, to, level=level, bits=bits)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name, weight in matrices(folded.model).items():
        numbers, scales = integers(weight)
        assert torch.equal(numbers * scales[:, None], weight)
        assert int(numbers.abs().max()) <= {8: 127, 4: 7}[bits]
        if plain is not None:  # what goes is the same, and may be joined by what rounds to zero
            gone = matrices(plain.model)[name] == 0
            assert not bool(weight[gone].any())
    assert torch.equal(folded.model.head.weight == 0, (plain or folded).model.head.weight == 0)
    assert plain is None or folded.measured < plain.measured + {8: 0.01, 4: 0.1}[bits]


def test_four_bits_lose_less_than_the_nearest_ones():
    model, data = trained_recall(), inputs_of_recall(20)
    folded = srn.fold(model, data, 1, bits=4, include="all")
    assert set(folded.kept) <= {"embedding.weight"} and folded.share == 1.0
    nearest = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"):
            weight = nearest.get_parameter(name)
            scale = weight.abs().amax(1, keepdim=True) / 7
            weight.copy_((weight / scale).round() * scale)

    @torch.no_grad()
    def change(other: nn.Module) -> float:
        return float(sum((other(x) - model(x)).square().mean() for x in inputs_of_recall(5, seed=9)))

    assert change(folded.model) < 0.5 * change(nearest)
    assert loss_of_recall(folded.model) < loss_of_recall(model) + 0.01


@pytest.mark.parametrize("bits", [8, 4])
def test_products_of_bytes_are_exact_for_inputs_that_are_bytes(bits):
    """The oracle of the C code: what is left of an int8 product's error is the rounding of its input."""
    folded = srn.fold(trained_recall(), inputs_of_recall(10), 1, bits=bits)
    weight = folded.model.rnn.weight_hh_l0.detach().numpy()

    class Nothing:
        def add(self, values):
            return ""

    words = pack_int8(weight, 4, Nothing(), None)
    x = np.random.default_rng(0).integers(-127, 128, (20, weight.shape[1])).astype(np.float32)
    x[:, 0] = 127
    y = np.zeros((20, len(weight)), np.float32)
    words.add(x, y)
    np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T.astype(np.float64), rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not processor().vnni, reason="int8 products need AVX-512 VNNI")
@pytest.mark.parametrize("bits", [8, 4])
def test_accelerate_adds_the_rounding_of_inputs_alone(bits):
    folded = srn.fold(trained_recall(), inputs_of_recall(10), 1, bits=bits, include="all")
    x = inputs_of_recall(1, seed=5)[0]
    fast = srn.accelerate(folded.model, "int8")
    with torch.no_grad():
        off = (fast(x) - folded.model(x)).norm() / folded.model(x).norm()
    assert off < 0.03


def test_half_precision_weights_stand_on_grids_of_their_own_type():
    model = copy.deepcopy(trained_recall()).bfloat16()
    folded = srn.fold(model, inputs_of_recall(10), 1, bits=8)
    for weight in matrices(folded.model).values():
        assert weight.dtype == torch.bfloat16
        numbers, scales = integers(weight.float())
        assert torch.equal(numbers * scales[:, None], weight.float())


def test_bad_bits_are_told():
    with pytest.raises(ValueError, match="bits is 3, expected 8, 4 or None"):
        srn.fold(trained_recall(), inputs_of_recall(1), bits=3)
    with pytest.raises(ValueError, match="to is 1, expected a share"):
        srn.fold(trained_recall(), inputs_of_recall(1), 1)
