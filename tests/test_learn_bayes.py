"""Bayesian sparsification: the divergence, the place of each multiplier, and a model that looks as before."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import sparsernn as srn
from learn_models import OPTIMIZERS, SYMBOLS, loss_of, tagger, tokens, train
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.bayes.cells import run
from sparsernn.learn.bayes.lstm import Layer
from sparsernn.learn.bayes.noise import Draw
from sparsernn.learn.bayes.variational import add_slopes, divergence, kl, log_alpha

LEVELS = {"W": "weight", "W+N": ("weight", "unit"), "W+G+N": ("weight", "gate", "unit")}
CELLS = ["LSTM", "GRU", "RNN"]


def bayes(model: nn.Module, example=None, **options) -> Bayes:
    options = {"train_size": 4000, "include": "all", **options}
    return Bayes(model, tokens() if example is None else example, **options)


def without_noise(sparsifier: Bayes) -> None:
    for sigma in sparsifier._posterior.log_sigmas:
        sigma.data.fill_(-torch.inf)


def random_means(sparsifier: Bayes) -> None:
    """Multipliers of all kinds away from one, which are what the noisy forward shows."""
    for own in sparsifier._posterior.kinds.values():
        own.mean.data.uniform_(0.6, 1.6)


# The divergence


def exact(alpha_log: Tensor) -> Tensor:
    """KL of N(1, alpha) from the log-uniform prior up to a constant, by numerical integration."""
    edges = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = torch.exp(-(middle**2) / 2)
    density /= density.sum()
    values = [(density * (1 + torch.exp(a / 2) * middle).abs().log()).sum() for a in alpha_log]
    return torch.stack(values) - alpha_log / 2


@pytest.mark.smoke
def test_the_divergence_and_its_slope_against_numerical_integration():
    a = torch.linspace(-7.9, 7.9, 80, dtype=torch.float64, requires_grad=True)
    value = kl(a)
    off = value.detach() - exact(a.detach())
    assert (off - (off.max() + off.min()) / 2).abs().max() < 0.012
    (slope,) = torch.autograd.grad(value.sum(), a)
    step = 1e-2
    numeric = (exact(a.detach() + step) - exact(a.detach() - step)) / (2 * step)
    assert (slope - numeric).abs().max() < 0.02


def test_the_gradient_in_closed_form_is_that_of_the_divergence():
    torch.manual_seed(0)
    a = torch.linspace(-9, 9, 61, dtype=torch.float64)
    mean = (torch.randn(61).double().sign() * (0.1 + torch.rand(61).double())).requires_grad_()
    sigma = (a / 2 + mean.detach().abs().log()).requires_grad_()
    kl(log_alpha(mean, sigma)).sum().backward()
    found = [torch.zeros_like(mean), torch.zeros_like(mean)]
    add_slopes(mean.detach(), sigma.detach(), 1.0, *found)
    again = torch.autograd.grad(divergence(mean, sigma), (mean, sigma))
    for expected, one, other in zip((mean.grad, sigma.grad), found, again):
        torch.testing.assert_close(one, expected)
        torch.testing.assert_close(other, expected)
    outside = a.abs() > 8
    assert not found[1][outside].any()


def test_dead_and_infinite_values_give_finite_gradients():
    mean = torch.tensor([0.0, 1e-30, 1.0, -2.0])
    sigma = torch.tensor([-3.0, -3.0, -torch.inf, 30.0])
    found = [torch.zeros(4), torch.zeros(4)]
    add_slopes(mean, sigma, 1.0, *found)
    assert all(bool(part.isfinite().all()) for part in found)
    assert divergence(mean, sigma).isfinite()


# The place of each multiplier


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


class Last(nn.Module):
    """A recurrent layer whose output is read by a linear one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def same_gradients(found: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    for a, b in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


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


OPTIONS = {
    "plain": {},
    "layers": {"num_layers": 2},
    "both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
}


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


class Packed(nn.Module):
    """Sequences of different lengths, the last hidden states of both directions read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(5, 6, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: PackedSequence) -> Tensor:
        out, state = self.rnn(x)
        h = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([h[0], h[1]], 1)) + self.head(out.data).sum()


def packed(seed: int = 1) -> PackedSequence:
    x = torch.randn(9, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    return pack_padded_sequence(x, torch.tensor([3, 9, 1, 6]), enforce_sorted=False)


@pytest.mark.parametrize("kind", CELLS)
def test_packed_sequences_without_variance_and_in_the_fold(kind):
    torch.manual_seed(0)
    model = Packed(kind).double()
    sparsifier = bayes(model, packed()).attach(torch.optim.SGD(model.parameters(), 0.1))
    plain = copy.deepcopy(model)
    without_noise(sparsifier)
    torch.testing.assert_close(model(packed(2)), plain(packed(2)), rtol=0, atol=1e-10)
    for one in (model, plain):
        one(packed(2)).pow(2).sum().backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10, msg=name)
    folds(model, sparsifier, packed(2))


def folds(model: nn.Module, sparsifier: Bayes, x) -> None:
    """The noisy forward with multipliers away from one is the plain one once the weights have absorbed them."""
    without_noise(sparsifier)
    random_means(sparsifier)
    before = {name: own.mean.detach().clone() for name, own in sparsifier._posterior.kinds.items()}
    shown = model.train()(x)
    assert not torch.allclose(shown, model.eval()(x))
    sparsifier._posterior.absorb(sparsifier._parameters)
    torch.testing.assert_close(model.eval()(x), shown, rtol=0, atol=1e-10)
    torch.testing.assert_close(model.train()(x), shown, rtol=0, atol=1e-10)
    assert before and all((own.mean == 1).all() for own in sparsifier._posterior.kinds.values())


@pytest.mark.smoke
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("options", list(OPTIONS))
def test_means_go_exactly_into_the_weights(kind, options):
    model = tagger(kind=kind, hidden=7, **OPTIONS[options]).double()
    folds(model, bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1)), tokens(2))


def test_the_divergence_does_not_see_the_fold():
    model = tagger(num_layers=2).double()
    sparsifier = bayes(model)
    random_means(sparsifier)
    before = sparsifier.penalty().item()
    biases = {n: p.clone() for n, p in model.named_parameters() if "bias" in n}
    sparsifier._posterior.absorb(sparsifier._parameters)
    # Each weight keeps its alpha; each multiplier as well.
    assert sparsifier.penalty().item() == pytest.approx(before, rel=1e-12)
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in biases.items())


class Curved(nn.Module):
    """Between the units and the weights that read them lies another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 9)
        self.rnn = nn.LSTM(9, 6, batch_first=True)
        self.head = nn.Linear(6, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(3 * self.rnn(self.embedding(x))[0]))


class Tied(nn.Module):
    """The embedding is the decoder as well, by a call that no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 6)
        self.rnn = nn.GRU(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.rnn(self.embedding(x))[0], self.embedding.weight)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 8, proj_size=5)
        self.cell = nn.GRUCell(5, 6)
        self.head = nn.Linear(6, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for x_t in self.rnn(nn.functional.one_hot(x % 4, 4).to(self.head.weight))[0]:
            h = self.cell(x_t, h)
        return self.head(h)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("make", "alone"), [(Curved, {"word", "input", "gate"}), (Tied, {"input", "gate"}), (Projected, set())]
)
def test_where_a_multiplier_can_not_sit_in_the_forward_it_scales_the_slices(make, alone):
    torch.manual_seed(0)
    model = make().double()
    sparsifier = bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    kinds = sparsifier._posterior.kinds
    assert {name for name, own in kinds.items() if own.alone.any()} <= alone
    assert not kinds["unit"].alone.any() or make is Tied
    folds(model, sparsifier, tokens(2))
    sparsifier = sparsifier.finish()
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


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


# The contract


@pytest.mark.parametrize("level", list(LEVELS))
def test_the_model_holds_the_means(level):
    model = tagger(num_layers=2)
    keys, kind = list(model.state_dict()), type(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, level=LEVELS[level]).attach(optimizer)
    train(model, optimizer, 3)
    assert type(model) is kind and list(model.state_dict()) == keys
    assert not torch.equal(model(tokens()), model(tokens()))
    shown = model.eval()(tokens())
    assert torch.equal(shown, model(tokens()))
    twin, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    fresh = tagger(seed=9, num_layers=2)
    fresh.load_state_dict(model.state_dict())
    for other in (twin.train(), again.train(), fresh.train()):
        torch.testing.assert_close(other(tokens()), shown, rtol=0, atol=0)
        assert torch.equal(other(tokens()), other(tokens()))
    copy.deepcopy(optimizer)
    model.train()
    assert sparsifier.finish() is model


@pytest.mark.smoke
@pytest.mark.parametrize("level", list(LEVELS))
@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum"])
def test_killed_and_resumed_is_equal_to_the_bit(level, optimizer):
    def start(seed):
        model = tagger(seed=seed, num_layers=2)
        built = OPTIMIZERS[optimizer](model)
        return model, built, bayes(model, level=LEVELS[level], sigma_rate=5.0).attach(built)

    model, built, sparsifier = start(0)
    train(model, built, 5)
    saved = io.BytesIO()
    torch.save([model.state_dict(), built.state_dict(), sparsifier.state_dict()], saved)
    train(model, built, 6, first=5)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    resumed, second, again = start(5)
    resumed.load_state_dict(state[0])
    second.load_state_dict(state[1])
    again.load_state_dict(state[2])
    train(resumed, second, 6, first=5)
    for (key, a), b in zip(model.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), key
    assert sparsifier.density() == again.density() and again.steps_done == 11
    assert sparsifier.penalty().item() == again.penalty().item()


def test_a_penalty_in_the_loss_is_not_added_twice():
    added, hooked = tagger(), tagger()
    for model, by_user in ((added, True), (hooked, False)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        torch.manual_seed(7)
        sparsifier = bayes(model).attach(optimizer)
        for number in range(4):
            optimizer.zero_grad()
            loss = loss_of(model, tokens(number))
            (loss + sparsifier.penalty() if by_user else loss).backward()
            optimizer.step()
    for a, b in zip(added.parameters(), hooked.parameters()):
        torch.testing.assert_close(a, b)


def test_gradients_reach_every_part_of_the_posterior():
    model = tagger(num_layers=2)
    sparsifier = bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    loss_of(model, tokens()).backward()
    for parameter in sparsifier._posterior.parameters:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", CELLS)
def test_finish_leaves_no_trace(kind):
    model = tagger(kind=kind, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(0)
    sparsifier = bayes(model, sigma_rate=15.0).attach(optimizer)
    assert len(optimizer.param_groups) == 3
    train(model, optimizer, 40)
    masks, density = sparsifier.masks, sparsifier.density()
    assert 0 < density < 0.9
    assert sparsifier.finish() is model
    assert len(optimizer.param_groups) == 1 and not optimizer._optimizer_step_pre_hooks
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert all("forward" not in vars(m) and not m._forward_pre_hooks for m in model.modules())
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())
    assert len(optimizer.state) == len(list(model.parameters()))
    assert sparsifier.density() == density
    for name, mask in masks.items():
        assert not model.get_parameter(name)[~mask].any(), name
    small = srn.compact(model.double(), tokens(), gates=True)
    torch.testing.assert_close(small(tokens(5)), model(tokens(5)), rtol=0, atol=1e-10)
    train(model.float(), optimizer, 1)


def test_what_does_not_matter_is_lost_in_noise():
    """Of six inputs two decide the class: theirs are the multipliers that bear no noise, and the net is right."""
    torch.manual_seed(0)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(6, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    def batch(seed, size=32):
        x = torch.randn(4, size, 6, generator=torch.Generator().manual_seed(seed))
        return x, (x[..., 0].sum(0) + x[..., 3].sum(0) > 0).long()

    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, batch(0)[0], train_size=600, sigma_rate=10.0, mean_rate=10.0).attach(optimizer)
    for number in range(250):
        x, y = batch(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    inputs = sparsifier._posterior.kinds["input"]
    noise = log_alpha(inputs.mean, inputs.log_sigma)
    assert noise[[0, 3]].max() + 3 < noise[[1, 2, 4, 5]].min()
    sparsifier.finish()
    x, y = batch(10_000, 500)
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.88
    assert sparsifier.density() < 0.2


def test_a_scheduler_built_after_attach_scales_all_rates():
    model = tagger()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparsifier = bayes(model, sigma_rate=10.0, mean_rate=2.0).attach(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, 1)
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-3, 5e-2, 1e-2])
    sparsifier.finish()
    train(model, optimizer, 1)
    schedule.step()


def test_a_forward_that_raises_leaves_the_weights_in_place():
    model = tagger()
    bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(IndexError):
        model(torch.tensor([[SYMBOLS + 1]]))
    assert all(isinstance(p, nn.Parameter) for p in model.parameters()) and "forward" not in vars(model.rnn)


def test_the_backward_pass_of_a_noisy_lstm_runs_once():
    model = tagger()
    bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    loss = loss_of(model, tokens())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can't run twice"):
        loss.backward()


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


def no_change(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) <= 3 and all(word in text for word in words), text


def test_misuse():
    model = tagger()
    good = bayes(model)
    wide = bayes(tagger(hidden=24)).state_dict()
    plain = bayes(model, level="weight").state_dict()
    adam = torch.optim.Adam(model.parameters())
    torch.optim.lr_scheduler.StepLR(adam, 1)
    lbfgs = torch.optim.LBFGS(model.parameters())
    frozen = tagger()
    frozen.rnn.weight_hh_l0.requires_grad_(False)
    part = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], 0.1)
    cases = [
        (lambda: Bayes(model, tokens(), train_size=0), ValueError, ["train_size is 0", "training examples"]),
        (lambda: Bayes(model, tokens(), train_size=1e4), ValueError, ["train_size is 10000.0"]),
        (lambda: Bayes(model, None, train_size=9), ValueError, ['level="unit"', "give example_inputs"]),
        (lambda: Bayes(model, tokens(), train_size=9, level="block"), ValueError, ["'block'", "weight, gate, unit"]),
        (lambda: Bayes(model, tokens(), train_size=9, level=()), ValueError, ["level is ()"]),
        (lambda: Bayes(model, tokens(), train_size=9, level=("unit", "unit")), ValueError, ["different"]),
        (lambda: Bayes(model, tokens(), train_size=9, sigma_rate=-1.0), ValueError, ["sigma_rate is -1.0"]),
        (lambda: Bayes(model, tokens(), train_size=9, log_sigma="small"), ValueError, ["log_sigma is 'small'"]),
        (
            lambda: Bayes(nn.Linear(3, 3), None, train_size=9, include="all", level="gate"),
            ValueError,
            ["recurrent layer"],
        ),
        (lambda: good.attach(lbfgs), ValueError, ["LBFGS", "use SGD, Adam"]),
        (lambda: good.attach(adam), ValueError, ["Attach Bayes first"]),
        (lambda: bayes(frozen).attach(part), ValueError, ["does not train rnn.weight_hh_l0"]),
        (lambda: good.load_state_dict(wide), ValueError, ["expected [80, 9]", "build the same sparsifier"]),
        (lambda: good.load_state_dict(plain), ValueError, ["Bayes"]),
        (lambda: good.load_state_dict(srn.Prune(model, None, 0.5).state_dict()), ValueError, ["Prune"]),
    ]
    before = {name: p.clone() for name, p in model.state_dict().items()}
    for call, error, words in cases:
        no_change(call, error, *words)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert len(adam.param_groups) == 1 and len(part.param_groups) == 1 and not model._forward_pre_hooks


# Clipped gradients


def step_with(max_norm: float | None, clip: float | None) -> tuple[Bayes, torch.optim.Optimizer, dict[int, Tensor]]:
    """Gradients as the optimizer sees them: of the model's and of the posterior's parameters, by place."""
    model = tagger().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = bayes(model, train_size=20, max_norm=max_norm).attach(optimizer)
    sparsifier._generator.manual_seed(5)
    found: dict[int, Tensor] = {}

    def look(optimizer, args, kwargs) -> None:
        own = [p for group in optimizer.param_groups for p in group["params"]]
        found.update({n: p.grad.clone() for n, p in enumerate(own) if p.grad is not None})

    optimizer.register_step_pre_hook(look)
    loss_of(model, tokens()).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return sparsifier, optimizer, found


@pytest.mark.parametrize("size", [0.03, 1e6])
def test_likelihood_divergence_and_log_sigmas_are_clipped_together(size):
    _, _, whole = step_with(None, None)
    _, _, cut = step_with(size, None)
    norm = torch.nn.utils.get_total_norm(list(whole.values()))
    share = min(1.0, size / float(norm))
    assert (share < 1) == (size < 1) and set(cut) == set(whole)
    for number, gradient in whole.items():
        torch.testing.assert_close(cut[number], share * gradient, rtol=1e-4, atol=0)


def test_clipping_before_the_step_is_warned_of_once_with_the_norm():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = bayes(model).attach(optimizer)
    heard = []
    for number in range(60):
        optimizer.zero_grad()
        loss_of(model, tokens(number)).backward()
        if number >= 30:  # not at the first look
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            optimizer.step()
        heard += said
    assert len(heard) == 1 and "Give max_norm=0.02 to Bayes" in str(heard[0].message)
    sparsifier.finish()


def test_a_norm_of_zero_is_refused():
    with pytest.raises(ValueError, match="max_norm is 0"):
        bayes(tagger(), max_norm=0)
