"""Scores before training against their definitions: finite differences, sums over all paths, kept norms."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from learn_models import loss_of, tagger, tokens, train
from sparsernn.learn.at_start import SNIP, GraSP, SynFlow
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Iterative
from sparsernn.learn.shrink import Shrink

NAMES = ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
BATCHES = [tokens(1), tokens(2)]


def small():
    return tagger(hidden=4, embedding=3).double()


def mean_loss(model):
    return sum(loss_of(model, x) for x in BATCHES) / len(BATCHES)


def gradient(model):
    return torch.autograd.grad(mean_loss(model), [model.get_parameter(name) for name in NAMES])


def changed(model, name, index, by, value):
    """`value(model)` with one weight changed."""
    with torch.no_grad():
        weight, before = model.get_parameter(name), model.get_parameter(name)[index].clone()
        weight[index] += by
    found = float(value(model).detach())
    with torch.no_grad():
        weight[index] = before
    return found


def difference(model, name, index, value, by=1e-5):
    return (changed(model, name, index, by, value) - changed(model, name, index, -by, value)) / (2 * by)


PLACES = [(name, (row, column)) for name in NAMES for row, column in ((0, 0), (5, 1), (11, 2), (14, 0))]


def test_snip_is_the_change_of_the_loss():
    model = small()
    scores = SNIP(BATCHES, loss_of).of_model(model, NAMES, None)
    for name, index in PLACES:
        wanted = abs(float(model.get_parameter(name)[index].detach()) * difference(model, name, index, mean_loss))
        assert float(scores[name][index]) == pytest.approx(wanted, rel=1e-5, abs=1e-10)


def test_grasp_is_the_change_of_the_squared_norm_of_the_gradient():
    model = small()
    scores = GraSP(BATCHES, loss_of).of_model(model, NAMES, None)

    def norm(net):
        return sum(g.square().sum() for g in gradient(net)) / 2

    for name, index in PLACES:
        wanted = float(model.get_parameter(name)[index].detach()) * difference(model, name, index, norm)
        assert float(scores[name][index]) == pytest.approx(wanted, rel=1e-4, abs=1e-10)


def test_grasp_keeps_more_of_the_gradient_than_its_opposite():
    class Opposite(GraSP):
        def of_model(self, model, names, example_inputs):
            return {n: -v for n, v in super().of_model(model, names, example_inputs).items()}

    norms = []
    for score in (GraSP, Opposite):
        model = tagger(hidden=12).double()
        Prune(model, None, 0.3, score=score(BATCHES, loss_of), scope="model").step()
        norms.append(float(sum(g.square().sum() for g in gradient(model))))
    assert norms[0] > 1.5 * norms[1]


class Paths(nn.Module):
    def __init__(self, layers=2, bidirectional=False):
        super().__init__()
        self.rnn = nn.LSTM(2, 3, layers, bidirectional=bidirectional)
        self.norm, self.head = nn.LayerNorm(6 if bidirectional else 3), nn.Linear(6 if bidirectional else 3, 2)

    def forward(self, x):
        return torch.tanh(self.head(self.norm(self.rnn(x)[0][-1])))


def test_synflow_is_the_sum_over_all_paths():
    """Every path of a two-layer LSTM over two steps, one by one."""
    torch.manual_seed(0)
    model, time = Paths().double(), 2
    with torch.no_grad():
        model.head.weight[1] = 0  # one output is enough
    weight = {n: p.detach().abs() for n, p in model.named_parameters() if "weight" in n and p.dim() == 2}
    scores = {name: torch.zeros_like(value) for name, value in weight.items()}

    def follow(layer, step, unit, product, used):
        """Backwards from a unit: one step back in its own layer, or one layer down."""
        for kind, there, sources in (("hh", step > 0, 3), ("ih", True, 3 if layer else 2)):
            for gate, source in itertools.product(range(4), range(sources if there else 0)):
                name, index = f"rnn.weight_{kind}_l{layer}", (3 * gate + unit, source)
                now, places = product * float(weight[name][index]), [*used, (name, index)]
                if kind == "hh":
                    follow(layer, step - 1, source, now, places)
                elif layer:
                    follow(0, step, source, now, places)
                else:
                    for place in places:
                        scores[place[0]][place[1]] += now

    for unit in range(3):
        follow(1, time - 1, unit, float(weight["head.weight"][0, unit]), [("head.weight", (0, unit))])
    found = SynFlow().of_model(model, list(scores), randn(time))
    for name, wanted in scores.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-10, atol=1e-12)


def randn(time, batch=1):
    return torch.randn(time, batch, 2).double()


@pytest.mark.parametrize(
    "model",
    [
        Paths(1),
        Paths(2, True),
        tagger(num_layers=2, bidirectional=True),
        tagger(kind="GRU"),
        tagger(num_layers=2, proj_size=5),
    ],
)
def test_every_path_goes_once_through_each_cut_of_the_network(model):
    """What is conserved (Tanaka et al., theorem 2): the scores of all that reads the input add up to those of the
    head's, in each layer and together."""
    x = randn(4) if isinstance(model, Paths) else tokens()
    names = [n for n, p in model.named_parameters() if ("rnn.weight" in n or n == "head.weight") and p.dim() == 2]
    scores = SynFlow().of_model(model, names, x)
    cuts = [["head.weight"]]
    for layer in range(model.rnn.num_layers):
        cuts.append([n for n in names if f"weight_ih_l{layer}" in n])
    sums = [float(sum(scores[name].sum() for name in cut)) for cut in cuts]
    assert sums[0] > 0
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9)


def test_synflow_in_rounds_cuts_no_layer_through():
    """At 99% over the whole model: every matrix keeps weights and every output has a path (Tanaka et al., section 6),
    where magnitude empties a layer of small weights."""
    left = []
    for score in (SynFlow(), None):
        model = tagger(hidden=24, num_layers=3)
        with torch.no_grad():
            model.rnn.weight_ih_l1.mul_(0.01)
        options = {"scope": "model", "schedule": Iterative(40, every=1)}
        pruning = Prune(model, tokens(time=3), 0.99, **options, **({"score": score} if score else {}))
        for _ in range(40):
            pruning.step()
        total = sum(m.numel() for m in pruning.masks.values())
        assert sum(int((~m).sum()) for m in pruning.masks.values()) == round(0.99 * total)
        left.append([int(m.sum()) for n, m in pruning.masks.items() if "_ih_" in n])
    assert min(left[0]) > 0 and min(left[1]) == 0


@pytest.mark.parametrize("level", ["weight", "block", "unit"])
@pytest.mark.parametrize("score", [SNIP(BATCHES, loss_of), GraSP(BATCHES, loss_of), SynFlow()])
def test_the_model_is_left_alone_and_what_went_stays_away(score, level):
    model = tagger(num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train(model, optimizer, 1)
    state = torch.random.get_rng_state()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    pruning = Prune(model, tokens(), 0.5, level=level, score=score)
    pruning.step()
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    assert all(torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters())
    pruning.attach(optimizer)
    before = pruning.masks
    train(model, optimizer, 3)
    assert all(torch.equal(before[n], m) and not model.get_parameter(n)[~m].any() for n, m in pruning.masks.items())


def test_misuse():
    model = tagger()
    cases = [
        (lambda: SNIP(tokens(), loss_of), TypeError, "iterable of batches"),
        (lambda: SNIP(BATCHES, None), TypeError, r"loss\(model, batch\)"),
        (lambda: Prune(model, None, 0.5, score=SNIP([], loss_of)).step(), ValueError, "no batch"),
        (
            lambda: Prune(model, None, 0.5, score=SNIP(BATCHES, lambda m, b: m(b))).step(),
            TypeError,
            "expected a scalar",
        ),
        (lambda: Prune(model, None, 0.5, score=SynFlow()).step(), ValueError, "give example_inputs"),
        (lambda: Prune(model, tokens(time=400), 0.5, score=SynFlow()).step(), ValueError, "fewer time steps"),
        (lambda: Shrink(model, tokens(), to=0.5, steps=9, score=SynFlow()), ValueError, "Prune alone"),
    ]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
