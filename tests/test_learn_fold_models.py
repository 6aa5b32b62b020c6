"""Folding models as people write them: shared biases and matrices, states kept between calls, odd outputs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsernn as srn
from fold_models import inputs, made

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


def changed(model: nn.Module, other: nn.Module, data: list[Tensor]) -> float:
    """Root mean squared change of the one output, in shares of its deviation; each model begins anew."""
    before, after = (copy.deepcopy(each) for each in (model, other))
    with torch.no_grad():
        x, y = (torch.cat([each(batch).flatten() for batch in data]) for each in (before, after))
    return float((x - y).square().mean().sqrt() / x.std(correction=0))


class TwoHeads(nn.Module):
    """Both heads have one bias; `second`: what the second one is given."""

    def __init__(self, second: str):
        super().__init__()
        self.rnn, self.a, self.b = nn.LSTM(5, 12), nn.Linear(12, 3), nn.Linear(5 if second == "x" else 12, 3)
        self.b.bias, self.second = self.a.bias, second

    def forward(self, x):
        h = self.rnn(x)[0]
        if self.second == "product":
            return torch.cat([self.a(h), x[..., :3] * self.a.bias], -1)
        return torch.cat([self.a(h), self.b({"x": x, "h": h.abs()}[self.second])], -1)


@pytest.mark.parametrize("level", ["unit", "weight"])
@pytest.mark.parametrize("second", ["x", "h", "product"])
def test_a_bias_with_other_uses_takes_nothing_over(second, level):
    model = made(TwoHeads(second))
    folded = srn.fold(model, inputs(), level=level, include="all" if level == "weight" else "recurrent").model
    assert torch.equal(folded.a.bias, model.a.bias)
    assert not torch.equal(folded.a.weight, model.a.weight)
    if second == "x" and level == "unit":  # what reads no unit gives what it gave
        x = inputs()[0]
        assert torch.equal(folded(x)[..., 3:], model(x)[..., 3:])


def test_what_reads_units_beside_a_shared_bias_is_the_least_squares_solution_without_a_constant():
    model, data = made(TwoHeads("h")), inputs()
    done = srn.fold(model, data, ridge=0.0)
    stay = ~done.removed["rnn.l0"]
    with torch.no_grad():
        h_NI = torch.cat([model.rnn(x)[0].flatten(0, 1) for x in data])
    for h, name in ((h_NI, "a.weight"), (h_NI.abs(), "b.weight")):
        wanted = h @ model.get_parameter(name).detach().T
        solution = torch.linalg.lstsq(h[:, stay], wanted).solution
        torch.testing.assert_close(done.model.get_parameter(name)[:, stay], solution.T, rtol=1e-8, atol=1e-8)


class TiedOneHot(nn.Module):
    """The decoder is the embedding, which is a product with one-hot rows."""

    def __init__(self):
        super().__init__()
        self.weight, self.rnn = nn.Parameter(torch.empty(9, 12)), nn.GRU(12, 12)

    def forward(self, x):
        return F.linear(self.rnn(F.one_hot(x, 9).double() @ self.weight)[0], self.weight)


def test_units_stay_whose_reader_is_multiplied_along_both_axes():
    data = [x[..., 0].gt(0).long() for x in inputs()]
    with pytest.raises(ValueError, match="weight is used by products along both of its axes"):
        srn.fold(made(TiedOneHot()), data)


class Stateful(nn.Module):
    """It goes on from the state in which the last call ended, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head, self.state = nn.GRU(5, 12), nn.Linear(12, 3), None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        y, self.state = self.rnn(x, self.state)
        return self.head(y) * self.calls


def test_a_model_that_keeps_a_state_is_measured_from_the_state_it_has():
    model, data = made(Stateful()), inputs()
    done = srn.fold(model, data)
    assert model.state is None and float(model.calls) == 0 and done.model.state is None
    assert done.measured == pytest.approx(changed(model, done.model, data), rel=1e-9)
    thinned = srn.fold(model, data, 0.5, level="weight")
    assert thinned.measured == pytest.approx(changed(model, thinned.model, data), rel=1e-9)


class Odd(nn.Module):
    """`kind` of output: masked, noisy, whole numbers, one constant number."""

    def __init__(self, kind: str):
        super().__init__()
        self.rnn, self.head, self.kind = nn.GRU(5, 12), nn.Linear(12, 4), kind

    def forward(self, x):
        if self.kind == "noisy":
            x = x + torch.randn_like(x)
        y = self.head(self.rnn(x)[0])
        if self.kind == "masked":
            return y.masked_fill(x[..., :1] > 1, -torch.inf)
        return {"whole": y.argmax(-1), "number": y.mean()}.get(self.kind, y)


def test_changes_are_taken_over_finite_numbers_and_the_same_noise():
    data = inputs()
    plain, masked, noisy, whole = (
        srn.fold(made(Odd(kind)), data, (0.99, 0.5)) for kind in ("plain", "masked", "noisy", "whole")
    )
    assert 0.3 * plain[1].measured < masked[1].measured < 3 * plain[1].measured
    assert noisy[0].measured < 0.5 * noisy[1].measured < 0.5
    assert math.isnan(whole[1].measured) and math.isnan(whole[1].predicted)
    number = srn.fold(made(Odd("number")), data[:1])
    assert 0 < number.measured < 10  # one number has no deviation: in shares of itself


def test_numbers_too_large_to_be_squared_are_told():
    model = made(Odd("plain"))
    with pytest.raises(ValueError, match="batch 1 brings NaN, infinity or numbers too large"):
        srn.fold(model, [x * 1e200 for x in inputs()], level="weight")


class Tasks(nn.Module):
    """A head for each task, and a layer that one task alone goes through."""

    def __init__(self):
        super().__init__()
        self.rnn, self.heads = nn.GRU(5, 12), nn.ModuleDict({"a": nn.Linear(12, 3), "b": nn.Linear(12, 4)})

    def forward(self, x, task="a"):
        return self.heads[task](self.rnn(x)[0])


@pytest.mark.filterwarnings("ignore:trace. no example reached heads.b")
def test_batches_that_take_several_ways_through_the_model():
    model = made(Tasks())
    data = [(x, "ab"[number % 2]) for number, x in enumerate(inputs())]
    done = srn.fold(model, data)
    gone = done.removed["rnn.l0"]
    assert not any(bool(head.weight[:, gone].any()) for head in done.model.heads.values())
    small = srn.compact(done.model, data[:2])
    for batch in data:
        torch.testing.assert_close(small(*batch), done.model(*batch), rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match=r"batch 12 takes another way .* it uses heads.b.bias, heads.b.weight"):
        srn.fold(model, [*inputs(11), data[1]])


def test_empty_batches_may_come_first():
    model, data = made(Odd("plain")), inputs()
    plain = srn.fold(model, data)
    for empty in (data[0][:, :0], data[0][:0]):
        found = srn.fold(model, [empty, *data])
        assert torch.equal(found.removed["rnn.l0"], plain.removed["rnn.l0"]) and found.measured == plain.measured


def test_a_bias_of_minus_infinity_stays_and_spoils_nothing():
    model, data = made(Odd("plain")), inputs()
    with torch.no_grad():
        model.head.bias[1] = -torch.inf
    for options in ({}, {"level": "weight", "include": "all"}, {"to": 1, "bits": 4, "include": "all"}):
        done = srn.fold(model, data, **options)
        assert all(bool(p.isfinite().all()) for name, p in done.model.named_parameters() if name != "head.bias")
        assert done.model.head.bias.isinf().tolist() == [False, True, False, False]
        assert math.isfinite(done.measured) and math.isfinite(done.predicted)


def test_numbers_and_mappings_of_other_libraries_serve():
    import collections

    import numpy as np

    model, data = made(Odd("plain")), inputs()
    plain = srn.fold(model, data, 0.5)
    for share in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5)):
        assert srn.fold(model, data, share).measured == plain.measured
    assert len(srn.fold(model, data, np.array([0.75, 0.5]))) == 2
    for kind in (collections.OrderedDict, collections.UserDict):
        assert srn.fold(model, [kind(x=x, labels=1) for x in data]).measured == plain.measured


def test_a_matrix_of_zeros_is_rounded_to_zeros():
    model = made(Odd("plain"))
    with torch.no_grad():
        model.rnn.weight_hh_l0.zero_()
    assert not bool(srn.fold(model, inputs(), to=1, bits=4).model.rnn.weight_hh_l0.any())


def half() -> nn.Module:
    model = made(Odd("plain")).half()
    with torch.no_grad():
        model.head.weight.fill_(6e4)
    return model


def cost(value: object) -> dict:
    return {"cost": lambda widths: value}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": None}, "fold: to is None, expected a share"),
        ({"to": lambda: 0.5}, "fold: to is .*, expected a share"),
        ({"to": True}, "fold: to is True"),
        ({"to": math.nan}, "fold: to is nan"),
        ({"ridge": -1}, "ridge is -1, expected a number of 0 or more"),
        ({"ridge": "x"}, "ridge is 'x'"),
        ({"ridge": math.inf}, "ridge is inf"),
        ({"positions": 0}, "positions is 0, expected a number above 0"),
        ({"positions": None}, "positions is None"),
        ({"include": None}, 'include is None, expected "recurrent"'),
        ({"include": []}, "include holds no pattern"),
        ({"inputs": "x"}, "inputs is 'x', expected a function"),
        *(
            (cost(value), f"is {value!r}, expected a finite number above 0")
            for value in (None, "x", 0.0, -1.0, math.nan)
        ),
        ({"model": Odd("plain").to("meta")}, "rnn.weight_ih_l0 is on the meta device"),
        ({"model": half(), "batches": [x.half() for x in inputs()]}, "is too large for torch.float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_serve_is_told(options, words):
    given = {"model": made(Odd("plain")), "batches": inputs()} | options
    with pytest.raises((ValueError, TypeError), match=words):
        srn.fold(given.pop("model"), given.pop("batches"), **given)


class Beside(nn.Module):
    """Its head reads features beside the units, in a unit of their own."""

    def __init__(self, scale: float):
        super().__init__()
        self.rnn, self.head, self.scale = nn.GRU(5, 12), nn.Linear(17, 3), scale

    def forward(self, x):
        return self.head(torch.cat([self.rnn(x)[0], x * self.scale], -1))


def test_the_unit_of_features_beside_the_units_changes_nothing():
    found = []
    for scale in (1.0, 1e5):
        model = made(Beside(scale))
        with torch.no_grad():
            model.head.weight[:, 12:] /= scale
        found.append(srn.fold(model, inputs()))
    assert torch.equal(found[0].removed["rnn.l0"], found[1].removed["rnn.l0"])
    x = inputs()[0]  # not to the last digit: the ridge weighs a little on the features too
    torch.testing.assert_close(found[0].model(x), found[1].model(x), rtol=0.02, atol=0.02)
    assert found[1].measured <= 1.02 * found[0].measured


def test_weights_made_in_inference_mode_serve():
    with torch.inference_mode():
        model = made(Odd("plain"))
    assert srn.fold(model, inputs()).share <= 0.5
