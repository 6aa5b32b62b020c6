"""Sparsifiers of wrapped models, and in several processes: they act on the module inside and decide alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learn_models import OPTIMIZERS, loss_of, tagger, tokens, train
from learn_runs import EARLY
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.shrink import Shrink


def test_inside_data_parallel_and_compiled_models():
    model = tagger()
    wrapped = nn.DataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.1)
    sparsifier = Prune(wrapped, tokens(), 0.5, level="unit").attach(optimizer)
    train(wrapped, optimizer, 2)
    assert "rnn.weight_hh_l0" in sparsifier.masks
    assert sparsifier.finish() is wrapped
    compiled = torch.compile(tagger(), backend="eager")
    assert set(Prune(compiled, None, 0.5).masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_the_wrapper_of_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = tagger()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    Prune(model, None, 0.9).attach(optimizer)
    for number in range(5):
        optimizer.zero_grad()
        accelerator.backward(loss_of(model, tokens(number)))
        optimizer.step()
    assert int((model.rnn.weight_hh_l0 == 0).sum()) == round(0.9 * model.rnn.weight_hh_l0.numel())


def _rank(rank: int, file: str, results: str, name: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(tagger(hidden=12, num_layers=2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(rank)  # what is drawn must not depend on a rank's own random state
    sparsifier = RANKS[name](model).attach(optimizer)
    for number in range(12):
        optimizer.zero_grad()
        loss_of(model, tokens(100 * rank + number)).backward()  # each rank has its own batches
        optimizer.step()
    sparsifier.finish()
    torch.save(model.module.state_dict(), f"{results}/{rank}")
    torch.distributed.destroy_process_group()


RANKS = {
    "top-k": lambda m: Shrink(m, tokens(), to=0.3, steps=12, path=EARLY),
    "rewire": lambda m: Rewire(m, None, 0.8, steps=12, every=2),
    "rewire by gradient": lambda m: Rewire(m, None, 0.8, steps=12, every=2, grow="gradient"),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(RANKS))
def test_two_processes_stay_equal(tmp_path, name):
    """The traced copy is the module inside DistributedDataParallel, and both ranks end with the same weights."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "rendezvous"), str(tmp_path), name), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    if name == "top-k":
        assert (first["head.weight"] == 0).all(0).any()
    else:
        assert int((first["rnn.weight_hh_l0"] == 0).sum()) == round(0.8 * first["rnn.weight_hh_l0"].numel())


def test_ranks_decide_alike():
    """Equal weights give equal decisions, whatever a rank's random state: nothing is drawn."""
    decisions = []
    for seed in (1, 2):
        model = tagger(hidden=12, num_layers=2)
        torch.manual_seed(seed)
        optimizer = OPTIMIZERS["adam with weight decay"](model)
        sparsifier = Shrink(model, tokens(), to=0.3, steps=20).attach(optimizer)
        train(model, optimizer, 20)
        decisions.append(sparsifier.masks)
    assert all(torch.equal(decisions[0][name], decisions[1][name]) for name in decisions[0])
