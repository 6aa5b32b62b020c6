"""Training in int8: forward the numbers of kernels and exported C, backward the identity, plain modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sparsernn as srn
from export_programs import chain
from learn_models import loss_of, tagger, tokens, train
from sparsernn.export.oracle import Oracle
from sparsernn.export.plan import lower
from sparsernn.learn.int8 import Grid, Rounding, rounded_rows
from sparsernn.nn import RHN, FactorisedGRU, FactorisedLinear, FactorisedLSTM, RaggedGRU, RaggedLSTM, RaggedState
from sparsernn.runtime.processor import processor
from sparsernn.structure.grids import on_grid

INPUTS = processor().vnni  # elsewhere `accelerate` rounds weights alone
pytestmark = pytest.mark.filterwarnings("ignore:.*no AVX-512 VNNI", "ignore:.*with projections")
LENGTH = 1 if INPUTS else 6  # states in steps of 1/127 may turn a last bit into a step


STACKS = {
    "lstm": lambda: nn.LSTM(12, 20, 2),
    "gru": lambda: nn.GRU(12, 20, bidirectional=True),
    "rnn": lambda: nn.RNN(12, 20, nonlinearity="relu", bias=False),
    "projected": lambda: RaggedLSTM(12, [20, 9], proj_sizes=[6, 5]),
    "ragged": lambda: RaggedGRU(12, [20, 9]),
    "thin": lambda: FactorisedLSTM(12, [20, 9], [[(5, 0)], [(3, 9)]]),
    "thin gru": lambda: FactorisedGRU(12, [[20, 9]], [[(0, 4), (12, 1)]], bidirectional=True),
}


class Stacked(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        width = rnn(torch.zeros(1, 3, 12))[0].shape[-1]
        thin = isinstance(rnn, FactorisedLSTM | FactorisedGRU)
        self.rnn, self.head = rnn, FactorisedLinear(width, 7, 3) if thin else nn.Linear(width, 7)

    def forward(self, x, hx):
        return self.head(self.rnn(x, hx)[0])


def attached(model: nn.Module, **options):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    return srn.quantise_aware(model, **options).attach(optimizer), optimizer


@pytest.mark.parametrize("kind", STACKS)
def test_the_forward_is_that_of_the_accelerated_model(kind):
    torch.manual_seed(0)
    model = Stacked(STACKS[kind]()).eval()
    x, hx = torch.randn(LENGTH, 3, 12), states_like(model.rnn)
    plain = model(x, hx)
    fast = srn.accelerate(model, precision="int8")
    sparsifier, _ = attached(model, inputs=INPUTS)
    with torch.no_grad():
        trained = model(x, hx)
    assert torch.allclose(trained, fast(x, hx), atol=2e-6)
    assert float((plain - trained).detach().abs().max()) > 1e-4
    finished = srn.accelerate(sparsifier.finish(), precision="int8")
    assert torch.allclose(finished(x, hx), trained, atol=2e-6)


def states_like(rnn: nn.Module):
    """States of the size of those that it returns, of three sequences."""
    found = rnn(torch.zeros(1, 3, 12))[1]
    drawn = [_drawn(state) for state in (found if type(found) is tuple else (found,))]
    return tuple(drawn) if type(found) is tuple else drawn[0]


def _drawn(state):
    rows = [torch.randn(row.shape) for row in state]
    return torch.stack(rows) if isinstance(state, torch.Tensor) else RaggedState(rows)


def test_packed_sequences_too():
    torch.manual_seed(0)
    lengths = torch.tensor([LENGTH, max(1, LENGTH - 2), 1])
    lstm = nn.LSTM(12, 20, batch_first=True).eval()
    x = nn.utils.rnn.pack_padded_sequence(torch.randn(3, LENGTH, 12), lengths, batch_first=True)
    states = (torch.randn(1, 3, 20), torch.randn(1, 3, 20))
    want, (h, c) = srn.accelerate(lstm, precision="int8")(x, states)
    attached(lstm, inputs=INPUTS)
    with torch.no_grad():
        got, (h_own, c_own) = lstm(x, states)
    for ours, theirs in ((got.data, want.data), (h_own, h), (c_own, c)):
        assert torch.allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_too(kind):
    torch.manual_seed(0)
    cell = kind(12, 20).eval()
    x, h = torch.randn(3, 12), torch.randn(3, 20)
    given = (h, torch.randn(3, 20)) if kind is nn.LSTMCell else h
    fast = srn.accelerate(cell, precision="int8")
    want = [fast(x, given), fast(x), fast(x[0])]
    attached(cell, inputs=INPUTS)
    with torch.no_grad():
        got = [cell(x, given), cell(x), cell(x[0])]
    for ours, theirs in zip(got, want):
        for a, b in zip(ours if type(ours) is tuple else (ours,), theirs if type(theirs) is tuple else (theirs,)):
            assert a.shape == b.shape and torch.allclose(a, b, atol=2e-6)


def extreme(columns: int) -> tuple[nn.Linear, torch.Tensor]:
    """A linear layer whose sums are as large as they can be, and inputs from nothing to the largest everywhere."""
    torch.manual_seed(0)
    linear = nn.Linear(columns, 40, bias=False).eval()
    with torch.no_grad():
        linear.weight.sign_()
        linear.weight[1::2, ::3] *= 0.37
    return linear, torch.cat([torch.randn(5, columns), torch.ones(1, columns), torch.zeros(1, columns)])


@pytest.mark.parametrize("columns", [30, 1500])
def test_products_are_those_of_whole_numbers_to_the_bit(columns):
    """Sums of whole numbers are exact in any order; without a bias there is one rounding, the same everywhere."""
    linear, x = extreme(columns)
    oracle = Oracle(lower(chain([linear], len(x)), "int8"))
    want = [oracle.step(x.numpy())[0]]
    if INPUTS:
        model = nn.Sequential(linear, nn.GRU(40, 3))
        want.append(srn.accelerate(model, precision="int8")[0](x).numpy())
    attached(linear)
    with torch.no_grad():
        got = linear(x).numpy()
    assert all(np.array_equal(got, each) for each in want)


@pytest.mark.parametrize("make", [lambda: nn.GRU(10, 24), lambda: nn.RNN(10, 33)])
def test_each_step_is_that_of_the_exported_c(make):
    torch.manual_seed(0)
    model = make().eval()
    oracle = Oracle(lower(chain([model]), "int8"))
    attached(model)
    h = torch.zeros(1, 1, model.hidden_size)
    for x in torch.randn(12, 1, 10):
        with torch.no_grad():
            got = model(x[None], h)[0][0].numpy()
        want = oracle.step(x.numpy())[0]
        assert np.abs(got - want).max() < 2e-6
        h = torch.from_numpy(want)[None]


@pytest.mark.parametrize("bits", [8, 4])
def test_backward_rounding_is_the_identity(bits):
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    x, d_y = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    own = [t.clone().requires_grad_() for t in (x, weight, bias)]
    Rounding({id(own[1])}, bits).product(*own).backward(d_y)
    grid, (numbers, steps) = Grid.of(weight, bits), rounded_rows(x)
    rounded = [t.clone().requires_grad_() for t in (numbers * steps, grid.numbers * grid.scales[:, None], bias)]
    nn.functional.linear(*rounded).backward(d_y)
    for ours, theirs in zip(own, rounded):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert float((rounded[1] - weight).detach().abs().max()) <= float(grid.scales.max()) / 2 + 1e-12


@pytest.mark.parametrize("bits", [8, 4])
def test_a_rounded_matrix_has_the_same_numbers_and_scales_again(bits):
    torch.manual_seed(0)
    weight = torch.randn(40, 30) * torch.rand(40, 1) * (torch.rand(40, 30) > 0.8)
    weight[3] = 0
    grid = Grid.of(weight, bits)
    values = grid.values(weight)
    again = Grid.of(values, 8)
    assert torch.allclose(values, grid.numbers * grid.scales[:, None], rtol=1e-6)
    assert torch.allclose(again.numbers * again.scales[:, None], values, rtol=1e-6)
    assert bool((values[weight == 0] == 0).all())
    if bits == 4:
        codes, scales = on_grid(values)
        assert torch.equal(codes.double() * scales.double()[:, None], values.double())
    else:
        several = (grid.numbers != 0).sum(1) > 2
        assert torch.equal(again.numbers[several], grid.numbers[several])
        assert torch.equal(again.scales[several], grid.scales[several])


def test_it_learns_what_rounding_to_four_bits_loses():
    torch.manual_seed(0)
    teacher, mixed = nn.GRU(8, 16), torch.randn(3, 8)  # inputs that go together: errors of some make up for others'
    model = copy.deepcopy(teacher)

    def loss(student: nn.Module, number: int) -> torch.Tensor:
        x = torch.randn(12, 16, 3, generator=torch.Generator().manual_seed(number)) @ mixed
        return (student(x)[0] - teacher(x)[0].detach()).square().mean()

    rounded = loss(srn.quantise_aware(copy.deepcopy(teacher), bits=4).finish(), 999)
    sparsifier, optimizer = srn.quantise_aware(model, bits=4), torch.optim.Adam(model.parameters())
    sparsifier.attach(optimizer)
    for number in range(100):
        optimizer.param_groups[0]["lr"] = 1e-4 * (100 - number)
        optimizer.zero_grad()
        loss(model, number).backward()
        optimizer.step()
    seen = loss(model, 999)
    finished = sparsifier.finish()
    assert float(loss(finished, 999).detach()) < 0.6 * float(rounded.detach())
    fast = srn.accelerate(finished.eval(), precision="int8")
    assert abs(float(loss(fast, 999)) / float(seen.detach()) - 1) < 0.1
    assert all(len(row.unique()) <= 15 for row in model.weight_hh_l0)


def validated(model: nn.Module) -> float:
    with torch.no_grad():
        return sum(float(loss_of(model.eval(), tokens(900 + n))) for n in range(8)) / 8


def test_copies_states_and_keys_are_plain_while_attached():
    model = tagger().eval()
    keys, plain = list(model.state_dict()), model(tokens())
    before = copy.deepcopy(model.state_dict())
    sparsifier, _ = attached(model)
    assert not torch.equal(model(tokens()), plain)
    assert torch.equal(copy.deepcopy(model)(tokens()), plain)
    assert list(model.state_dict()) == keys and type(model.rnn) is nn.LSTM and "forward" not in vars(model.rnn)
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in keys)
    sparsifier.finish()
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert sparsifier.density() == 1


@pytest.mark.parametrize("first", ["prune", "quantise"])
def test_masks_of_others_hold(first):
    model = tagger()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-2)
    makers = [lambda: srn.Prune(model, None, 0.8, level="block"), lambda: srn.quantise_aware(model)]
    both = [make().attach(optimizer) for make in (makers if first == "prune" else makers[::-1])]
    train(model, optimizer, 5)
    for each in both:
        each.finish()
    assert float((model.rnn.weight_hh_l0 == 0).float().mean()) >= 0.79
    loss_before = validated(model)
    assert abs(validated(srn.quantise_aware(model).finish()) - loss_before) < 1e-6  # it is on its grid already


def test_tied_weights_stay_between_the_steps_and_are_rounded_where_they_are_multiplied():
    model = tagger(hidden=9)
    model.head.weight = model.embedding.weight
    want = model.embedding.weight.detach().clone()
    srn.quantise_aware(model).finish()
    assert torch.equal(model.embedding.weight, want)
    with pytest.raises(ValueError, match=r"embedding.weight is read by another module .*\n.*bits=8"):
        srn.quantise_aware(model, bits=4)


def test_matrices_that_are_not_included_are_multiplied_as_they_are():
    model = tagger().double()
    hidden, _ = model.rnn(model.embedding(tokens()))
    attached(model, include="head*")
    assert torch.equal(model.rnn(model.embedding(tokens()))[0], hidden)
    with torch.no_grad():
        got = model(tokens())
    want = nn.functional.linear(hidden, model.head.weight, model.head.bias)
    assert not torch.allclose(got, want) and torch.allclose(got, want, atol=0.05)


def test_what_can_not_be_done_is_said():
    model = nn.Sequential(nn.Linear(4, 6), RHN(6, 6, 2))
    with pytest.raises(ValueError, match=r"1 \(RHN\) has a forward of its own.*\n.*include="):
        srn.quantise_aware(model)
    srn.quantise_aware(model, include="0.*")
    with pytest.raises(ValueError, match="bits is 3, expected 8 or 4"):
        srn.quantise_aware(model, bits=3)
    with pytest.raises(ValueError, match="holds no matrix"):
        srn.quantise_aware(nn.Embedding(4, 6))
    with pytest.warns(UserWarning, match="no example calls head"):
        srn.quantise_aware(Idle(), torch.zeros(1, 3, 4))
    tagged = tagger()
    attached(tagged)
    with pytest.raises(ValueError, match="quantise_aware is attached to this model"):
        srn.Bayes(tagged, train_size=9, level="weight").attach(torch.optim.SGD(tagged.parameters(), 0.1))


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return nn.functional.linear(self.rnn(x)[0], self.head.weight)
