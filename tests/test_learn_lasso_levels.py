"""L1 and group lasso of blocks, gates, rows, columns and weights: each shrinks by its own norm, alone and together."""

from __future__ import annotations

import pytest
import torch

from learn_models import double_tagger, tagger, tokens, train
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.proximal import shrink_weights
from sparsernn.learn.shrink import Shrink
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact


def whole(state):
    return state


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
