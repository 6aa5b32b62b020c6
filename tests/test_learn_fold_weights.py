"""Folding single weights and blocks: what goes and the weights of what is left, against least squares written out."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from fold_models import batches, made
from learn_models import inputs_of_recall, loss_of_recall, trained_recall
from sparsernn.learn.supports import least_lost, solved_on

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


class Tagger(nn.Module):
    def __init__(self, cell=nn.LSTM, hidden=18, bias=True, **options):
        super().__init__()
        self.embedding = nn.Embedding(9, 7)
        self.rnn = cell(7, hidden, bias=bias, **options)
        self.head = nn.Linear(hidden * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x_TB):
        return self.head(self.rnn(self.embedding(x_TB))[0])


@torch.no_grad()
def operands(model: nn.Module, data: list[Tensor]) -> dict[str, Tensor]:
    """Of a one-layer net, the recurrence written out."""
    inputs, states = [], []
    for x in data:
        e = model.embedding(x)
        h = model.rnn(e)[0]
        inputs.append(e.flatten(0, 1))
        states.append(torch.cat([torch.zeros_like(h[:1]), h[:-1]]).flatten(0, 1))
    return {"ih": torch.cat(inputs), "hh": torch.cat(states)}


class Echo(nn.Module):
    """Two layers, the second of which follows its own state closely and its input a little."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 32, num_layers=2)
        self.head = nn.Linear(32, 1)
        with torch.no_grad():
            for name, scale in (("weight_ih_l0", 1.0), ("weight_hh_l0", 0.1), ("weight_ih_l1", 0.05)):
                self.rnn.get_parameter(name).normal_(std=scale, generator=torch.Generator().manual_seed(4))
            self.rnn.get_parameter("weight_hh_l1").copy_(0.95 * torch.eye(32))

    def forward(self, x_TB1: Tensor) -> Tensor:
        return self.head(self.rnn(x_TB1)[0])


@pytest.mark.parametrize("level", ["weight", "block"])
def test_which_matrix_loses_most_is_what_changes_the_outputs_least_of_several_ways(level, monkeypatch):
    torch.manual_seed(0)
    model = Echo().double().eval()
    data = [torch.randn(40, 16, 1, dtype=torch.float64) for _ in range(4)]
    changes = {}
    for parts in ((0.0,), (0.5,), (1.0,), (0.0, 0.5, 1.0)):
        monkeypatch.setattr("sparsernn.learn.fold_weights.PARTS", parts)
        changes[parts] = srn.fold(model, data, to=0.3, level=level).measured
    chosen = changes.pop((0.0, 0.5, 1.0))
    assert chosen == min(changes.values()) < 0.9 * max(changes.values())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("level", ["weight", "block", "word"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_each_row_is_the_least_squares_solution_on_what_it_has_left(cell, level, bias):
    model, data = made(Tagger(cell, bias=bias)), batches()
    before = copy.deepcopy(model.state_dict())
    folded = srn.fold(model, data, 0.4, level=level, ridge=1e-12)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    whole = sum(gone.numel() for gone in folded.removed.values())
    left = sum(int((~gone).sum()) for gone in folded.removed.values())
    assert left / whole == folded.share <= 0.4 < folded.share + 64 / whole and not folded.kept
    after, seen = folded.model.state_dict(), operands(model, data)
    for kind, x_NI in seen.items():
        name = f"rnn.weight_{kind}_l0"
        gone = folded.removed[name]
        assert torch.equal(after[name] == 0, gone)
        wanted_NR = x_NI @ before[name].T + (before[f"rnn.bias_{kind}_l0"] if bias else 0)
        for row in range(0, len(gone), 7):
            x = x_NI[:, ~gone[row]]
            x = torch.cat([x, x.new_ones(len(x), 1)], 1) if bias else x
            solution = torch.linalg.lstsq(x, wanted_NR[:, row : row + 1], driver="gelsd").solution[:, 0]
            found = torch.cat([after[name][row, ~gone[row]], after[f"rnn.bias_{kind}_l0"][row : row + 1]] if bias
                              else [after[name][row, ~gone[row]]])  # fmt: skip
            torch.testing.assert_close(x @ found, x @ solution, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("level", "width"), [("block", 1), ("word", 4)])
def test_blocks_go_whole_within_each_gate(level, width):
    """18 units: blocks of 16 rows and of 2 in each gate; words of 4 columns, the last one shorter."""
    model, data = made(Tagger()), batches()
    folded = srn.fold(model, data, 0.5, level=level)
    for gone in folded.removed.values():
        for gate in gone.view(4, 18, -1):
            for rows in (gate[:16], gate[16:]):
                for word in rows.split(width, 1):
                    assert bool(word.all()) or not bool(word.any())


@pytest.mark.parametrize("width", [1, 4])
def test_what_the_loss_of_a_block_costs_is_what_brute_force_finds(width):
    source = torch.Generator().manual_seed(0)
    x_NI = torch.randn(300, 6, generator=source).double() @ torch.randn(6, 6, generator=source).double()
    x_NI = torch.cat([x_NI, torch.ones(300, 1).double()], 1)  # the constant belongs to no block
    rows_RI = torch.randn(5, 7, generator=source).double()
    moment, group = x_NI.T @ x_NI / 300, torch.tensor([0, 0, 0, 1, 1])
    support = torch.ones(2, 7, dtype=torch.bool)
    support[1, 1 if width == 1 else slice(0, 4)] = False

    def solved(there: Tensor) -> tuple[Tensor, Tensor]:
        """The rows, and the mean squared error of each group."""
        result, errors = torch.zeros_like(rows_RI), torch.zeros(2).double()
        for row, own in enumerate(group.tolist()):
            wanted, x = x_NI @ rows_RI[row], x_NI[:, there[own]]
            result[row, there[own]] = torch.linalg.lstsq(x, wanted[:, None]).solution[:, 0]
            errors[own] += (x_NI @ result[row] - wanted).square().mean()
        return result, errors

    rows, errors = solved(support)
    torch.testing.assert_close(solved_on(rows_RI, moment, support, group), rows, rtol=1e-9, atol=1e-9)
    lost = least_lost(rows, moment, support, group, 6, width)
    for own, word in itertools.product(range(2), range(-(-6 // width))):
        there = support.clone()
        there[own, word * width : min(6, (word + 1) * width)] = False
        assert float(lost[own, word]) == pytest.approx(float((solved(there)[1] - errors)[own]), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("level", "to"), [("weight", 0.2), ("block", 0.5)])
def test_a_trained_net_loses_far_less_than_by_magnitude(level, to):
    trained, data = trained_recall(), inputs_of_recall(20)
    folded = srn.fold(trained, data, to, level=level)
    cut = copy.deepcopy(trained)
    srn.Prune(cut, None, 1 - to, level=level, scope="model", score=srn.Magnitude()).finish()
    dense = loss_of_recall(trained)
    assert dense < 0.1
    assert loss_of_recall(folded.model) - dense < (loss_of_recall(cut) - dense) / 3


@pytest.mark.parametrize("level", ["weight", "block"])
def test_prune_holds_the_zeros_in_further_training(level):
    data = inputs_of_recall(4)
    folded = srn.fold(trained_recall(), data, 0.5, level=level)
    holder = srn.Prune(folded.model, None, 1 - folded.share, level="weight", scope="model")
    optimizer = torch.optim.Adam(folded.model.parameters(), lr=0.01)
    holder.step()
    holder.attach(optimizer)
    for x in data:
        optimizer.zero_grad()
        folded.model(x).square().mean().backward()
        optimizer.step()
    for name, gone in folded.removed.items():
        assert torch.equal(folded.model.get_parameter(name) == 0, gone)
        assert torch.equal(holder.masks[name], ~gone)
    holder.finish()


def test_the_budget_is_shared_by_what_the_outputs_feel():
    """A layer that hardly reaches the output gives more of its weights than one that the output is made of."""
    model, data = made(Tagger(num_layers=2, hidden=8)), batches()
    torch.manual_seed(0)
    with torch.no_grad():
        model.rnn.weight_ih_l1[:, :] *= 0.02
    removed = srn.fold(model, data, 0.5, level="weight").removed
    assert removed["rnn.weight_hh_l0"].double().mean() > removed["rnn.weight_hh_l1"].double().mean() + 0.1


class Product(nn.Module):
    """A matrix that its input is multiplied with from the left, and one that is looked up."""

    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(9, 5), nn.GRU(5, 6)
        self.out = nn.Parameter(torch.zeros(6, 4))

    def forward(self, x_TB):
        return self.rnn(self.embedding(x_TB))[0] @ self.out


def test_matrices_of_other_uses():
    model, data = made(Product()), batches()
    folded = srn.fold(model, data, 0.7, level="weight", include="all", ridge=1e-12)
    assert set(folded.kept) == {"embedding.weight"} and "embedding" in folded.kept["embedding.weight"]
    gone = folded.removed["out"]
    assert gone.shape == (6, 4) and bool(gone.any()) and torch.equal(folded.model.out == 0, gone)
    with torch.no_grad():
        h_NI = torch.cat([model.rnn(model.embedding(x))[0].flatten(0, 1) for x in data])
        for column in range(4):
            x_NA = h_NI[:, ~gone[:, column]]
            solution = torch.linalg.lstsq(x_NA, h_NI @ model.out[:, column : column + 1]).solution[:, 0]
            torch.testing.assert_close(folded.model.out[~gone[:, column], column], solution, rtol=1e-8, atol=1e-8)
    assert "rows are inputs" in srn.fold(model, data, 0.7, level="block", include="all").kept["out"]


def test_sequences_of_one_step_have_no_states_to_learn_from():
    model = made(Tagger())
    data = [torch.randint(9, (1, 50)) for _ in range(4)]
    folded = srn.fold(model, data, 0.3, level="weight")
    assert folded.measured < 0.9 and not bool(folded.model.rnn.weight_hh_l0.isnan().any())
    assert srn.fold(model, data, 0.5).share <= 0.5


def test_bad_input_is_told():
    model, data = made(Tagger()), batches()
    for call, words in (
        (lambda: srn.fold(model, data, level="gate"), "level is 'gate', expected"),
        (lambda: srn.fold(model, data, level="weight", cost="mult-adds"), 'goes with level="unit"'),
        (
            lambda: srn.fold(model, data, 0.01, level="weight", include="all"),
            "can't be reached, at most 0.0.*embedding",
        ),
        (lambda: srn.fold(made(Twins()), data, level="weight", ridge=0), "give ridge= above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


class Twins(Tagger):
    """An embedding whose columns are all the same."""

    def forward(self, x_TB):
        return self.head(self.rnn(self.embedding(x_TB)[..., :1].expand(-1, -1, 7))[0])
