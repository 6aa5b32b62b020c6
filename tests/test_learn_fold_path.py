"""Folding in the course of training: as `fold` does it, held from then on, and the small net may go on by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import OPTIMIZERS, batches, loss_of, state_values, tagger, tokens, train
from sparsernn.learn.paths.fold import Fold
from sparsernn.learn.scores import Magnitude
from sparsernn.learn.shrink import Shrink
from sparsernn.structure.trace import trace

STEPS = 20
MOMENTS = (5, 8, 10)  # of the default shares


def dead(model: nn.Module) -> dict[str, torch.Tensor]:
    return trace(model, tokens()).dead(dict(model.named_parameters()))


def shrunk(model: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> Shrink:
    path = Fold(batches(), **options.pop("path", {}))
    return Shrink(model, tokens(), **{"to": 0.3, "steps": STEPS, "path": path, **options}).attach(optimizer)


@pytest.mark.smoke
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_what_was_folded_away_stays_at_zero_under_every_optimizer(optimizer):
    model = tagger(num_layers=2)
    made = OPTIMIZERS[optimizer](model)
    sparsifier = shrunk(model, made)
    structure, parameters = trace(model, tokens()), dict(model.named_parameters())
    before = structure.dead(parameters)
    for step in range(1, STEPS + 1):
        train(model, made, 1, first=step - 1)
        now = structure.dead(parameters)
        number = sum(moment <= step for moment in MOMENTS)
        gone = sum(int(each.sum()) for each in now.values())
        if step in MOMENTS:
            assert all(bool((now[name] | ~each).all()) for name, each in before.items())
            assert gone > sum(int(each.sum()) for each in before.values())
        else:
            assert all(torch.equal(now[name], each) for name, each in before.items())
        share = 0.3 ** (number / 3)
        assert share - 0.06 < sparsifier.density() <= share
        for name, mask in sparsifier.masks.items():
            parameter = parameters[name]
            assert not parameter[~mask].any()
            if optimizer != "lbfgs":
                assert all(not value[~mask].any() for value in state_values(made, parameter))
        before = now
    sparsifier.finish()
    small = srn.compact(model, tokens())
    torch.testing.assert_close(small(tokens(3)), model(tokens(3)), rtol=1e-5, atol=1e-5)


def test_one_fold_in_training_is_that_of_fold_at_that_moment():
    model = tagger().double()
    optimizer = OPTIMIZERS["adam with weight decay"](model)
    sparsifier = shrunk(model, optimizer, path={"at": 0.5})
    train(model, optimizer, 9)
    twin = copy.deepcopy(model)
    other = OPTIMIZERS["adam with weight decay"](twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(twin, other, 1, first=9)
    train(model, optimizer, 1, first=9)
    folded = srn.fold(twin, batches(), to=0.3)
    assert sparsifier.density() == folded.share
    assert torch.equal(dead(model)["rnn.l0"], folded.removed["rnn.l0"])
    wanted = srn.compact(folded.model, tokens())
    torch.testing.assert_close(model(tokens(3)), wanted(tokens(3)), rtol=1e-10, atol=1e-12)


def test_a_second_fold_is_that_of_the_compacted_net():
    """What went before has no part in it: neither in the choice nor in the solution."""
    model = tagger(hidden=20, num_layers=2).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    sparsifier = shrunk(model, optimizer, path={"at": (0.25, 0.5)})
    train(model, optimizer, 5)
    first = sparsifier.density()
    small = srn.compact(model, tokens())
    train(model, optimizer, 5, first=5)
    folded = srn.fold(small, batches(), to=0.3 / first)
    assert sparsifier.density() == pytest.approx(first * folded.share, rel=1e-12)
    torch.testing.assert_close(model(tokens(3)), folded.model(tokens(3)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["adam with weight decay", "sgd with momentum"])
def test_the_small_net_goes_on_as_the_large_one_would(optimizer):
    """From the last fold on: `compact` with the optimizer, its moments cut along, in the same loop."""
    results = []
    for small in (False, True):
        model = tagger(num_layers=2).double()
        made = OPTIMIZERS[optimizer](model)
        sparsifier = shrunk(model, made)
        train(model, made, 10)
        if small:
            model = srn.compact(sparsifier.finish(), tokens(), optimizer=made)
        train(model, made, 10, first=10)
        results.append(model)
    large, small = results
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())
    torch.testing.assert_close(small(tokens(3)), large(tokens(3)), rtol=1e-9, atol=1e-11)


def test_nothing_is_drawn_and_modes_stay_as_they_are():
    model = tagger(num_layers=2, dropout=0.5).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = torch.utils.data.DataLoader(torch.cat(batches()), batch_size=4, shuffle=True)
    sparsifier = Shrink(model, tokens(), to=0.5, steps=2, path=Fold(loader, at=0.5)).attach(optimizer)
    loss_of(model, tokens()).backward()
    torch.manual_seed(7)
    optimizer.step()
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(7)))
    assert model.training and model.rnn.training
    assert sparsifier.density() <= 0.5


def test_multiply_adds_and_costs_of_the_widths():
    for options in ({"cost": "mult-adds", "to": 0.5}, {"cost": lambda units: 2.0 + units["rnn.l0"], "to": 12.0}):
        model = tagger()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparsifier = shrunk(model, optimizer, **options)
        train(model, optimizer, STEPS)
        sparsifier.finish()
        left = int((~dead(model)["rnn.l0"]).sum())
        if options["to"] == 12.0:
            assert left == 10
        else:
            cost = [4 * units * (9 + units) + 11 * units for units in (left, left + 1, 20)]
            assert cost[0] <= 0.5 * cost[2] < cost[1]


def test_units_that_cannot_be_folded_are_named_before_the_training():
    """A decoder that is the embedding as well: solved anew it would change the inputs."""
    model = tagger(hidden=9)
    model.head.weight = model.embedding.weight
    with pytest.raises(
        ValueError, match=r"path=Fold\(\.\.\.\) leaves a share of 1 at least, more than 0\.5: embedding"
    ):
        Shrink(model, tokens(), to=0.5, steps=10, path=Fold(batches()))


def test_weights_that_are_not_finite_are_named():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    shrunk(model, optimizer, path={"at": 0.1})
    train(model, optimizer, 1)
    with torch.no_grad():
        model.embedding.weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"embedding\.weight is not finite.*look at the training"):
        train(model, optimizer, 1)


def test_few_positions_are_warned_of():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    Shrink(model, tokens(), to=0.5, steps=2, path=Fold(batches(1), at=0.5)).attach(optimizer)
    with pytest.warns(UserWarning, match=r"28 positions .* 20 units a layer"):
        train(model, optimizer, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Fold(iter(batches())), TypeError, "list_iterator, which is gone through once"),
        (lambda: Fold(batches(), at=()), ValueError, "rising shares"),
        (lambda: Fold(batches(), at=(0.5, 0.25)), ValueError, "rising shares"),
        (lambda: Fold(batches(), at=(0.5, 1.5)), ValueError, "rising shares"),
        (lambda: Fold(batches(), at=0), ValueError, "rising shares"),
        (lambda: start(Fold("text")), TypeError, "batches is str"),
        (lambda: start(Fold([])), ValueError, "hold no position"),
        (lambda: start(Fold(batches()), level="weight"), ValueError, "takes whole units, got level weight"),
        (lambda: start(Fold(batches()), score=Magnitude()), ValueError, "without score="),
    ],
)
def test_misuse_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def start(path: Fold, **options: object) -> Shrink:
    return Shrink(tagger(), tokens(), to=0.5, steps=10, path=path, **options)


def _rank(rank: int, file: str, results: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(tagger(hidden=12, num_layers=2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    own = [tokens(1000 * rank + seed) for seed in range(8)]
    sparsifier = Shrink(model, tokens(), to=0.3, steps=12, path=Fold(own)).attach(optimizer)
    for number in range(12):
        optimizer.zero_grad()
        loss_of(model, tokens(100 * rank + number)).backward()
        optimizer.step()
    sparsifier.finish()
    torch.save(model.module.state_dict(), f"{results}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.nightly
def test_two_processes_with_batches_of_their_own_stay_equal(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (first["head.weight"] == 0).all(0).any()
