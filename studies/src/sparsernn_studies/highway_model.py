"""The word model of Zilly et al. (arXiv 1607.03474): a recurrent highway network, its embedding decodes as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsernn.nn.rhn import RHN

from .regularisation import locked_dropout
from .softmax_loss import linear_cross_entropy
from .word_model import State


@dataclass(frozen=True)
class HighwayDrop:
    """Shares dropped in training, with one mask for all steps of a window: of the words (`words`: a word that is
    dropped is zero wherever it stands in its text), of the network's input, of its state, and of its output."""

    words: float = 0.0
    input: float = 0.0
    state: float = 0.0
    output: float = 0.0

    def scaled(self, by: float) -> HighwayDrop:
        """Every share times `by`."""
        return HighwayDrop(self.words * by, self.input * by, self.state * by, self.output * by)


class HighwayModel(nn.Module):
    """Next-word model: x_TB -> logits_TBV, or (x_TB, state) -> (logits_TBV, state).

    The embedding of `words` words is as wide as the network, `width`, and tied to the output layer. All parameters
    begin uniform in (-`start`, `start`), the biases of the network apart: those of t at `transform_bias`, others at 0.
    """

    def __init__(
        self, words: int, width: int, depth: int, drop: HighwayDrop, start: float = 0.04, transform_bias: float = -2.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        network = RHN(
            width, width, depth, input_dropout=drop.input, state_dropout=drop.state, transform_bias=transform_bias
        )
        self.layers = nn.ModuleList([network])
        self.head = nn.Linear(width, words)
        self.head.weight = self.embedding.weight
        self.drop = drop
        biases = {id(p) for p in network.parameters() if p.dim() == 1}
        for parameter in self.parameters():
            if id(parameter) not in biases:
                nn.init.uniform_(parameter, -start, start)

    def run(self, x_TB: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """The network's output after and before its dropout, and the state."""
        h = self.embedding(x_TB)
        if self.training and self.drop.words:
            kept_BV = F.dropout(h.new_ones(x_TB.shape[1], self.embedding.num_embeddings), self.drop.words)
            h = h * kept_BV[torch.arange(x_TB.shape[1], device=x_TB.device), x_TB].unsqueeze(-1)
        raw, after = self.layers[0](h, None if state is None else state[0][0])
        return locked_dropout(raw, self.drop.output, self.training), raw, ((after,),)

    def nats(self, h_TBH: Tensor, y_TB: Tensor, low: torch.dtype | None) -> Tensor:
        """Mean cross entropy of the words `y_TB` after the network's output; products in dtype `low`, if given."""
        return linear_cross_entropy(h_TBH.flatten(0, 1), self.head, y_TB.flatten(), low or h_TBH.dtype)

    def forward(self, x_TB: Tensor, state: State | None = None) -> Tensor | tuple[Tensor, State]:
        h_TBH, _, after = self.run(x_TB, state)
        return self.head(h_TBH) if state is None else (self.head(h_TBH), after)

    def zero_state(self, batch: int) -> State:
        """The state before a text begins."""
        return ((self.head.bias.new_zeros(1, batch, self.layers[0].hidden_size),),)  # type: ignore[arg-type]
