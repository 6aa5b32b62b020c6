"""Sizes counted otherwise, and reached otherwise."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import OPTIMIZERS, loss_of, lstm_weights, tagger, tokens, train, widths_left
from sparsernn.learn.paths.fade import Fade
from sparsernn.learn.paths.hard_concrete import BETA, GAMMA, ZETA, Gates, HardConcrete
from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.shrink import Shrink
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.nn.rhn import RHN

PATHS = (TopK(), Fade(), HardConcrete())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum", "fused adam"])
def test_every_path_ends_at_the_largest_width_within_the_budget(path, optimizer):
    model = tagger(hidden=40)  # embedding 9
    made = OPTIMIZERS[optimizer](model)
    sparsifier = Shrink(model, tokens(), to=0.25, steps=60, path=path).attach(made)
    train(model, made, 60)
    width = widths_left(model)["rnn.l0"]
    assert lstm_weights(9, width) <= 0.25 * lstm_weights(9, 40) < lstm_weights(9, width + 1)
    assert sparsifier.density() == lstm_weights(9, width) / lstm_weights(9, 40)
    sparsifier.finish()
    small = srn.compact(model, tokens())
    assert small.rnn.hidden_size == width


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_multiply_adds_count_the_readers_and_no_table(path):
    model = tagger(hidden=20, num_layers=2)
    optimizer = OPTIMIZERS["sgd with momentum"](model)
    Shrink(model, tokens(), to=0.3, steps=40, cost="mult-adds", path=path).attach(optimizer)
    train(model, optimizer, 40)

    def mult_adds(one: int, two: int) -> int:
        return lstm_weights(9, one) + lstm_weights(one, two) + 11 * two

    left = widths_left(model)
    found = mult_adds(left["rnn.l0"], left["rnn.l1"])
    assert found <= 0.3 * mult_adds(20, 20) < found + lstm_weights(20, 20) / 10


def test_a_cost_of_the_widths_is_met_in_its_own_unit():
    model = tagger(hidden=20, num_layers=2)
    asked: list[dict[str, int]] = []

    def cost(units):
        asked.append(dict(units))
        return 3.0 + units["rnn.l0"] + 0.5 * units["rnn.l1"]

    optimizer = OPTIMIZERS["sgd with momentum"](model)
    Shrink(model, tokens(), to=17.0, steps=30, cost=cost).attach(optimizer)
    train(model, optimizer, 30)
    assert asked[0] == {"rnn.l0": 20, "rnn.l1": 20}
    left = widths_left(model)
    assert 16.0 < cost(left) <= 17.0
    with pytest.raises(ValueError, match=r"to=4\.0 cannot be reached: 4\.5 stays in any case"):
        Shrink(model, tokens(), to=4.0, steps=30, cost=cost)
    with pytest.raises(ValueError, match=r"cost\(.*\) is -1\.0, expected a finite number above 0"):
        Shrink(model, tokens(), to=4.0, steps=30, cost=lambda units: -1)


def test_milliseconds_are_those_that_accelerate_predicts():
    model = tagger(hidden=48, num_layers=2).eval()
    cost = srn.milliseconds(model, tokens(), batch=10, steps=5)
    full = cost({"rnn.l0": 48, "rnn.l1": 48})
    fast = srn.accelerate(model)
    engine = fast.rnn._engine
    parts = [c.nanoseconds * (5 if name != "ih" else 1) for m in engine.matrices(fast.rnn)
             for each in m for name, c in each.choices(10, 5).items()]  # fmt: skip
    head = fast.head._engine.product(fast.head, 50)[1]
    assert full == pytest.approx((sum(parts) + head) / 1e6, rel=0.15)
    assert cost({"rnn.l0": 16, "rnn.l1": 16}) < 0.5 * full
    target = 0.5 * full
    optimizer = OPTIMIZERS["sgd with momentum"](model.train())
    Shrink(model, tokens(), to=target, cost=cost, steps=20).attach(optimizer)
    train(model, optimizer, 20)
    assert 0.8 * target < cost(widths_left(model)) <= target


class Headed(nn.Module):
    """`layer` and a head, whose weight may be the embedding's."""

    def __init__(self, layer: nn.Module, out: int, tied: bool = False) -> None:
        super().__init__()
        self.rnn, self.head = layer, nn.Linear(out, 40)
        self.embedding = nn.Embedding(40, 24)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.rnn(self.embedding(tokens))[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    "model",
    [
        Headed(nn.LSTM(24, 64, 2, proj_size=48), 48),
        Headed(nn.LSTM(24, 64, proj_size=48, bidirectional=True), 96),
        Headed(RaggedLSTM(24, [64, 80], proj_sizes=[48, 32]), 32),
        Headed(nn.GRU(24, 64, 2, bias=False, bidirectional=True), 128),
        Headed(nn.RNN(24, 96), 96),
        Headed(RHN(24, 64, depth=3), 64),
        Headed(nn.LSTM(24, 24, proj_size=0), 24, tied=True),
    ],
    ids=["projected", "both directions", "ragged", "gru", "rnn", "highway", "tied"],
)
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 10)])
def test_every_product_that_accelerate_explains_costs_milliseconds(model, batch, steps):
    cost = srn.milliseconds(model.eval(), torch.zeros(5, 2, dtype=torch.int64), batch=batch, steps=steps)
    said = srn.accelerate(model).explain(batch, steps)
    explained = sum(float(took) for took in re.findall(r"about ([0-9.]+) us a step", said)) * steps / 1e3
    assert cost({}) == pytest.approx(explained, rel=0.02)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("stop", [4, 13, 27])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(path, stop):
    def make():
        torch.manual_seed(3)
        model = tagger(hidden=16)
        optimizer = OPTIMIZERS["adam with weight decay"](model)
        return model, optimizer, Shrink(model, tokens(), to=0.3, steps=40, path=path).attach(optimizer)

    model, optimizer, _ = make()
    torch.manual_seed(7)
    train(model, optimizer, 40)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(7)))  # nothing was drawn
    other, half, sparsifier = make()
    train(other, half, stop)
    kept = copy.deepcopy((other.state_dict(), half.state_dict(), sparsifier.state_dict()))
    again, rest, sparsifier = make()
    again.load_state_dict(kept[0])
    rest.load_state_dict(kept[1])
    sparsifier.load_state_dict(kept[2])
    train(again, rest, 40 - stop, first=stop)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_units_fade_in_equal_steps_to_zero():
    model = tagger(hidden=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    path = Fade(begin=0.0, end=0.8, freeze=0.9)
    Shrink(model, tokens(), to=0.2, steps=50, path=path).attach(optimizer)
    before = model.head.weight.detach().clone()
    course = []
    for step in range(4):  # a period
        train(model, optimizer, 1, first=step)
        course.append((model.head.weight / before).median(0).values.detach())
    fading = course[-1] == 0
    assert fading.any() and not fading.all()
    for share, seen in zip((0.75, 0.5, 0.25, 0.0), course):
        torch.testing.assert_close(seen[fading], torch.full_like(seen[fading], share))
        torch.testing.assert_close(seen[~fading], torch.ones_like(seen[~fading]))


def test_gradients_of_gates_and_weights_are_those_of_the_product():
    model = tagger(hidden=40).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    sparsifier = Shrink(model, tokens(), to=0.5, steps=1000, path=HardConcrete()).attach(optimizer)
    train(model, optimizer, 1)
    course = sparsifier._course
    assert isinstance(course, Gates) and course.a is not None and course.z is not None
    weights = {name: value.clone() for name, value in course.weights.items()}
    # The same noise with other a: a smooth function of a and of the weights.
    s = (course.z.double() - GAMMA) / (ZETA - GAMMA)
    inside = (course.z > 0) & (course.z < 1)
    noise = torch.where(inside, s.logit() * BETA - course.a.double(), torch.full_like(s, 9.0))
    a = course.a.double().clone().requires_grad_()
    z = (torch.sigmoid((noise + a) / BETA) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
    z = torch.where(inside, z, course.z.double())
    twin = tagger(hidden=40).double()
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    call = {**dict(twin.named_parameters()), **{name: leaf * z for name, leaf in leaves.items()}}
    x = tokens(5)
    scores = torch.func.functional_call(twin, call, (x,))
    wanted = torch.autograd.grad(
        nn.functional.cross_entropy(scores.reshape(-1, 11), x.roll(1, 1).reshape(-1)), [*leaves.values(), a]
    )
    optimizer.zero_grad()
    loss_of(model, x).backward()
    with torch.no_grad():
        course.watch(dict(model.named_parameters()), 1.0)
    for name, gradient in zip(leaves, wanted):
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-6, atol=1e-9)
        assert torch.equal(model.get_parameter(name), weights[name])
    assert course.slope is not None and inside.any()
    torch.testing.assert_close(course.slope.double(), wanted[-1], rtol=1e-4, atol=1e-7)


def test_the_expected_size_is_the_mean_over_gates():
    model = tagger(hidden=6, num_layers=2)
    sparsifier = Shrink(model, tokens(), to=0.5, steps=10, path=HardConcrete())
    course = sparsifier._course
    assert isinstance(course, Gates)
    none, every = torch.zeros(12), torch.ones(12)
    assert float(course.level.expected(none, course.budget.shapes)) == course.budget.total
    assert float(course.level.expected(every, course.budget.shapes)) == 0
    gone = none.clone()
    gone[:2] = 1  # certain, so exact
    wanted = lstm_weights(9, 4) + lstm_weights(4, 6)
    assert float(course.level.expected(gone, course.budget.shapes)) == wanted


def test_a_run_of_gates_that_ends_early_leaves_no_sample_behind():
    model = tagger(hidden=16)
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = Shrink(model, tokens(), to=0.3, steps=100, path=HardConcrete()).attach(optimizer)
    train(model, optimizer, 20)
    with pytest.warns(UserWarning, match="after 20 of 100 steps"):
        sparsifier.finish()
    outputs = model(tokens())
    assert torch.equal(outputs, model(tokens())) and bool(outputs.isfinite().all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 10}, "neither of to= and max_loss="),
        ({"to": 0.5}, "needs steps="),
        ({"to": 0.5, "steps": 10, "least": 0.1}, "least= goes with max_loss="),
        ({"to": 0.5, "steps": 10, "validate": float}, "validate= goes with max_loss="),
        ({"max_loss": 0.1, "validate": float, "steps": 10, "least": 1.5}, r"least is 1\.5"),
        ({"to": 0.5, "max_loss": 0.1, "steps": 10}, "both of to= and max_loss="),
        ({"max_loss": 0.1, "steps": 10}, "validate= go together"),
        ({"max_loss": 0.1, "validate": float}, "needs steps="),
        ({"max_loss": -1, "validate": float, "steps": 10}, "0 or more"),
        ({"max_loss": 0.1, "validate": float, "steps": 10, "path": Fade()}, r"path=Fade\(\.\.\.\) goes with to="),
        ({"max_loss": 0.1, "validate": float, "steps": 10, "cost": "mult-adds"}, "cost= goes with to="),
        ({"to": 0.5, "steps": 10, "cost": "flops"}, 'expected "weights", "mult-adds"'),
        ({"to": 0.5, "steps": 10, "cost": "mult-adds", "level": ("weight", "unit")}, 'level="unit"'),
        ({"to": 0.5, "steps": 10, "path": HardConcrete(), "level": "gate"}, "has gates on units"),
        ({"to": 0.5, "steps": 10, "path": HardConcrete(), "cost": len}, "expected cost and its gradient"),
        ({"to": 1.5, "steps": 10, "cost": "mult-adds"}, "at most 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Shrink(tagger(), tokens(), **options)


def test_a_path_is_no_name():
    with pytest.raises(TypeError, match=r"path is 'top-k', expected TopK\(\), Fade\(\)"):
        Shrink(tagger(), tokens(), to=0.5, steps=10, path="top-k")


def test_gates_refuse_an_optimizer_that_looks_at_several_points():
    model = tagger()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ValueError, match="LBFGS"):
        Shrink(model, tokens(), to=0.5, steps=10, path=HardConcrete()).attach(optimizer)
