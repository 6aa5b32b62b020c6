"""Prune: exactly round(s n), whatever the optimizer does afterwards; every level, scope and schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from learn_models import OPTIMIZERS, SYMBOLS, lstm_unit_groups, state_values, tagger, tokens, train
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual, Iterative, OneShot
from sparsernn.learn.scores import Magnitude
from sparsernn.structure.trace import trace

RECURRENT = ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1")


def zeros(parameter: torch.Tensor) -> int:
    return int((parameter == 0).sum())


@pytest.mark.smoke
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_exactly_the_share_is_zero_after_fifty_further_steps(name):
    model = tagger(num_layers=2)
    optimizer = OPTIMIZERS[name](model)
    train(model, optimizer, 3)  # momentum is there before anything is pruned
    sparsifier = Prune(model, None, 0.9).attach(optimizer)
    train(model, optimizer, 1 + 50, first=3)
    for parameter in RECURRENT:
        weight = model.get_parameter(parameter)
        assert zeros(weight) == round(0.9 * weight.numel())
        assert torch.equal(sparsifier.masks[parameter], weight != 0)
        for value in state_values(optimizer, weight):
            assert not value[weight == 0].any()
    assert sparsifier.density() == pytest.approx(0.1, abs=1e-3)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fused Adam with GradScaler needs CUDA")
def test_fused_adam_with_grad_scaler_on_cuda():
    model = tagger(num_layers=2).cuda()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-2, fused=True)
    Prune(model, None, 0.9).attach(optimizer)
    scaler = torch.amp.GradScaler("cuda")
    for number in range(51):
        x = tokens(number).cuda()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = nn.functional.cross_entropy(model(x).reshape(-1, SYMBOLS), x.reshape(-1))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    for parameter in RECURRENT:
        weight = model.get_parameter(parameter)
        assert zeros(weight) == round(0.9 * weight.numel())


def test_scopes_count_exactly():
    # A share at which rounding down would give another count in each scope.
    for scope, groups in {
        "matrix": [(n,) for n in RECURRENT],
        "layer": [RECURRENT[:2], RECURRENT[2:]],
        "model": [RECURRENT],
    }.items():
        model = tagger(num_layers=2)
        Prune(model, None, 0.7679, scope=scope).finish()
        for names in groups:
            weights = [model.get_parameter(n) for n in names]
            assert sum(map(zeros, weights)) == round(0.7679 * sum(w.numel() for w in weights))


def test_ties_go_by_index():
    model = tagger()
    with torch.no_grad():
        model.rnn.weight_hh_l0.fill_(0.5)
    Prune(model, None, 0.3, include="rnn.weight_hh_l0").finish()
    flat = model.rnn.weight_hh_l0.detach().reshape(-1)
    number = round(0.3 * flat.numel())
    assert not flat[:number].any() and (flat[number:] == 0.5).all()


def test_blocks_are_tiled_within_each_gate():
    model = tagger(hidden=20)  # 20 rows a gate: a block of 16 rows and one of 4
    Prune(model, None, 0.5, level="block").finish()
    for weight in (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0):
        blocks = []
        for gate in (weight != 0).split(20):
            for block in (gate[:16], gate[16:]):
                assert (block.all(0) | ~block.any(0)).all()
                blocks.append(block.any(0))
        number = sum(len(block) for block in blocks)
        assert sum(int((~block).sum()) for block in blocks) == round(0.5 * number)


@pytest.mark.parametrize("level", ["weight", "block"])
def test_the_diagonal_is_neither_counted_nor_masked(level):
    model = tagger(hidden=32)
    diagonal = torch.eye(32, dtype=torch.bool).repeat(4, 1)
    with torch.no_grad():
        model.rnn.weight_hh_l0[diagonal] = 1e-6
    Prune(model, None, 0.9, level=level, include="rnn.weight_hh_l0", keep_diagonal=True).finish()
    weight = model.rnn.weight_hh_l0.detach()
    assert (weight[diagonal] == pytest.approx(1e-6)) and weight[diagonal].all()
    if level == "weight":
        assert zeros(weight) == round(0.9 * (128 * 32 - 128))
    else:
        whole = (weight.masked_fill(diagonal, 0) == 0).view(8, 16, 32).all(1)
        assert int(whole.sum()) == round(0.9 * 8 * 32)


def test_a_gate_goes_with_its_rows_of_both_matrices_and_keeps_its_bias():
    model = tagger(kind="GRU", hidden=10)
    Prune(model, None, 0.4, level="gate").finish()
    rows = torch.cat([model.rnn.weight_ih_l0, model.rnn.weight_hh_l0], 1) != 0
    assert (rows.all(1) | ~rows.any(1)).all()
    assert int((~rows.any(1)).sum()) == round(0.4 * 30)
    assert model.rnn.bias_ih_l0.all() and model.rnn.bias_hh_l0.all()


@pytest.mark.parametrize(("level", "axis"), [("row", 0), ("column", 1)])
def test_rows_and_columns_go_in_each_matrix_for_itself(level, axis):
    model = tagger(hidden=10, num_layers=2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    Prune(model, None, 0.3, level=level).finish()
    for name, p in model.named_parameters():
        if not name.startswith("rnn.weight"):
            assert torch.equal(p, before[name])
            continue
        norms, there = before[name].norm(dim=1 - axis), (p != 0).all(1 - axis)
        assert torch.equal(there, (p != 0).any(1 - axis))
        assert int((~there).sum()) == round(0.3 * len(there))
        assert norms[there].min() >= norms[~there].max()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_units_that_go_are_the_units_that_compact_finds_dead(kind):
    model = tagger(kind=kind, hidden=10, num_layers=2, bidirectional=True)
    structure = trace(model, tokens())
    Prune(model, tokens(), 0.6, level="unit").finish()
    dead = structure.dead(dict(model.named_parameters()))
    assert {name: int(gone.sum()) for name, gone in dead.items()} == {name: round(0.6 * 10) for name in dead}
    for name, gone in dead.items():
        suffix = name.removeprefix("rnn.")
        gates = model.get_parameter(f"rnn.weight_ih_{suffix}").shape[0] // 10
        for weight in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            assert not model.get_parameter(f"rnn.{weight}_{suffix}")[gone.repeat(gates)].any()
        assert not model.get_parameter(f"rnn.weight_hh_{suffix}")[:, gone].any()


def test_units_go_by_what_reads_them():
    model = tagger(hidden=12)
    groups = lstm_unit_groups(12, 1)
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    size = groups.squares(parameters, ("outgoing",))
    Prune(model, tokens(), 0.5, level="unit", score=Magnitude()).finish()
    gone = (model.head.weight == 0).all(0)
    assert size[gone].max() < size[~gone].min()
    assert int(gone.sum()) == 6


def test_one_unit_of_each_layer_and_direction_stays():
    model = tagger(hidden=6, num_layers=2, bidirectional=True)
    Prune(model, tokens(), 1.0, level="unit", scope="model").finish()
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))
    assert {int((~gone).sum()) for gone in dead.values()} == {1}
    for name, gone in dead.items():  # and it is read by somebody: the layer still does something
        assert model.get_parameter(f"rnn.weight_hh_{name.removeprefix('rnn.')}")[:, ~gone].any()


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_projection_has_units_of_two_kinds():
    model = tagger(hidden=12, proj_size=6)
    Prune(model, tokens(), 0.5, level="unit").finish()
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))
    assert {name: int(gone.sum()) for name, gone in dead.items()} == {"rnn.l0": 6, "rnn.l0.projected": 3}


def test_the_cubic_ramp_of_zhu_and_gupta():
    schedule = Gradual(end=101, begin=1, every=20)
    assert schedule.sparsity(1, 0.8) == 0
    for step in (21, 41, 61, 81):
        assert schedule.sparsity(step, 0.8) == pytest.approx(0.8 * (1 - (1 - (step - 1) / 100) ** 3))
        assert schedule.sparsity(step + 1, 0.8) is None
    assert schedule.sparsity(101, 0.8) == 0.8
    assert schedule.sparsity(102, 0.8) is None


def test_schedules_reach_the_sparsity_and_nothing_comes_back():
    for schedule, steps in ((Gradual(end=30, every=5), 35), (Iterative(rounds=3, every=8), 25), (OneShot(at=4), 6)):
        model = tagger()
        optimizer = OPTIMIZERS["adam with weight decay"](model)
        sparsifier = Prune(model, None, 0.8, schedule=schedule).attach(optimizer)
        gone = torch.zeros_like(model.rnn.weight_hh_l0, dtype=torch.bool)
        for step in range(steps):
            train(model, optimizer, 1, first=step)
            now = model.rnn.weight_hh_l0 == 0
            assert (now | ~gone).all()
            gone = now
        assert int(gone.sum()) == round(0.8 * gone.numel())
        sparsifier.finish()


def test_iterative_keeps_the_same_share_in_each_round():
    schedule = Iterative(rounds=4, every=10)
    kept = [1 - schedule.sparsity(1 + 10 * n, 0.9) for n in range(4)]
    ratios = [b / a for a, b in zip([1.0, *kept], kept)]
    assert ratios == pytest.approx([0.1**0.25] * 4)
    assert schedule.sparsity(41, 0.9) is None


def test_patterns_choose_the_weights():
    model = tagger(num_layers=2)
    sparsifier = Prune(model, None, 0.5, include=("*weight_hh*", "head.*"))
    assert set(sparsifier.masks) == {"rnn.weight_hh_l0", "rnn.weight_hh_l1", "head.weight"}
    sparsifier.finish()
    assert model.rnn.weight_ih_l0.all() and zeros(model.head.weight) == round(0.5 * model.head.weight.numel())


def test_patterns_choose_the_units_and_groups_keep_all_readers():
    model = tagger(hidden=8, num_layers=2)
    Prune(model, tokens(), 0.5, level="unit", include="*_l0").finish()
    dead = trace(model, tokens()).dead(dict(model.named_parameters()))
    assert {name: int(gone.sum()) for name, gone in dead.items()} == {"rnn.l0": 4, "rnn.l1": 0}
    assert not model.rnn.weight_ih_l1[:, dead["rnn.l0"]].any()


def test_weights_that_are_not_finite_are_named_before_anything_is_pruned():
    model = tagger()
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = math.nan
    sparsifier = Prune(model, None, 0.5)
    with pytest.raises(ValueError, match="not finite"):
        sparsifier.finish()
    assert model.rnn.weight_ih_l0.all()


def test_finish_before_the_schedule_is_over_says_so():
    model = tagger()
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = Prune(model, None, 0.9, schedule=Gradual(end=100, every=10)).attach(optimizer)
    train(model, optimizer, 30)
    with pytest.warns(UserWarning, match="after 30 steps"):
        sparsifier.finish()
