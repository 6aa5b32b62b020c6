"""SNT-ASGD averages each weight over the steps in which it was there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsernn.learn.averaged import SNTASGD
from sparsernn.learn.rewire import Rewire


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.LSTM(6, 8).double()


def steps(model: nn.Module, optimizer: Any, first: int, last: int) -> list[dict[str, Tensor]]:
    """The weights after each step."""
    found = []
    for n in range(first, last):
        x = torch.randn(5, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        optimizer.zero_grad()
        (model(x)[0] - x.mean()).pow(2).sum().backward()
        optimizer.step()
        found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return found


def averages(model: nn.Module, optimizer: SNTASGD) -> dict[str, Tensor]:
    with optimizer.averaged():
        return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_without_a_sparsifier_it_is_the_mean_since_averaging_began():
    model, twin = net(), net()
    optimizer = SNTASGD(model.parameters(), lr=0.1, patience=0)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1)
    optimizer.look(1.0)
    steps(model, optimizer, 0, 3)
    assert optimizer.look(1.5)
    seen = steps(model, optimizer, 3, 12)
    expected = steps(twin, plain, 0, 12)[-1]
    for name, p in model.named_parameters():
        assert torch.equal(p, expected[name])
        want = torch.stack([each[name] for each in seen]).mean(0)
        torch.testing.assert_close(averages(model, optimizer)[name], want, rtol=1e-12, atol=1e-14)
        assert torch.equal(p, expected[name])


def test_a_grown_weight_is_averaged_from_the_step_it_grew_in():
    """By the definition, from the weights after every step: a run of steps in which it was not zero."""
    model = net()
    optimizer = SNTASGD(model.parameters(), lr=0.1, patience=0)
    Rewire(model, sparsity=0.5, steps=40, every=3, share=0.5, end=1.0).attach(optimizer)
    optimizer.look(1.0)
    optimizer.look(2.0)
    seen = steps(model, optimizer, 0, 29)
    found, grown = averages(model, optimizer), 0
    for name, p in model.named_parameters():
        values = torch.stack([each[name] for each in seen])
        since = (values.flip(0) != 0).cumprod(0).sum(0)  # steps of the last run
        want = torch.stack(
            [values[len(values) - int(n) :].view(int(n), -1)[:, k].mean() if n else torch.zeros((), dtype=p.dtype)
             for k, n in enumerate(since.flatten())]
        ).view_as(p)  # fmt: skip
        torch.testing.assert_close(found[name], want, rtol=1e-12, atol=1e-14)
        assert torch.equal(found[name] == 0, p == 0)
        grown += int(((since > 0) & (since < len(seen))).sum())
    assert grown > 20


def test_the_trigger_is_that_of_the_algorithm():
    optimizer = SNTASGD(net().parameters(), lr=0.1, patience=2)
    losses = (5.0, 4.0, 4.5, 4.6, 3.9, 4.2)
    assert [optimizer.look(loss) for loss in losses] == [False, False, False, False, False, True]
    assert optimizer.look(0.0)


@pytest.mark.parametrize("load", (False, True))
def test_it_resumes_and_is_copied_to_the_bit(load: bool):
    model = net()
    optimizer = SNTASGD(model.parameters(), lr=0.1, patience=0)
    for loss in (1.0, 2.0):
        optimizer.look(loss)
    steps(model, optimizer, 0, 4)
    if load:
        other = net()
        resumed = SNTASGD(other.parameters(), lr=0.1, patience=0)
        other.load_state_dict(model.state_dict())
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        other, resumed = copy.deepcopy((model, optimizer))
    steps(model, optimizer, 4, 9)
    steps(other, resumed, 4, 9)
    want, got = averages(model, optimizer), averages(other, resumed)
    assert all(torch.equal(want[name], got[name]) for name in want) and resumed.look(9.0)


def test_bad_arguments_get_a_sentence():
    with pytest.raises(ValueError, match="number of looks"):
        SNTASGD(net().parameters(), lr=0.1, patience=-1)
    with pytest.raises(ValueError, match="take float32"):
        SNTASGD(net().bfloat16().parameters(), lr=0.1)


def test_groups_that_come_later_are_averaged_as_the_others_and_need_as_much_precision():
    model, more = net(), nn.Parameter(torch.ones(2))
    optimizer = SNTASGD(model.parameters(), lr=0.1, patience=0)
    optimizer.add_param_group({"params": [more]})
    optimizer.look(1.0)
    assert optimizer.look(2.0) and all(group["averaging"] for group in optimizer.param_groups)
    with pytest.raises(ValueError, match="take float32"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]})
