"""L1 and group lasso: Wen's penalty against a plain loop, proximal steps against their optimality conditions."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from learn_models import HIDDEN, OPTIMIZERS, double_tagger, loss_of, lstm_unit_groups, tagger, tokens, train
from sparsernn.learn import parts
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.levels import Slices
from sparsernn.learn.penalty import zero_below
from sparsernn.learn.proximal import shrink_groups
from sparsernn.structure.trace import trace


def wen_slices(model, layer: int, unit: int) -> list[torch.Tensor]:
    """The slices of one unit as the paper lists them: 4 gate rows, own column, the reader's column."""
    rnn = model.rnn
    ih, hh = rnn.get_parameter(f"weight_ih_l{layer}").detach(), rnn.get_parameter(f"weight_hh_l{layer}").detach()
    last = layer == rnn.num_layers - 1
    reader = (model.head.weight if last else rnn.get_parameter(f"weight_ih_l{layer + 1}")).detach()
    rows = [m[gate * HIDDEN + unit] for m in (ih, hh) for gate in range(4)]
    return [*rows, hh[:, unit], reader[:, unit]]


@pytest.mark.smoke
@pytest.mark.parametrize("chunk", [13, 2**18])
def test_the_penalty_is_the_plain_loop_over_the_published_slices(chunk, monkeypatch):
    monkeypatch.setattr(parts, "CHUNK", chunk)
    model = double_tagger()
    sparsifier = GroupLasso(model, tokens(), strength=0.3, update="subgradient")
    loop = sum(
        math.sqrt(1e-8 + sum(float((s**2).sum()) for s in wen_slices(model, layer, unit)))
        for layer in range(2)
        for unit in range(HIDDEN)
    )
    assert sparsifier.penalty().item() == pytest.approx(0.3 * loop, rel=1e-13)


def test_counting_the_self_weights_once():
    model = double_tagger()
    once = GroupLasso(model, tokens(), strength=1.0, update="subgradient", self_weights="once")
    loop = 0.0
    for layer in range(2):
        hh = model.rnn.get_parameter(f"weight_hh_l{layer}").detach()
        for unit in range(HIDDEN):
            own = sum(float(hh[gate * HIDDEN + unit, unit]) ** 2 for gate in range(4))
            loop += math.sqrt(1e-8 + sum(float((s**2).sum()) for s in wen_slices(model, layer, unit)) - own)
    assert once.penalty().item() == pytest.approx(loop, rel=1e-13)


@pytest.mark.parametrize("options", [{}, {"groups": "outgoing"}, {"self_weights": "once"}, {"level": "gate"}])
@pytest.mark.parametrize("level", ["unit", "gate", "block", "weight"])
@pytest.mark.parametrize("chunk", [13, 2**18])
def test_the_gradient_that_is_added_is_the_penaltys(chunk, level, options, monkeypatch):
    monkeypatch.setattr(parts, "CHUNK", chunk)
    model = double_tagger()
    sparsifier = GroupLasso(model, tokens(), **{"strength": 0.7, "update": "subgradient", "level": level, **options})
    sparsifier.penalty().backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.no_grad():
        value = sparsifier._add_gradient(1.0)
    assert value.item() == pytest.approx(sparsifier.penalty().item())
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert set(found) == set(expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-14)


# Proximal steps


def outgoing(model) -> Slices:
    return Slices(lstm_unit_groups(HIDDEN, 2), dict(model.named_parameters()))


def as_metrics(tensors):
    return {name: partial(lambda value, select: select(value), value) for name, value in tensors.items()}


UNITS = [(layer, unit) for layer in range(2) for unit in range(HIDDEN)]


def of_unit(tensors, layer: int, unit: int) -> torch.Tensor:
    reader = "head.weight" if layer == 1 else "rnn.weight_ih_l1"
    return torch.cat([tensors[f"rnn.weight_hh_l{layer}"][:, unit], tensors[reader][:, unit]])


@pytest.mark.parametrize("chunk", [13, 2**18])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_the_group_step_is_the_minimum_in_the_metric(spread, chunk, monkeypatch):
    """Zero exactly if ||d v|| <= strength, else d (x - v) + strength x / ||x|| = 0; and no nearby point is better."""
    monkeypatch.setattr(parts, "CHUNK", chunk)
    model = double_tagger()
    level = outgoing(model)
    torch.manual_seed(0)
    values = {n: p.detach() * torch.rand(p.shape[-1]).double() * 2 for n, p in model.named_parameters()}
    metrics = {n: torch.exp(spread * torch.randn_like(v)) for n, v in values.items()}
    results = {n: v.clone() for n, v in values.items()}
    pulls = [of_unit({n: metrics[n] * values[n] for n in values}, *u).norm() for u in UNITS]
    strength = 1.001 * float(torch.stack(pulls).median())
    shrink_groups(level.parts, results, as_metrics(metrics), strength)
    zeros = 0
    for u in UNITS:
        v, d, x = (of_unit(t, *u) for t in (values, metrics, results))
        if (d * v).norm() <= strength:
            assert not x.any()
            zeros += 1
            continue
        torch.testing.assert_close(d * (x - v), -strength * x / x.norm(), rtol=1e-9, atol=1e-9)

        def objective(y, v=v, d=d):
            return strength * y.norm() + 0.5 * (d * (y - v) ** 2).sum()

        for _ in range(50):
            assert objective(x) <= objective(x + 1e-3 * torch.randn_like(x))
    assert 0 < zeros < len(UNITS)
    for name in ("rnn.weight_ih_l0", "rnn.bias_ih_l0", "head.bias"):
        assert torch.equal(results[name], values[name])  # no reader, not touched


def test_one_number_as_metric_is_the_usual_soft_threshold():
    model = double_tagger()
    level = outgoing(model)
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    scalar, tensor = ({n: v.clone() for n, v in values.items()} for _ in range(2))
    shrink_groups(level.parts, scalar, dict.fromkeys(values, lambda select: 5.0), 3.0)
    shrink_groups(level.parts, tensor, as_metrics({n: torch.full_like(v, 5.0) for n, v in values.items()}), 3.0)
    for layer in range(2):
        for unit in range(HIDDEN):
            v = of_unit(values, layer, unit)
            expected = v * max(0.0, 1 - 0.6 / float(v.norm()))
            torch.testing.assert_close(of_unit(scalar, layer, unit), expected)
            torch.testing.assert_close(of_unit(tensor, layer, unit), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8),
        lambda p: torch.optim.Adam(p, 1e-2),
        lambda p: torch.optim.RMSprop(p, 1e-2),
    ],
)
def test_training_ends_at_the_minimum_of_loss_and_penalty(make):
    """On 1/2 sum c (w - a)^2 the minimum is the proximal point with metric c, whichever optimizer goes there."""
    model = double_tagger()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(6 * torch.rand(p.shape[-1]).double())
    level = outgoing(model)
    goal = {n: p.detach().clone() for n, p in model.named_parameters()}
    curvature = {n: 0.5 + torch.rand_like(p) for n, p in goal.items()}
    expected = {n: p.clone() for n, p in goal.items()}
    strength = 5.0
    shrink_groups(level.parts, expected, as_metrics(curvature), strength)
    optimizer = make(model.parameters())
    GroupLasso(model, tokens(), strength=strength).attach(optimizer)
    for _ in range(800):
        for name, p in model.named_parameters():
            p.grad = curvature[name] * (p.detach() - goal[name])
        optimizer.step()
    zeros = 0
    for layer in range(2):
        for unit in range(HIDDEN):
            x, y = of_unit(dict(model.named_parameters()), layer, unit), of_unit(expected, layer, unit)
            assert bool(x.any()) == bool(y.any())
            torch.testing.assert_close(x.detach(), y, rtol=0.02, atol=0.02)
            zeros += not y.any()
    assert 0 < zeros < 2 * HIDDEN


def test_proximal_training_makes_units_that_compact_takes_out():
    model = tagger(hidden=24, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    structure = trace(model, tokens())
    sparsifier = GroupLasso(model, tokens(), strength=1e-2).attach(optimizer)
    train(model, optimizer, 150)
    dead = structure.dead(dict(model.named_parameters()))
    output = model(tokens())
    sparsifier.finish()
    after = structure.dead(dict(model.named_parameters()))
    assert sum(int(d.sum()) for d in dead.values()) > 5
    for name, gone in dead.items():
        assert (after[name] | ~gone).all()
        assert not model.get_parameter(f"rnn.weight_ih_{name[4:]}")[gone.repeat(4)].any()
    torch.testing.assert_close(model(tokens()), output)


def test_the_threshold_is_elementwise_and_weights_may_come_back():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    GroupLasso(model, tokens(), strength=1e-3, update="subgradient", threshold=0.05).attach(optimizer)
    train(model, optimizer, 1)
    weight = model.rnn.weight_hh_l0
    assert 0 < int((weight == 0).sum()) < weight.numel()
    assert weight[weight != 0].abs().min() >= 0.05
    assert (model.rnn.bias_ih_l0 != 0).all() and (model.embedding.weight != 0).all()
    gone = (weight == 0).nonzero()[0].tolist()
    with torch.no_grad():
        weight[gone[0], gone[1]] = 0.3
    train(model, optimizer, 1, first=1)
    assert weight[gone[0], gone[1]] != 0


def test_the_threshold_itself_stays():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = torch.tensor([0.25, -0.25, 0.24, -0.2, 3.0], dtype=dtype)
        zero_below(weight, 0.25)
        assert weight.tolist() == [0.25, -0.25, 0, 0, 3.0]


def test_l1_is_the_sum_of_absolute_values():
    model = double_tagger()
    names = [n for n, _ in model.rnn.named_parameters() if n.startswith("weight")]
    total = sum(float(model.rnn.get_parameter(n).detach().abs().sum()) for n in names)
    for update in ("proximal", "subgradient"):
        assert L1(model, strength=2e-3, update=update).penalty().item() == pytest.approx(2e-3 * total)


def test_adaptive_optimizers_are_told_about_subgradients():
    model = tagger()
    lasso = GroupLasso(model, tokens(), strength=1.0, update="subgradient")
    with pytest.warns(UserWarning, match="AdamW divides the penalty's gradient"):
        lasso.attach(torch.optim.AdamW(model.parameters()))


def test_a_frozen_reader_cannot_be_shrunk():
    model = tagger()
    model.head.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with pytest.raises(ValueError, match=r"does not train head\.weight"):
        GroupLasso(model, tokens(), strength=1.0).attach(optimizer)
    assert not optimizer._optimizer_step_pre_hooks


def test_lbfgs_minimises_loss_and_penalty_together():
    model = double_tagger()
    optimizer = OPTIMIZERS["lbfgs"](model)
    lasso = GroupLasso(model, tokens(), strength=0.02, update="subgradient", threshold=0.0).attach(optimizer)

    def objective():
        return float((loss_of(model, tokens()) + lasso.penalty()).detach())

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, tokens())
        loss.backward()
        return loss

    values = [objective()]
    for _ in range(6):
        optimizer.step(closure)
        values.append(objective())
    assert all(b <= a + 1e-12 for a, b in pairwise(values)) and values[-1] < 0.8 * values[0]
