"""Folding: units go and the rest makes up for them, without training. Oracles in float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import sparsernn as srn
from fold_models import Tagger, batches, made
from sparsernn.learn.least_squares import Reader

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}, {"proj_size": 2}], ids=str
)
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_folded_model_compacts_to_the_same_function(cell, options):
    if "proj_size" in options and cell is not nn.LSTM:
        pytest.skip("only LSTM projects")
    model, data = made(Tagger(cell, **options)), batches()
    before = copy.deepcopy(model.state_dict())
    sizes = srn.fold(model, data, to=(0.75, 0.5, 0.3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(folded.kept for folded in sizes)
    for share, folded in zip((0.75, 0.5, 0.3), sizes):
        assert folded.share <= share
        small = srn.compact(folded.model, data[0])
        torch.testing.assert_close(small(data[1]), folded.model(data[1]), rtol=1e-10, atol=1e-10)
        traced = srn.trace(folded.model, data[0]).dead(dict(folded.model.named_parameters()))
        assert all(torch.equal(traced[name], gone) for name, gone in folded.removed.items())
        matrices = [name for layer in srn.trace(small, data[0]).layers for name in layer.matrices()]
        whole = sum(p.numel() for name, p in model.named_parameters() if name.startswith("rnn.weight"))
        left = sum(p.numel() for name, p in small.named_parameters() if name in matrices)
        assert left == pytest.approx(folded.share * whole) or options.get("num_layers") or options.get("bidirectional")
    changes = [folded.measured for folded in sizes]
    assert changes == sorted(changes)
    assert "units left" in str(sizes)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_of_twins_one_goes_and_nothing_changes(cell):
    """Each unit stands twice: half of them go at no loss, the weights of the pair added up."""
    single = made(Tagger(cell, 5))
    model = made(Tagger(cell, 10))
    gates = 4 if cell is nn.LSTM else 3
    with torch.no_grad():
        model.embedding.weight.copy_(single.embedding.weight)
        for name, p in model.rnn.named_parameters():
            value = single.rnn.get_parameter(name)
            doubled = value.view(gates, 5, -1).repeat_interleave(2, 1).reshape(10 * gates, -1)
            p.copy_(doubled.repeat_interleave(2, 1) / 2 if name == "weight_hh_l0" else doubled.view(p.shape))
        model.head.weight.copy_(single.head.weight.repeat_interleave(2, 1) / 2)
        model.head.bias.copy_(single.head.bias)
    data = batches()
    torch.testing.assert_close(model(data[0]), single(data[0]), rtol=1e-12, atol=1e-12)
    folded = srn.fold(model, data, to=0.4, ridge=1e-13)
    assert int((~folded.removed["rnn.l0"]).sum()) == 5
    assert sorted(n // 2 for n in torch.nonzero(~folded.removed["rnn.l0"])[:, 0].tolist()) == list(range(5))
    torch.testing.assert_close(folded.model(data[1]), model(data[1]), rtol=1e-9, atol=1e-9)
    assert folded.measured < 1e-9


def test_the_readers_are_the_least_squares_solution_over_what_stays():
    model, data = made(Tagger(nn.LSTM, 8)), batches()
    folded = srn.fold(model, data, to=0.5, ridge=0.0)
    gone = folded.removed["rnn.l0"]
    with torch.no_grad():
        h_NI = torch.cat([model.rnn(model.embedding(x))[0].flatten(0, 1) for x in data])
        before_NI = torch.cat(
            [nn.functional.pad(model.rnn(model.embedding(x))[0][:-1], (0, 0, 0, 0, 1, 0)).flatten(0, 1) for x in data]
        )
    for inputs_NI, weight, bias in (
        (h_NI, "head.weight", "head.bias"),
        (before_NI, "rnn.weight_hh_l0", "rnn.bias_hh_l0"),
    ):
        old, new = model.state_dict(), folded.model.state_dict()
        wanted = inputs_NI @ old[weight].T + old[bias]
        seen = torch.cat([inputs_NI[:, ~gone], torch.ones(len(inputs_NI), 1).double()], 1)
        solution = torch.linalg.lstsq(seen, wanted).solution
        torch.testing.assert_close(new[weight][:, ~gone], solution[:-1].T, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(new[bias], solution[-1], rtol=1e-8, atol=1e-8)
        assert not bool(new[weight][:, gone].any())


def test_the_first_to_go_is_the_one_that_brute_force_finds():
    source = torch.Generator().manual_seed(0)
    x_NI = torch.randn(300, 6, generator=source).double() @ torch.randn(6, 6, generator=source).double()
    readers = [torch.randn(rows, 6, generator=source).double() for rows in (3, 5)]
    seen = torch.cat([x_NI, torch.ones(300, 1).double()], 1)
    moment = seen.T @ seen / 300
    groups = torch.tensor([0, 1, 2, 3, 3, 4, -1])  # group 3 has two inputs; the constant stays
    work = [Reader(torch.cat([r, torch.zeros(len(r), 1)], 1), moment, groups, 0.0, bias=True) for r in readers]

    def error(out: tuple[int, ...]) -> float:
        stay = ~torch.isin(groups, torch.tensor(out))
        total = 0.0
        for r in readers:
            wanted = x_NI @ r.T
            found = torch.linalg.lstsq(seen[:, stay], wanted).solution
            total += float((seen[:, stay] @ found - wanted).square().sum()) / 300
        return total

    spent = 0.0
    for gone in itertools.accumulate([(3,), (0,), (4,)]):
        errors = sum(reader.errors(5) for reader in work)
        left = [g for g in range(5) if g not in gone[:-1]]
        brute = torch.tensor([error((*gone[:-1], g)) for g in left], dtype=torch.float64) - spent
        torch.testing.assert_close(errors[left], brute, rtol=1e-8, atol=1e-8)
        spent = error(gone)
        for reader in work:
            reader.remove(gone[-1])
    mask = torch.tensor([True, False, False, True, True])
    assert sum(r.change(r.solved(mask)) for r in work) == pytest.approx(spent, rel=1e-8)


class Several(nn.Module):
    """A unit read by itself, a head, a convolution, a transposed one, and another layer."""

    def __init__(self):
        super().__init__()
        self.rnn, self.next = nn.GRU(5, 8, batch_first=True), nn.LSTM(8, 6, batch_first=True)
        self.head, self.conv = nn.Linear(8, 3), nn.Conv1d(8, 2, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose1d(8, 2, 4, stride=2)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.next(y)[0], self.head(torch.relu(y)), self.conv(y.mT), self.up(y.mT)


def test_every_reader_of_a_unit_makes_up_for_it():
    model = made(Several())
    source = torch.Generator().manual_seed(1)
    data = [torch.randn(8, 12, 5, generator=source).double() for _ in range(5)]
    folded = srn.fold(model, data, to=0.7)
    assert folded.kept == {} or set(folded.kept) == {"next.l0"}  # the caller gets the states of the last layer
    gone = folded.removed["rnn.l0"]
    assert 0 < int(gone.sum()) < 8
    state = folded.model.state_dict()
    for name in ("rnn.weight_hh_l0", "next.weight_ih_l0", "head.weight", "conv.weight"):
        assert not bool(state[name][:, gone].any()), name
    assert not bool(state["up.weight"][gone].any())
    # Taking the same units out without making up for them is worse.
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("rnn.weight_hh_l0", "next.weight_ih_l0", "head.weight", "conv.weight"):
            plain.get_parameter(name)[:, gone] = 0
        plain.up.weight[gone] = 0

    @torch.no_grad()
    def change(other: nn.Module) -> float:
        return sum(float((a - b).square().sum()) for x in data for a, b in zip(other(x), model(x)))

    assert change(folded.model) < 0.5 * change(plain)
    small = srn.compact(folded.model, data[0])
    for a, b in zip(small(data[1]), folded.model(data[1])):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = self.rnn(x)[0]
        weights = torch.softmax((y * y[-1:]).sum(-1, keepdim=True), 0)
        return self.head((weights * y).sum(0))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(9, 6), nn.GRU(6, 6)

    def forward(self, x):
        return self.rnn(self.embedding(x))[0] @ self.embedding.weight.t()


def test_what_no_solution_can_make_up_for_stays_and_says_why():
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    for model, data, words in (
        (Attentive(), [x], "multiplied with another activation|No unit"),
        (Tied(), batches(2), "embedding.weight is used by embedding"),
    ):
        with pytest.raises(ValueError, match=words):
            srn.fold(made(model), data)


def test_costs_of_other_kinds():
    model, data = made(Tagger(nn.LSTM, 12)), batches()
    counted = srn.fold(model, data, to=0.5, cost="mult-adds")
    units = int((~counted.removed["rnn.l0"]).sum())
    size = lambda h: 4 * h * (6 + h) + 4 * h  # noqa: E731
    assert size(units) <= 0.5 * size(12) < size(units + 1)
    assert counted.share == pytest.approx(size(units) / size(12))
    bought = srn.fold(model, data, to=0.34, cost=lambda widths: float(widths["rnn.l0"]))
    assert int((~bought.removed["rnn.l0"]).sum()) == 4


def test_bad_input_is_told():
    model, data = made(Tagger()), batches()
    nan = made(Tagger())
    with torch.no_grad():
        nan.embedding.weight[0, 0] = torch.nan
    for call, kind, words in (
        (lambda: srn.fold(model, []), ValueError, "batches is empty"),
        (lambda: srn.fold(model, data[0]), TypeError, "batches is Tensor, expected an iterable of batches"),
        (lambda: srn.fold(model, data, to=1.5), ValueError, "to is 1.5, expected a share between 0 and 1"),
        (lambda: srn.fold(model, data, to=()), ValueError, "expected a share"),
        (lambda: srn.fold(model, data, to=0.001), ValueError, "can't be reached"),
        (lambda: srn.fold(model, data, cost="bytes"), ValueError, "cost is 'bytes'"),
        (lambda: srn.fold(model, [torch.zeros(2, 3)]), ValueError, "could not run on example"),
        (lambda: srn.fold(nan, data), ValueError, "NaN"),
        (lambda: srn.fold(model, iter([])), ValueError, "batches is empty"),
        (lambda: srn.fold(model, [x[:, :0] for x in data]), ValueError, "hold no position"),
        (lambda: srn.fold("model", data), TypeError, "expected a torch.nn.Module"),
    ):
        with pytest.raises(kind, match=words):
            call()


def test_training_mode_and_requires_grad_stay():
    model = made(Tagger()).train()
    model.head.weight.requires_grad_(False)
    folded = srn.fold(model, batches()).model
    assert folded.training and model.training and type(folded) is Tagger
    assert not folded.head.weight.requires_grad and folded.rnn.weight_hh_l0.requires_grad
