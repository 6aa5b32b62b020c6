"""Units that go at once: chosen by what their readers multiply, their mean left in the readers' biases."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from learn_models import loss_of, tagger, tokens, train
from sparsernn.learn.prune import Prune
from sparsernn.learn.readings import Readings
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.scores import Magnitude, Random
from sparsernn.learn.units import make_level
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

EXAMPLES = tokens(5, batch=16, time=12)


class Two(nn.Module):
    """A layer whose units 0 to 2 do not move, read by the layers of `kind` and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.one = nn.RNN(3, 8, batch_first=True)
        self.two = getattr(nn, kind)(8, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10 + 8, 2)
        with torch.no_grad():
            for p in (self.one.weight_ih_l0, self.one.weight_hh_l0):
                p[:3] = 0
            self.one.weight_hh_l0[:, :3] = 0  # it reads them before the first step too, when they are zero

    def forward(self, x):
        y = self.one(x)[0]
        return self.head(torch.cat([self.two(y)[0], y], -1))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_units_that_do_not_move_go_first_and_change_nothing(kind):
    torch.manual_seed(0)
    model, x = Two(kind).double(), torch.randn(4, 6, 3).double()
    with torch.no_grad():
        model.head.weight[:, 10:13] *= 9  # large weights: by magnitude these units would stay
    other = torch.randn(2, 9, 3).double()
    before = model(other)
    plain = copy.deepcopy(model)
    pruning = Prune(model, x, 3 / 8, level="unit", include="one.*")
    pruning.finish()
    dead = trace(model, x).dead(dict(model.named_parameters()))["one.l0"]
    assert dead.tolist() == [True] * 3 + [False] * 5
    torch.testing.assert_close(model(other), before, rtol=0, atol=1e-10)
    assert not pruning.uncompensated
    Prune(plain, x, 3 / 8, level="unit", include="one.*", compensate=False).finish()
    assert (plain(other) - before).abs().max() > 1e-2


def test_the_mean_goes_into_the_state_half_of_a_gru():
    """r multiplies what reads the state, bias included: b_hn and never b_in."""
    torch.manual_seed(0)
    model = tagger(kind="GRU", hidden=6).double()
    before = copy.deepcopy(model)
    Prune(model, EXAMPLES, 0.5, level="unit").finish()
    alive = model.rnn.weight_hh_l0.abs().sum(0) > 0
    kept = alive.repeat(3)
    assert torch.equal(model.rnn.bias_ih_l0[kept], before.rnn.bias_ih_l0[kept])
    assert (model.rnn.bias_hh_l0 != before.rnn.bias_hh_l0)[kept].all()


def test_the_score_is_what_readers_lose():
    model = tagger(hidden=6).double()
    level = make_level("unit", model, EXAMPLES, Prune(model, None, 0.5)._governed)
    readings = Readings(model, level.groups, EXAMPLES)
    with torch.no_grad():
        h_BTH = model.rnn(model.embedding(EXAMPLES))[0]
    earlier = torch.cat([torch.zeros_like(h_BTH[:, :1]), h_BTH[:, :-1]], 1)
    wanted = 0
    for weight, seen in ((model.head.weight, h_BTH), (model.rnn.weight_hh_l0, earlier)):
        wanted = wanted + weight.detach().square().sum(0) * seen.flatten(0, 1).var(0, correction=0)
    torch.testing.assert_close(readings.scores(dict(model.named_parameters())), (wanted / (11 + 24)).sqrt())


def test_readers_without_a_bias_are_named_and_their_units_count_whole():
    model = tagger(hidden=6, bias=False).double()
    pruning = Prune(model, EXAMPLES, 0.5, level="unit")
    pruning.finish()
    assert pruning.uncompensated == {"rnn.weight_hh_l0": "it has no bias of its own"}


def test_schedules_in_training_look_at_weights_alone():
    models = [tagger(hidden=8) for _ in range(2)]
    for model, score in zip(models, (None, Magnitude())):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        schedule = Gradual(end=6, every=2)
        pruning = Prune(model, EXAMPLES, 0.5, level="unit", score=score, schedule=schedule).attach(optimizer)
        train(model, optimizer, 8)
        pruning.finish()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters()))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_trained_net_loses_less_than_by_chance(seed):
    model = tagger(seed=seed, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train(model, optimizer, 200, first=1000 * seed)
    held_out = tokens(999, batch=64, time=12)

    def loss(score, share, compensate=True):
        other = copy.deepcopy(model)
        Prune(other, EXAMPLES, share, level="unit", score=score, compensate=compensate).finish()
        return float(loss_of(other, held_out).detach())

    for share in (0.125, 0.25):
        by_chance = sum(loss(Random(number), share, False) for number in range(5)) / 5
        assert loss(None, share) < by_chance


class ContextVector(nn.Module):
    """Attention with a learnt vector, as in hierarchical attention networks."""

    def __init__(self):
        super().__init__()
        self.rnn, self.v, self.head = nn.GRU(4, 8, batch_first=True), nn.Parameter(torch.randn(8)), nn.Linear(8, 3)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.head((torch.softmax(y @ self.v, 1)[..., None] * y).sum(1))


def test_a_vector_reads_units_as_a_matrix_does():
    torch.manual_seed(0)
    model, x = ContextVector().double().eval(), torch.randn(3, 5, 4).double()
    pruned = Prune(model, x, 0.5, level="unit").finish()
    small = compact(pruned, x)
    assert small.rnn.hidden_size == 4
    torch.testing.assert_close(small(x), pruned(x), rtol=1e-10, atol=1e-10)
