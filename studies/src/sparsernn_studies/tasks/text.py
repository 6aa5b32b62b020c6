"""Language modelling on one long text: alphabet, contiguous streams for truncated BPTT, bits per symbol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation import evaluating


@dataclass(frozen=True)
class Text:
    """A text as symbol numbers: int64 tensors (symbols,), in the order of reading."""

    symbols: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor


def encode(text: Sequence[str], symbols: Sequence[str]) -> Tensor:
    """Symbol numbers of `text`, int64 (len(text),). Raises KeyError on a symbol that is not in `symbols`."""
    number = {symbol: n for n, symbol in enumerate(symbols)}
    return torch.tensor([number[symbol] for symbol in text], dtype=torch.long)


@dataclass(frozen=True)
class Streams:
    """`text_N` cut into `batch` contiguous streams, read `steps` symbols at a time (truncated BPTT).

    What is read at a step depends on the number of the step alone, so that a resumed run reads the same.
    """

    text_N: Tensor
    batch: int
    steps: int

    def __post_init__(self) -> None:
        if self.length < self.steps:
            raise ValueError(
                f"A text of {len(self.text_N)} symbols cannot give {self.batch} streams of at least {self.steps}; "
                "take fewer streams or shorter steps."
            )

    @property
    def length(self) -> int:
        """Predictions in one stream."""
        return (len(self.text_N) - 1) // self.batch

    def at(self, step: int) -> tuple[Tensor, Tensor, bool]:
        """Input x_TB, target y_TB (the next symbols) and whether the streams begin anew, at training step `step`."""
        windows = self.length // self.steps
        begin = (step % windows) * self.steps
        return *self.between(begin, begin + self.steps), begin == 0

    def between(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Symbols begin..end (without the end) of every stream as x_TB, and y_TB, those that follow them."""
        places_TB = (torch.arange(self.batch) * self.length)[None, :] + torch.arange(begin, end)[:, None]
        return self.text_N[places_TB], self.text_N[places_TB + 1]


def wide(logits: Tensor) -> Tensor:
    """`logits` in at least float32: a loss in bfloat16 would lose its last digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cut(state: Any) -> Any:
    """The recurrent state without its history: truncated BPTT ends there."""
    return state.detach() if isinstance(state, Tensor) else tuple(cut(part) for part in state)


@dataclass(frozen=True)
class LanguageModelling:
    """The training objective: mean cross entropy (nats) of the next symbol, state carried from step to step.

    The model maps (x_TB, state) to (logits_TBV, state) and has `zero_state(batch)`.
    """

    streams: Streams

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, bool]:
        """The batch of `step`; of several processes each takes its own streams."""
        x_TB, y_TB, fresh = self.streams.at(step)
        return x_TB[:, rank::world].contiguous(), y_TB[:, rank::world].contiguous(), fresh

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, bool], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar, and the state to carry on with."""
        x_TB, y_TB, fresh = batch
        if fresh or state is None:
            state = zero_state(model, x_TB.shape[1])
        logits_TBV, state = model(x_TB, state)
        return nn.functional.cross_entropy(wide(logits_TBV).flatten(0, 1), y_TB.flatten()), cut(state)


def zero_state(model: nn.Module, batch: int) -> Any:
    """The model's own initial state; a wrapper of data-parallel training is looked through."""
    inner = getattr(model, "module", model)
    return inner.zero_state(batch)  # type: ignore[operator]


def bits_per_symbol(model: nn.Module, text_N: Tensor, *, streams: int = 16, window: int = 256) -> float:
    """Mean -log2 p(symbol) of `text_N` under `model`, read as `streams` contiguous streams with the state carried.

    The model's training mode is left as it was.
    """
    reader = Streams(text_N, streams, min(window, (len(text_N) - 1) // streams))
    device = next(iter(model.parameters())).device
    nats, count, state = 0.0, 0, zero_state(model, streams)
    with evaluating(model):
        for begin in range(0, reader.length, reader.steps):
            x_TB, y_TB = reader.between(begin, min(begin + reader.steps, reader.length))
            logits_TBV, state = model(x_TB.to(device), state)
            target_N = y_TB.flatten().to(device)
            nats += nn.functional.cross_entropy(wide(logits_TBV).flatten(0, 1), target_N, reduction="sum").item()
            count += y_TB.numel()
    return nats / count / math.log(2)
