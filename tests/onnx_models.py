"""Models that the tests of both ways of ONNX share, and how onnxruntime runs a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


class Tagger(nn.Module):
    """Tokens (batch, time) to scores and states, whichever way round `rnn` reads them."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 5)
        self.rnn = rnn
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor):
        y, state = self.rnn(self.embedding(tokens if self.rnn.batch_first else tokens.T))
        return self.head(y), state


def flat(value) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [part for item in value for part in flat(item)]


def session(path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs_of(path) -> list[str]:
    return [given.name for given in session(path).get_inputs()]


def shapes(path) -> dict[str, list]:
    return {given.name: given.shape for given in session(path).get_inputs()}


def check(path, model: Callable[..., Any], *inputs: Tensor, share: float | None = None) -> None:
    """onnxruntime gives the model's outputs, in the order of the results: within 2e-5, or a `share` of the largest."""
    run = session(path)
    names = [given.name for given in run.get_inputs()]
    got = run.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    with torch.no_grad():
        want = flat(model(*inputs))
    for a, b in zip(got, want, strict=True):
        within = 2e-5 if share is None else share * b.abs().max().item()
        torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=within)


def agree(got, want, tolerance: float = 1e-12) -> None:
    for a, b in zip(flat(got), flat(want), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
