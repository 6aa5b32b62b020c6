"""Thresholds of a delta stream by a loss: the largest within it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from delta_models import Chain, walk
from sparsernn.runtime.delta_thresholds import delta_thresholds
from sparsernn.runtime.layers import accelerate


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(7, 6), nn.LSTM(6, 18, batch_first=True)
        self.head = nn.Linear(18, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(x))[0])


@pytest.mark.parametrize("tokens", (False, True))
def test_thresholds_by_a_loss_are_the_largest_within_it(tokens: bool) -> None:
    """One number times the deviations of what the columns multiply."""
    torch.manual_seed(7)
    model = (Tokens() if tokens else Chain()).eval()
    fast = accelerate(model)
    x = torch.randint(7, (3, 60), generator=torch.Generator().manual_seed(1)) if tokens else walk(60).repeat(1, 3, 1)
    target = fast(x)
    losses = []

    def loss(y: Tensor, batch: Any) -> float:
        assert y.shape == batch[1].shape
        losses.append(1.0 + float((y - batch[1]).pow(2).mean()))
        return losses[-1]

    found = delta_thresholds(fast, [(x, target)], loss, max_loss=1e-4)
    assert set(found) == ({"rnn.l0", "head"} if tokens else {"rnn.l0", "rnn.l1", "head"})
    if tokens:
        assert found["rnn.l0"][0] == 0.0  # it has a table
    elif isinstance(found["rnn.l0"], tuple):
        spread = found["rnn.l0"][0] / x[:, 0].std(0, correction=0)
        assert torch.allclose(spread, spread[:1], rtol=1e-4) and spread[0] > 0
    assert losses[0] == pytest.approx(1.0, abs=1e-9)

    def measured(scale: float) -> float:
        wider = {k: tuple(scale * t for t in v) if isinstance(v, tuple) else scale * v for k, v in found.items()}
        stream = fast.stream(delta=wider)
        rows = []
        for row in x.unbind(0 if tokens else 1):
            stream.reset()
            rows.append(torch.cat([stream.step(step[None]).clone() for step in row]))
        return 1.0 + float((torch.stack(rows, 0 if tokens else 1) - target).pow(2).mean())

    within = [one for one in losses if one <= losses[0] * (1 + 1e-4)]
    assert measured(1.0) == pytest.approx(within[-1]) and within[-1] <= losses[0] * (1 + 1e-4)


def test_thresholds_need_an_accelerated_model_and_data() -> None:
    model = Chain().eval()
    with pytest.raises(TypeError, match="made by accelerate"):
        delta_thresholds(model, [walk(3)], lambda y, x: 0.0)
    fast = accelerate(model)
    for arguments, words in (
        (([], lambda y, x: 0.0), "batches is empty"),
        (([walk(3)], lambda y, x: 0.0, -1), "max_loss is -1"),
        (([walk(3)], lambda y, x: torch.nan), "the loss is nan"),
    ):
        with pytest.raises(ValueError, match=words):
            delta_thresholds(fast, *arguments)
    every = delta_thresholds(fast, [walk(8)], lambda y, x: 0.0)
    assert torch.allclose(every["rnn.l0"][0], walk(8)[:, 0].std(0, correction=0), atol=1e-6)


def test_a_negative_loss_may_rise_by_a_share_of_its_size() -> None:
    torch.manual_seed(7)
    fast, x = accelerate(Chain().eval()), walk(40)
    target = fast(x)
    found = delta_thresholds(fast, [(x, target)], lambda y, b: float((y - b[1]).pow(2).mean()) - 1, max_loss=1e-3)
    assert all((t > 0).any() for pair in found.values() for t in (pair if isinstance(pair, tuple) else (pair,)))
