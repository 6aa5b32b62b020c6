"""The place of each multiplier of a noisy model, its gradient and its samples, against the equations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bayes_models import CELLS, LEVELS, OPTIONS, Last, bayes, random_means, same_gradients, without_noise
from learn_models import loss_of, tagger, tokens
from sparsernn.learn.bayes.cells import run
from sparsernn.learn.bayes.lstm import Layer
from sparsernn.learn.bayes.noise import Draw


def by_hand(kind: str, rnn: nn.Module, x: Tensor, z_x: Tensor, z_g: Tensor, z_h: Tensor) -> Tensor:
    """One layer, written down from the equations: x (T, B, I), multipliers (B, ...)."""
    w, u, b, d = (getattr(rnn, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    k = rnn.hidden_size
    read = h = c = x.new_zeros(x.shape[1], k)
    outputs = []
    for x_t in x:
        of_x, of_h = (x_t * z_x) @ w.T, read @ u.T
        if kind == "LSTM":
            i, f, g, o = ((of_x + of_h) * z_g + b + d).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        elif kind == "GRU":
            x_r, x_z, x_n = (of_x * z_g + b).chunk(3, 1)
            h_r, h_z, h_n = (of_h * z_g + d).chunk(3, 1)
            n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            z = torch.sigmoid(x_z + h_z)
            h = (1 - z) * n + z * h
        else:
            h = torch.tanh((of_x + of_h) * z_g + b + d)
        read = h * z_h
        outputs.append(read)
    return torch.stack(outputs)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", CELLS)
def test_the_place_of_each_multiplier_and_its_gradient(kind):
    torch.manual_seed(3)
    model = Last(kind).double()
    x = torch.randn(7, 4, 5).double()
    sparsifier = bayes(model, x)
    kinds = sparsifier._posterior.kinds
    assert set(kinds) == {"input", "gate", "unit"} and all(own.alone.all() for own in kinds.values())
    gates = len(sparsifier._governed.layers[0].gates) * 6
    each = {name: torch.rand(4, n).double() + 0.5 for name, n in (("input", 5), ("gate", gates), ("unit", 6))}
    each = {name: value.requires_grad_() for name, value in each.items()}
    draw = Draw({}, kinds, None)
    draw._sequences = {(name, 4): nn.functional.pad(value, (0, 1), value=1.0) for name, value in each.items()}
    expected = by_hand(kind, model.rnn, x, each["input"], each["gate"], each["unit"])
    found = sparsifier._noise.forwards[model.rnn](draw)(x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    against = torch.randn_like(expected)
    wanted = [*each.values(), *model.rnn.parameters()]
    for a, b in zip(
        torch.autograd.grad((found * against).sum(), wanted), torch.autograd.grad((expected * against).sum(), wanted)
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("level", ["gate", "unit"])
def test_the_gradient_with_one_kind_of_multipliers(kind, level):
    torch.manual_seed(3)
    model = Last(kind).double()
    x = torch.randn(7, 4, 5).double()
    sparsifier = bayes(model, x, level=("weight", level))
    random_means(sparsifier)
    kinds = sparsifier._posterior.kinds
    means = {k: own.mean.expand(4, -1) for k, own in kinds.items()}
    rows = len(model.rnn.weight_hh_l0)
    ones = {"input": torch.ones(4, 5), "gate": torch.ones(4, rows), "unit": torch.ones(4, 6)}
    each = {name: means.get(name, value.double()) for name, value in ones.items()}
    expected = by_hand(kind, model.rnn, x, each["input"], each["gate"], each["unit"])
    found = sparsifier._noise.forwards[model.rnn](Draw({}, kinds, None))(x)[0]
    wanted = [*model.rnn.parameters(), *(own.mean for own in kinds.values())]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found.pow(2).sum(), wanted), torch.autograd.grad(expected.pow(2).sum(), wanted)
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("level", list(LEVELS))
def test_without_variance_the_model_is_the_plain_one(kind, options, level):
    model = tagger(kind=kind, hidden=7, **OPTIONS[options]).double()
    sparsifier = bayes(model, level=LEVELS[level]).attach(torch.optim.SGD(model.parameters(), 0.1))
    without_noise(sparsifier)
    plain = copy.deepcopy(model)
    for x in (tokens(2), tokens(3, batch=1, time=9)):
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-10)
    loss_of(model, tokens(2)).backward()
    loss_of(plain, tokens(2)).backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10, msg=name)


def test_one_sample_for_each_sequence_constant_over_time():
    model = Last("LSTM").double()
    sparsifier = bayes(model, torch.randn(3, 2, 5).double())
    draw = sparsifier._draw()
    units = torch.arange(6)
    each = draw.each("unit", units, 50)
    assert each is not None and each.shape == (50, 6) and draw.each("unit", units, 50) is not None
    torch.testing.assert_close(each, draw.each("unit", units, 50))
    assert each.std(0).min() > 0.02 and (each.mean() - 1).abs() < 0.03
    weight = draw.weight("rnn.weight_hh_l0", model.rnn.weight_hh_l0) - model.rnn.weight_hh_l0
    assert 0.02 < weight.std() < 0.08


def test_a_linear_layer_that_sees_examples_once_samples_its_output():
    """Mean and variance of local reparameterisation are those of sampled weights."""
    torch.manual_seed(0)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(3, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    model = Classifier().double()
    sparsifier = bayes(model, torch.randn(3, 2, 3).double(), level="weight")
    h = torch.randn(1, 4).double().expand(20_000, 4)
    with torch.no_grad():
        out = sparsifier._noise.forwards[model.head](sparsifier._draw())(h)
    sigma = torch.exp(torch.tensor(-3.0).double()) * h[0].norm()
    torch.testing.assert_close(out.mean(0), model.head(h[0]).detach(), rtol=0, atol=0.005)
    torch.testing.assert_close(out.std(0), sigma.expand(2), rtol=0.03, atol=0)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("by", [("input", "gate", "unit"), ("gate",), ("unit",), ()])
def test_a_noisy_rnn_of_sequences_of_several_lengths_has_the_gradients_of_its_equations(nonlinearity, by):
    source = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64).requires_grad_()

    x, w, u, b, d, first = drawn(9, 5), drawn(6, 5), drawn(6, 6), drawn(6), drawn(6), drawn(4, 6)
    widths = {"input": 5, "gate": 6, "unit": 6}
    each = {name: drawn(4, width) for name, width in widths.items() if name in by}
    layer = Layer(f"RNN_{nonlinearity.upper()}", w, u, b, d, *(each.get(name) for name in widths))
    sizes = (4, 3, 2)
    found, (last,) = run(layer, x, sizes, [first])
    ones = {name: torch.ones(4, width, dtype=torch.float64) for name, width in widths.items()} | each
    read, outputs, ends = first, [], first
    for x_t, size in zip(x.split(sizes), sizes):
        total = (x_t * ones["input"][:size]) @ w.T + read[:size] @ u.T
        read = getattr(torch, nonlinearity)(total * ones["gate"][:size] + b + d) * ones["unit"][:size]
        outputs.append(read)
        ends = torch.cat([read, ends[size:]])
    expected = torch.cat(outputs)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12) and torch.allclose(last, ends, rtol=0, atol=1e-12)
    wanted = [x, w, u, b, d, first, *each.values()]
    weight, end = torch.randn(9, 6, generator=source).double(), torch.randn(4, 6, generator=source).double()
    same_gradients((found * weight).sum() + (last * end).sum(), (expected * weight).sum() + (ends * end).sum(), wanted)
