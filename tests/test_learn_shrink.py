"""Reaching a size: the budget is met, the choice can change until it is frozen, and compact finds exactly it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learn_models import OPTIMIZERS, lstm_weights, tagger, tokens, train
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.scores import Magnitude
from sparsernn.learn.shrink import Shrink
from sparsernn.structure.trace import trace


@pytest.mark.smoke
@pytest.mark.parametrize("target", [0.6, 0.25, 0.1])
def test_one_layer_ends_at_the_largest_width_within_the_budget(target):
    model = tagger(hidden=40)  # embedding 9
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = Shrink(model, tokens(), to=target, steps=40).attach(optimizer)
    train(model, optimizer, 40)
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))["rnn.l0"]
    width = int((~dead).sum())
    whole = lstm_weights(9, 40)
    assert lstm_weights(9, width) <= target * whole < lstm_weights(9, width + 1)
    assert sparsifier.density() == lstm_weights(9, width) / whole
    assert sparsifier.finish() is model


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers_compete_and_the_density_is_that_of_the_small_shapes(kind):
    model = tagger(kind=kind, hidden=12, num_layers=2, bidirectional=True)
    structure = trace(model, tokens())
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    sparsifier = Shrink(model, tokens(), to=0.3, steps=30).attach(optimizer)
    train(model, optimizer, 35)
    sparsifier.finish()
    kept = {n: int((~gone).sum()) for n, gone in structure.dead(dict(model.named_parameters())).items()}
    assert all(units >= 1 for units in kept.values())
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    both = kept["rnn.l0"] + kept["rnn.l0_reverse"]

    def weights(kept, first, second):
        return sum(gates * kept[n] * (first + kept[n]) for n in ("rnn.l0", "rnn.l0_reverse")) + sum(
            gates * kept[n] * (second + kept[n]) for n in ("rnn.l1", "rnn.l1_reverse")
        )

    whole = weights(dict.fromkeys(kept, 12), 9, 24)
    small = weights(kept, 9, both)
    assert sparsifier.density() == pytest.approx(small / whole)
    assert 0.3 - 2 * gates * 48 / whole < small / whole <= 0.3


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_cells_and_projections():
    model = tagger(hidden=16, proj_size=8)
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = Shrink(model, tokens(), to=0.3, steps=20).attach(optimizer)
    train(model, optimizer, 20)
    sparsifier.finish()
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))
    cells, projected = (int((~dead[n]).sum()) for n in ("rnn.l0", "rnn.l0.projected"))
    small = 4 * cells * (9 + projected) + projected * cells
    assert sparsifier.density() == pytest.approx(small / (4 * 16 * (9 + 8) + 8 * 16))
    assert 0.2 < sparsifier.density() <= 0.3


def test_weights_are_counted_exactly():
    model = tagger(num_layers=2)
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    Shrink(model, None, level="weight", to=0.137, steps=20).attach(optimizer)
    train(model, optimizer, 25)
    weights = [p for n, p in model.rnn.named_parameters() if n.startswith("weight")]
    kept = sum(int((w != 0).sum()) for w in weights)
    assert kept == round(0.137 * sum(w.numel() for w in weights))


def test_three_levels_share_the_budget():
    model = tagger(hidden=24, num_layers=2)
    structure = trace(model, tokens())
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = Shrink(model, tokens(), to=0.125, steps=30, level=("weight", "gate", "unit"))
    sparsifier.attach(optimizer)
    train(model, optimizer, 30)
    sparsifier.finish()
    parameters = dict(model.named_parameters())
    weights = [p for n, p in model.rnn.named_parameters() if n.startswith("weight")]
    whole = sum(w.numel() for w in weights)
    assert sum(int((w != 0).sum()) for w in weights) == round(0.125 * whole)
    dead = structure.dead(parameters)
    kept = {n: int((~d).sum()) for n, d in dead.items()}
    units = lstm_weights(9, kept["rnn.l0"]) + lstm_weights(kept["rnn.l0"], kept["rnn.l1"])
    assert 0.4 < units / whole <= 0.5
    constant = structure.constant_gates(parameters)
    assert any(bool((gone & ~dead[layer]).any()) for layer, gates in constant.items() for gone in gates.values())


def test_the_ramp_is_cubic_and_the_choice_is_final_at_the_freeze():
    path = TopK(begin=0.1, end=0.5, freeze=0.7, every=10)
    assert path.share(5, 100, 0.2) is None and path.share(11, 100, 0.2) is None
    assert path.share(10, 100, 0.2) == 1
    assert path.share(30, 100, 0.2) == pytest.approx(0.2 + 0.8 * 0.5**3)
    assert path.share(50, 100, 0.2) == pytest.approx(0.2)
    assert path.share(60, 100, 0.2) == path.share(70, 100, 0.2) == path.share(71, 100, 0.2) == 0.2


def test_units_may_come_back_until_the_freeze_and_not_after_it():
    model = tagger(hidden=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    path = TopK(begin=0.0, end=0.2, freeze=0.6, every=1)
    sparsifier = Shrink(model, tokens(), to=0.4, steps=50, path=path).attach(optimizer)

    def out():
        return (model.head.weight == 0).all(0) & (model.rnn.weight_hh_l0 == 0).all(0)

    def revive(unit):
        with torch.no_grad():
            model.head.weight[:, unit] = 5.0

    train(model, optimizer, 15)
    first = out()
    assert first.any()
    assert model.rnn.weight_ih_l0.view(4, 10, 9)[:, first].any()  # goes on learning, so that it may come back
    unit = int(first.nonzero()[0])
    revive(unit)
    train(model, optimizer, 1)
    assert not out()[unit] and int(out().sum()) == int(first.sum())
    train(model, optimizer, 14)
    final = out()
    assert not model.rnn.weight_ih_l0.view(4, 10, 9)[:, final].any()
    assert not model.rnn.bias_ih_l0.view(4, 10)[:, final].any()
    revive(int(final.nonzero()[0]))
    train(model, optimizer, 25)
    assert torch.equal(out(), final)
    assert sparsifier.density() <= 0.4


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("level", ["shrink", "prune", "prune by magnitude"])
def test_how_large_a_layer_is_says_nothing_about_what_may_go(level):
    """Its projection times c and its readers divided by c compute the same, so the same units go."""

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.LSTM(5, 12, proj_size=8, batch_first=True)
            self.two = nn.LSTM(8, 10, batch_first=True)
            self.head = nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.two(self.one(x)[0])[0])

    x = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    gone = []
    for c in (1.0, 2.0**6, 2.0**-6):  # powers of two: no rounding
        torch.manual_seed(0)
        model = Projected().double()
        with torch.no_grad():
            model.one.weight_hr_l0 *= c
            model.one.weight_hh_l0 /= c
            model.two.weight_ih_l0 /= c
        if level == "shrink":
            optimizer = torch.optim.SGD(model.parameters(), 0.0)
            sparsifier = Shrink(model, x, to=0.4, steps=12, path=TopK(every=1)).attach(optimizer)
            for _ in range(12):
                optimizer.step()
            sparsifier.finish()
        else:
            score = Magnitude() if level != "prune" else None
            Prune(model, x, 0.5, level="unit", scope="model", score=score).finish()
        gone.append(trace(model, x).dead(dict(model.named_parameters())))
    for other in gone[1:]:
        assert all(torch.equal(gone[0][name], other[name]) for name in other)
    for dead in gone[0].values():  # and no layer is drained for another's sake
        assert int((~dead).sum()) >= 0.25 * len(dead)


def test_everything_may_stay():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Shrink(model, tokens(), to=1.0, steps=5).attach(optimizer)
    train(model, optimizer, 5)
    assert sparsifier.density() == 1.0
    assert model.rnn.weight_hh_l0.all()


def test_units_that_have_to_stay_are_no_candidates():
    class WithState(nn.Module):
        """Hands its last hidden state to the caller: layer 1 has to stay, layer 0 may shrink."""

        def __init__(self):
            super().__init__()
            self.one = nn.GRU(5, 12, batch_first=True)
            self.two = nn.GRU(12, 6, batch_first=True)

        def forward(self, x):
            return self.two(self.one(x)[0])[1]

    torch.manual_seed(0)
    model, x = WithState(), torch.randn(3, 4, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Shrink(model, x, to=0.5, steps=10).attach(optimizer)
    for _ in range(10):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert sparsifier.density() <= 0.5
    dead = trace(model, x).dead(dict(model.named_parameters()))
    assert dead["one.l0"].any() and not dead["two.l0"].any()
    with pytest.raises(ValueError, match="cannot be reached"):
        Shrink(model, x, to=0.1, steps=10)
    with pytest.raises(ValueError, match="No unit of the governed layers can go"):
        Shrink(model, x, to=0.5, steps=10, include="two.*")


def test_states_that_are_only_carried_may_go():
    class Carrying(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(5, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x, state=None):
            y, state = self.lstm(x, state)
            return self.head(y), state

    model, x = Carrying(), torch.randn(2, 4, 5)
    with pytest.raises(ValueError, match="carried_states=True"):
        Shrink(model, x, to=0.3, steps=10)
    assert Shrink(model, x, to=0.3, steps=10, carried_states=True).density() == 1.0


def test_finish_before_the_end_says_what_was_reached():
    model = tagger(hidden=16)
    structure = trace(model, tokens())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Shrink(model, tokens(), to=0.2, steps=100, path=TopK(0, 0.5, 0.6, every=1)).attach(optimizer)
    train(model, optimizer, 20)
    with pytest.warns(UserWarning, match=r"after 20 of 100 steps.*the share 0\.2 is not reached"):
        sparsifier.finish()
    width = int((~structure.dead(dict(model.named_parameters()))["rnn.l0"]).sum())
    assert width < 16
    assert sparsifier.density() == lstm_weights(9, width) / lstm_weights(9, 16)
