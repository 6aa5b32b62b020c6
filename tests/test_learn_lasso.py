"""L1 and group lasso: Wen's penalty against a plain loop, proximal steps against their optimality conditions."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from learn_models import OPTIMIZERS, loss_of, lstm_unit_groups, tagger, tokens, train
from sparsernn.learn import parts
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.levels import Slices
from sparsernn.learn.penalty import zero_below
from sparsernn.learn.proximal import shrink_groups, shrink_weights
from sparsernn.learn.shrink import Shrink
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

HIDDEN = 6


def wen_slices(model, layer: int, unit: int) -> list[torch.Tensor]:
    """The slices of one unit as the paper lists them: 4 gate rows, own column, the reader's column."""
    rnn = model.rnn
    ih, hh = rnn.get_parameter(f"weight_ih_l{layer}").detach(), rnn.get_parameter(f"weight_hh_l{layer}").detach()
    last = layer == rnn.num_layers - 1
    reader = (model.head.weight if last else rnn.get_parameter(f"weight_ih_l{layer + 1}")).detach()
    rows = [m[gate * HIDDEN + unit] for m in (ih, hh) for gate in range(4)]
    return [*rows, hh[:, unit], reader[:, unit]]


def double_tagger(**options):
    return tagger(hidden=HIDDEN, num_layers=2, **options).double()


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


# Proximal steps


def outgoing(model) -> Slices:
    return Slices(lstm_unit_groups(HIDDEN, 2), dict(model.named_parameters()))


def whole(state):
    return state


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


def test_blocks_and_gates_shrink_by_their_own_norms():
    for level in ("block", "gate"):
        model = tagger(hidden=20).double()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        GroupLasso(model, None, strength=0.5, level=level).attach(optimizer)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        ih, hh = before["rnn.weight_ih_l0"], before["rnn.weight_hh_l0"]
        if level == "gate":
            norms = (ih.square().sum(1) + hh.square().sum(1)).sqrt()
            expected = hh * (1 - 0.5 / norms).clamp_min(0)[:, None]
        else:
            norms = torch.cat([b.norm(dim=0).expand(len(b), -1) for g in hh.split(20) for b in g.split([16, 4])])
            expected = hh * (1 - 0.5 / norms).clamp_min(0)
        torch.testing.assert_close(model.rnn.weight_hh_l0.detach(), expected)
        assert torch.equal(model.head.weight.detach(), before["head.weight"])


@pytest.mark.parametrize(("level", "axis"), [("row", 0), ("column", 1)])
def test_rows_and_columns_shrink_by_their_own_norms(level, axis):
    model = tagger(hidden=10).double()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    GroupLasso(model, None, strength=0.5, level=level, include="all").attach(optimizer)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        if p.dim() == 2:
            norms = before[name].norm(dim=1 - axis, keepdim=True)
            torch.testing.assert_close(p.detach(), before[name] * (1 - 0.5 / norms).clamp_min(0))
        else:
            assert torch.equal(p, before[name])


def test_the_row_and_column_lasso_of_one_matrix_with_all_gates():
    """Wen's matrix of an LSTM is (inputs + units) x 4 units: its columns are gates here, its rows are columns."""
    model = double_tagger()
    sparsifier = GroupLasso(model, None, strength=0.3, level=("gate", "column"), update="subgradient")
    loss = sparsifier.penalty()
    loss.backward()
    wanted = torch.zeros((), dtype=torch.float64)
    for layer in range(2):
        own = [model.rnn.get_parameter(f"weight_{kind}_l{layer}") for kind in ("ih", "hh")]
        whole = torch.cat(own, 1).detach()
        norms = [(1e-8 + (whole * whole).sum(axis)).sqrt() for axis in (0, 1)]
        wanted = wanted + 0.3 * (norms[0].sum() + norms[1].sum())
        gradient = 0.3 * (whole / norms[0] + whole / norms[1][:, None])
        torch.testing.assert_close(torch.cat([p.grad for p in own], 1), gradient)
    torch.testing.assert_close(loss.detach(), wanted)


def test_rows_and_columns_reach_a_target_alone_and_together():
    for level in ("row", "column", ("row", "column")):
        model = tagger(hidden=20)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        sparsifier = Shrink(model, None, to=0.4, steps=30, level=level).attach(optimizer)
        train(model, optimizer, 30)
        sparsifier.finish()
        weights = [p for n, p in model.named_parameters() if n.startswith("rnn.weight")]
        kept = sum(int(p.count_nonzero()) for p in weights) / sum(p.numel() for p in weights)
        assert 0.37 < kept <= 0.4


def test_single_weights_move_by_strength_over_metric():
    weight = torch.tensor([3.0, -0.5, 0.2, -0.1])
    metric = torch.tensor([1.0, 2.0, 4.0, 1.0])
    shrink_weights(weight, lambda select: select(metric), 0.6)
    torch.testing.assert_close(weight, torch.tensor([2.4, -0.2, 0.05, 0.0]))


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


def test_several_levels_have_their_own_strengths():
    model = double_tagger()
    both = GroupLasso(model, tokens(), strength={"weight": 0.1, "unit": 2.0}, level=("weight", "unit"))
    weights, units = L1(model, strength=0.1), GroupLasso(model, tokens(), strength=2.0)
    assert both.penalty().item() == pytest.approx(weights.penalty().item() + units.penalty().item())


@pytest.mark.parametrize("update", ["proximal", "subgradient"])
def test_weights_gates_and_units_at_once_are_the_sum_of_each_alone(update):
    """sum |w| of weights, norms of gate rows and of what reads a unit (arXiv 1911.05585, its pruning half)."""
    strengths = {"weight": 0.1, "gate": 0.5, "unit": 2.0}
    model = double_tagger()
    options = {"update": update, "groups": "outgoing"}
    together = GroupLasso(model, tokens(), strength=strengths, level=tuple(strengths), **options)
    alone = [GroupLasso(model, tokens(), strength=s, level=level, **options) for level, s in strengths.items()]
    assert together.penalty().item() == pytest.approx(sum(each.penalty().item() for each in alone))
    rows = [
        torch.cat([model.rnn.get_parameter(f"weight_{m}_l{layer}") for m in ("ih", "hh")], 1).norm(dim=1).sum()
        for layer in range(2)
    ]
    assert alone[1].penalty().item() == pytest.approx(0.5 * float(sum(rows).detach()), rel=1e-6)
    if update == "subgradient":
        together.penalty().backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        for each in alone:
            each.penalty().backward()
        assert all(torch.allclose(model.get_parameter(n).grad, grad) for n, grad in found.items())


def test_weights_gates_and_units_go_at_once():
    model = tagger(hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    lasso = GroupLasso(
        model, tokens(), strength={"weight": 1e-4, "gate": 5e-3, "unit": 1e-2}, level=("weight", "gate", "unit")
    ).attach(optimizer)
    train(model, optimizer, 100)
    lasso.finish()
    structure, parameters = trace(model, tokens()), dict(model.named_parameters())
    dead = structure.dead(parameters)["rnn.l0"]
    constant = structure.constant_gates(parameters)["rnn.l0"]
    gates = sum(int((mask & ~dead).sum()) for mask in constant.values())
    left = model.rnn.weight_hh_l0[(~dead).repeat(4)][:, ~dead]
    assert 0 < int(dead.sum()) < 16 and gates > 0 and int((left == 0).sum()) > 0
    small = compact(model.double(), tokens(), gates=True)
    torch.testing.assert_close(small(tokens(3)), model(tokens(3)), rtol=0, atol=1e-10)


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
