"""Models that the tests of both ways of ONNX share."""

from __future__ import annotations

from torch import Tensor, nn


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
