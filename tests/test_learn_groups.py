"""The pieces under the sparsifiers: exact choice, blocks, gate groups, sums over slices of any shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learn_models import HIDDEN, double_tagger, lstm_unit_groups, tagger, tokens
from sparsernn.learn.levels import Slices
from sparsernn.learn.parts import SlicePart, TilePart
from sparsernn.learn.select import lowest, protected
from sparsernn.learn.units import restricted
from sparsernn.structure.blocks import gate_groups, tiles
from sparsernn.structure.cells import recurrent_layers
from sparsernn.structure.groups import Member
from sparsernn.structure.trace import trace


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("-inf")]), max_size=40), st.data())
@settings(deadline=None)
def test_lowest_is_a_stable_sort(values, data):
    number = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values)
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[torch.argsort(scores, stable=True)[:number]] = True
    assert torch.equal(lowest(scores, number), expected)


def test_protected_is_the_best_of_each_set():
    scores = torch.tensor([1.0, 3.0, 3.0, 0.0, 5.0])
    stay = protected(scores, (torch.tensor([0, 1, 2]), torch.tensor([3])))
    assert stay.tolist() == [False, True, False, True, False]


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 5),
    gates=st.integers(1, 4),
    height=st.integers(1, 17),
    width=st.integers(1, 4),
)
@settings(deadline=None)
def test_blocks_partition_each_gate(rows, columns, gates, height, width):
    layer = recurrent_layers({1: nn.RNN, 3: nn.GRU, 4: nn.LSTM}.get(gates, nn.RNN)(columns, rows))[0]
    count = len(layer.gates)
    weight = torch.arange(float(count * rows * columns)).view(count * rows, columns)
    tile = tiles(["weight_ih_l0"], {"weight_ih_l0": weight}, [layer], height, width)[0]
    numbers = tile.expand(torch.arange(tile.count))
    assert tile.block_rows == count * -(-rows // height)
    for row in range(count * rows):
        gate, inside = divmod(row, rows)
        expected = (gate * -(-rows // height) + inside // height) * -(-columns // width) + torch.arange(
            columns
        ) // width
        assert torch.equal(numbers[row], expected)
    part = TilePart(tile, 3, tile.count + 5)
    chosen = torch.randperm(tile.count)[:7] + 3
    assert torch.equal(part.rows(weight, chosen).sum(1), part.sums(weight)[chosen])
    assert not part.rows(weight, torch.tensor([0, 2, tile.count + 3])).any()
    sums = torch.zeros(tile.count).index_add(0, numbers.reshape(-1), weight.reshape(-1))
    assert torch.equal(tile.sums(weight), sums)


def test_matrices_without_gates_are_tiled_from_the_first_row():
    model = tagger(hidden=20)
    tile = tiles(["head.weight"], dict(model.named_parameters()), recurrent_layers(model), 4)[0]
    assert (tile.spans, tile.block_rows) == (((0, 11),), 3)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_gates_are_rows_of_both_matrices(kind):
    model = tagger(kind=kind, hidden=5, num_layers=2)
    parameters = dict(model.named_parameters())
    layers = recurrent_layers(model)
    groups = gate_groups(layers, parameters)
    found = Slices(groups, parameters).combine({n: p.detach() for n, p in parameters.items()}, "norm")
    for layer in layers:
        ih, hh = (parameters[f"rnn.weight_{m}_l{layer.layer}"].detach() for m in ("ih", "hh"))
        whole = torch.cat([ih, hh], 1).square().mean(1).sqrt().view(len(layer.gates), 5)
        for number, gate in enumerate(layer.gates):
            torch.testing.assert_close(found[groups.units[f"{layer.name} {gate}"]], whole[number])


def test_layers_that_share_weights_share_gates():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.LSTM(4, 4), nn.LSTM(4, 4)
            self.two.weight_hh_l0 = self.one.weight_hh_l0

    model = Shared()
    parameters = dict(model.named_parameters())
    groups = gate_groups(recurrent_layers(model), parameters)
    assert groups.count == 16
    assert torch.equal(groups.units["one.l0 g"], groups.units["two.l0 g"])
    assert {m.parameter for m in groups.members} == {"one.weight_ih_l0", "one.weight_hh_l0", "two.weight_ih_l0"}


def test_parts_of_parameters_with_more_axes():
    """A convolution that reads units 3..5 of a narrowed slice: sums, spread and products stay inside it."""
    value = torch.randn(4, 6, 3)
    member = Member("conv", 1, torch.tensor([-1, 0, 1, 2, 1, -1]), "outgoing", {0: torch.tensor([1, 3])})
    part = SlicePart.of(member, 3, value)
    inside = value[[1, 3]]
    expected = torch.stack([inside[:, 1].sum(), inside[:, 2].sum() + inside[:, 4].sum(), inside[:, 3].sum()])
    torch.testing.assert_close(part.sums(part.narrow(value)), expected)
    rows = part.rows(part.narrow(value), torch.tensor([1, 0]))
    assert rows.shape == (2, 2 * 2 * 3)
    torch.testing.assert_close(rows.sum(1), expected[[1, 0]])
    factor = torch.tensor([2.0, 3.0, 5.0])
    scaled, added = value.clone(), torch.zeros_like(value)
    part.multiply(scaled, part.spread(factor, 1.0))
    part.add_product(added, value, part.spread(factor, 0.0))
    ratio = torch.ones(4, 6, 3)
    ratio[[1, 3]] = torch.tensor([1.0, 2, 3, 5, 3, 1])[:, None].expand(6, 3)
    torch.testing.assert_close(scaled, value * ratio)
    ratio[[0, 2]] = 0
    ratio[:, [0, 5]] = 0
    torch.testing.assert_close(added, value * ratio)


def test_restricted_groups_keep_their_members():
    groups = lstm_unit_groups(4, 2)
    one = restricted(groups, {"rnn.l1"})
    model = tagger(hidden=4, num_layers=2)
    values = {n: torch.rand_like(p) for n, p in model.named_parameters()}
    assert one.count == 4 and set(one.scopes) == {"rnn.l1"} and set(one.units) == {"rnn.l1"}
    for roles in (("incoming",), ("outgoing",)):
        torch.testing.assert_close(one.squares(values, roles), groups.squares(values, roles)[4:])


def test_a_slice_that_is_narrowed_on_another_axis_changes_nothing_beside_it():
    torch.manual_seed(0)
    value, factor = torch.randn(5, 4, dtype=torch.float64), torch.rand(1, 4, dtype=torch.float64) + 1
    within = {0: torch.tensor([1, 3])}
    part = SlicePart.of(Member("w", 1, torch.arange(4), "outgoing", within), 4, value)
    for change, wanted in (
        (part.multiply, value * factor),
        (part.subtract_quotient, value - value / factor),
    ):
        changed = value.clone()
        change(changed, factor)
        torch.testing.assert_close(changed[[1, 3]], wanted[[1, 3]])
        assert torch.equal(changed[[0, 2, 4]], value[[0, 2, 4]])


def test_published_group_sizes():
    """24000 and 28000 for the 2 x 1500 Penn Treebank net (arXiv 1709.05027, appendix A); 4 fewer as a union."""

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1500, 1500, 2)
            self.head = nn.Linear(1500, 10000)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    with torch.random.fork_rng():
        model = LanguageModel()
    groups = trace(model, torch.zeros(1, 1, 1500), check=False).groups("unit")
    parameters = dict(model.named_parameters())
    for count, sizes in (("twice", (24000, 28000)), ("once", (23996, 27996))):
        found = groups.sizes(parameters, self_weights=count)
        for layer, size in enumerate(sizes):
            assert (found[groups.units[f"lstm.l{layer}"]] == size).all()


def test_the_traced_groups_are_those_written_by_hand():
    model = double_tagger()
    by_hand, traced = lstm_unit_groups(HIDDEN, 2), trace(model, tokens()).groups("unit")
    values = {n: torch.rand_like(p) for n, p in model.named_parameters()}
    for roles in (("incoming",), ("outgoing",), ("bias",)):
        a, b = by_hand.squares(values, roles), traced.squares(values, roles)
        for name in by_hand.units:
            torch.testing.assert_close(a[by_hand.units[name]], b[traced.units[name]])
