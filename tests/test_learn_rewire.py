"""Rewire: exact counts at every moment, what grows and what goes, where, and that it starts from nothing."""

from __future__ import annotations

import math

import pytest
import torch

from learn_models import OPTIMIZERS, loss_of, state_values, tagger, tokens, train
from sparsernn.learn.distribution import apportioned, erdos_renyi, uniform
from sparsernn.learn.rewire import Rewire

MATRICES = [f"rnn.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")]


def numbers(model, names=MATRICES):
    return [int((model.get_parameter(name) == 0).sum()) for name in names]


@pytest.mark.smoke
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_exactly_the_share_is_gone_after_every_step_and_places_move(grow, optimizer):
    model = tagger(num_layers=2)
    built = OPTIMIZERS[optimizer](model)
    sparsifier = Rewire(model, None, 0.85, steps=12, every=2, grow=grow).attach(built)
    wanted = [round(0.85 * model.get_parameter(name).numel()) for name in MATRICES]
    assert numbers(model) == wanted  # sparse from the first forward pass on
    before, moving = sparsifier.masks, []
    for number in range(12):
        train(model, built, 1, first=number)
        masks = sparsifier.masks
        assert [int((~masks[name]).sum()) for name in MATRICES] == wanted
        for name in MATRICES:
            parameter = model.get_parameter(name)
            assert not parameter[~masks[name]].any()
            assert all(not value[~masks[name]].any() for value in state_values(built, parameter))
        if not all(torch.equal(masks[name], before[name]) for name in MATRICES):
            moving.append(number + 1)
        before = masks
    assert moving == [2, 4, 6, 8]  # every 2 steps, in the first 75% of them


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("optimizer", ["adamw amsgrad", "sgd with momentum", "rmsprop"])
def test_what_grows_starts_at_zero_with_a_state_of_zero(grow, optimizer):
    model = tagger(num_layers=2)
    built = OPTIMIZERS[optimizer](model)
    sparsifier = Rewire(model, None, 0.6, steps=100, every=4, grow=grow).attach(built)
    before = sparsifier.masks
    train(model, built, 4)
    grown = 0
    for name in MATRICES:
        parameter, new = model.get_parameter(name), sparsifier.masks[name] & ~before[name]
        grown += int(new.sum())
        assert not parameter[new].any() and parameter[sparsifier.masks[name] & ~new].all()
        assert all(not value[new].any() for value in state_values(built, parameter))
    assert grown > 100
    train(model, built, 1, first=4)
    assert all(model.get_parameter(n)[sparsifier.masks[n] & ~before[n]].any() for n in MATRICES)


@pytest.mark.parametrize("level", ["weight", "block", "word"])
@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_a_move_is_what_the_papers_say_group_by_group(level, grow):
    """A plain loop over the groups of a matrix: after the step the smallest by magnitude go; of the empty places those
    grow, by RigL, where the dense gradient of that step is largest."""
    model = tagger(hidden=20).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    name, options = "rnn.weight_hh_l0", {"include": "rnn.weight_hh_l0", "steps": 40, "every": 3, "level": level}
    sparsifier = Rewire(model, None, 0.5, grow=grow, share=0.4, **options).attach(optimizer)
    train(model, optimizer, 2)
    optimizer.zero_grad()
    loss_of(model, tokens(2)).backward()
    parameter, kept = model.get_parameter(name), sparsifier.masks[name]
    gradient = parameter.grad.clone()
    stepped = (parameter.detach() - 0.1 * gradient) * kept
    optimizer.step()

    rows = {"weight": [(r, r + 1) for r in range(80)]}.get(level) or [
        (20 * gate + a, 20 * gate + b)
        for gate in range(4)
        for a, b in ((0, 16), (16, 20))  # 20 rows a gate: blocks of 16 and of 4
    ]
    width = 4 if level == "word" else 1
    groups = [(slice(a, b), slice(c, c + width)) for a, b in rows for c in range(0, 20, width)]
    size, strength = ([float(v[g].square().mean().sqrt()) for g in groups] for v in (stepped, gradient))
    there = {k for k, g in enumerate(groups) if bool(kept[g].all())}
    assert len(there) == len(groups) // 2
    number = round(0.4 * (1 + math.cos(math.pi * 3 / 30)) / 2 * len(there))
    dropped = set(sorted(there, key=lambda k: size[k])[:number])
    now = {k for k, g in enumerate(groups) if bool(sparsifier.masks[name][g].all())}
    assert len(now) == len(there) and there - dropped <= now
    if grow == "gradient":
        empty = set(range(len(groups))) - (there - dropped)
        assert now - (there - dropped) == set(sorted(empty, key=lambda k: -strength[k])[:number])
    # What stays has its value, and what grows none yet.
    wanted = torch.zeros_like(stepped)
    for k in now & there:
        wanted[groups[k]] = stepped[groups[k]]
    torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-12, atol=1e-15)


def test_the_smallest_go():
    model = tagger(hidden=12).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)  # weights stay, so that what goes is known beforehand
    sparsifier = Rewire(model, None, 0.5, steps=10, every=1, share=0.3, decay="constant").attach(optimizer)
    before = {name: value.detach().clone() for name, value in model.named_parameters() if "weight" in name}
    train(model, optimizer, 1)
    for name, mask in sparsifier.masks.items():
        value, went = before[name].abs(), (before[name] != 0) & ~mask
        number = round(0.3 * int((before[name] != 0).sum()))
        limit = value[value > 0].kthvalue(number).values
        assert 0 < int(went.sum()) <= number and bool((value[went] <= limit).all())


def test_the_share_that_moves_falls_on_a_cosine_and_ends():
    def moved(**options):
        model = tagger(hidden=24)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparsifier = Rewire(model, None, 0.5, steps=40, every=4, share=0.5, **options).attach(optimizer)
        found = []
        for number in range(40):
            before = sparsifier.masks["rnn.weight_hh_l0"]
            train(model, optimizer, 1, first=number)
            found.append(int((before & ~sparsifier.masks["rnn.weight_hh_l0"]).sum()))
        assert not any(n for t, n in enumerate(found, 1) if t % 4)
        return found[3::4]

    falling, constant = moved(end=0.5), moved(decay="constant", end=1)
    assert falling[:5] == sorted(set(falling[:5]), reverse=True) and not any(falling[4:])
    # Of what goes, chance brings back as many as share of the empty places: half gone, half of a half moves.
    assert all(n == pytest.approx(constant[0], rel=0.2) for n in constant[:9]) and constant[9] == 0


@pytest.mark.parametrize("scope", ["matrix", "layer", "model"])
def test_budgets_move_within_their_scope(scope):
    """Matrices of larger weights win weights, of the same layer and of others as far as the scope reaches."""
    model = tagger(num_layers=2, hidden=16)
    with torch.no_grad():
        model.rnn.weight_hh_l1.mul_(9)
        model.rnn.weight_hh_l0[16:32].mul_(9)  # a gate
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = Rewire(model, None, 0.8, steps=30, every=1, scope=scope, share=0.5).attach(optimizer)
    first = numbers(model)
    train(model, optimizer, 30)
    now = [int((~sparsifier.masks[name]).sum()) for name in MATRICES]
    forget = sparsifier.masks["rnn.weight_hh_l0"].view(4, -1).sum(1)
    assert 4 * int(forget[1]) > int(forget.sum())  # within a matrix the gates share one budget
    assert (now == first) == (scope == "matrix")
    assert now[3] < first[3] or scope == "matrix"
    assert (sum(now[:2]) == sum(first[:2])) == (scope != "model")
    assert sum(now) == sum(first)


def test_where_there_are_few_more_stay():
    """Densities follow (rows + columns) / (rows columns), but for those that would pass 1, and the sum is exact."""
    shapes, counts = [(400, 100), (400, 100), (40, 10), (4, 2)], [40_000, 40_000, 400, 8]
    for sparsity in (0.0, 0.3, 0.5, 0.9, 0.99, 1.0):
        gone = erdos_renyi(shapes, counts, sparsity)
        assert sum(gone) == round(sparsity * sum(counts)) and all(0 <= g <= n for g, n in zip(gone, counts))
        density = [1 - g / n for g, n in zip(gone, counts)]
        assert density[0] == pytest.approx(density[1], abs=1e-4)
        if sparsity == 0.99:
            assert density[2] / density[0] == pytest.approx((50 / 400) / (500 / 40_000), rel=0.02)
        if 0 < sparsity < 0.99:
            assert density[3] == 1 >= density[2] > density[0]
    assert uniform([3, 3, 3], 0.5) == [2, 1, 1] and uniform([7], 0.5) == [4]
    assert apportioned([0.5, 2.5, 1.0], 4, [1, 2, 9]) == [1, 2, 1]


def test_erdos_renyi_counts_over_the_model():
    model = tagger(num_layers=2, embedding=3)
    sparsifier = Rewire(model, None, 0.9, steps=9, initial="erdos-renyi")
    masks = sparsifier.masks
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.9 * sum(m.numel() for m in masks.values()))
    density = {name: float(mask.float().mean()) for name, mask in masks.items()}
    assert density["rnn.weight_ih_l0"] > density["rnn.weight_hh_l0"]


def test_nothing_is_changed_until_it_is_attached_and_seeds_and_ranks_differ_as_they_should():
    before = {name: value.clone() for name, value in tagger().state_dict().items()}
    masks = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        model = tagger()
        torch.manual_seed(state)  # a rank's own random state plays no part
        sparsifier = Rewire(model, None, 0.9, steps=30, every=2, seed=seed)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert sparsifier.density() == pytest.approx(0.1, abs=1e-3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparsifier.attach(optimizer)
        train(model, optimizer, 6)
        masks.append(sparsifier.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert not any(torch.equal(masks[0][name], masks[2][name]) for name in masks[0])


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_resumed_run_has_the_weights_of_the_saved_one_in_every_order(steps, model_first):
    def begun(seed):
        model = tagger(seed)
        optimizer = OPTIMIZERS["adam with weight decay"](model)
        return model, optimizer, Rewire(model, None, 0.7, steps=12, every=2)

    model, optimizer, sparsifier = begun(0)
    sparsifier.attach(optimizer)
    train(model, optimizer, steps)
    saved = [each.state_dict() for each in (model, optimizer, sparsifier)]
    saved = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, saved)
    train(model, optimizer, 6, first=steps)

    again, second, resumed = begun(3)
    if model_first:
        again.load_state_dict(saved[0])
        resumed.attach(second)
    else:
        resumed.attach(second)
        again.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    assert all(torch.equal(saved[0][name], value) for name, value in again.state_dict().items())
    train(again, second, 6, first=steps)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in again.state_dict().items())


def test_by_hand_chance_decides_and_gradients_are_asked_for():
    model = tagger()
    sparsifier = Rewire(model, None, 0.7, steps=9, every=2)
    for _ in range(4):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01)
        sparsifier.step()
        assert int((~sparsifier.masks["rnn.weight_hh_l0"]).sum()) == round(0.7 * model.rnn.weight_hh_l0.numel())
    with pytest.raises(RuntimeError, match="attach it first"):
        Rewire(model, None, 0.7, steps=9, grow="gradient").step()
    model = tagger()
    Rewire(model, None, 0.7, steps=9).finish()
    assert numbers(model, ["rnn.weight_hh_l0"]) == [round(0.7 * model.rnn.weight_hh_l0.numel())]


def test_where_no_gradient_comes_chance_decides():
    """A layer that took no part in a step has no gradient: its weights do not all move to the first places."""
    model = tagger(num_layers=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Rewire(model, None, 0.9, steps=40, every=1, grow="gradient").attach(optimizer)
    before = sparsifier.masks["rnn.weight_hh_l1"]
    loss_of(model, tokens()).backward()
    model.rnn.weight_hh_l1.grad = None
    optimizer.step()
    grown = (sparsifier.masks["rnn.weight_hh_l1"] & ~before).flatten().nonzero()[:, 0]
    assert len(grown) > 20 and float(grown.double().mean() / before.numel()) == pytest.approx(0.5, abs=0.2)


def test_gradients_that_are_not_finite_end_in_a_sentence():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    Rewire(model, None, 0.9, steps=40, every=1, grow="gradient").attach(optimizer)
    (loss_of(model, tokens()) * float("inf")).backward()
    with pytest.raises(ValueError, match="not finite"):
        optimizer.step()
