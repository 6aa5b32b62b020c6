"""skorch: initialize the net, attach to its optimizer, then partial_fit (fit would make a new optimizer)."""

from __future__ import annotations

import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import sparsernn as srn

STEPS, BATCH, TIME, SYMBOLS = 150, 16, 10, 6


class Recall(nn.Module):
    """Which symbol came before this one? x_BT -> logits_BVT."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 12)
        self.lstm = nn.LSTM(12, 32, batch_first=True)
        self.head = nn.Linear(32, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(x))[0]).transpose(1, 2)


def data() -> TensorDataset:
    x = torch.randint(SYMBOLS, (STEPS * BATCH, TIME))
    return TensorDataset(x, x.roll(1, dims=1))  # the first answer is the last symbol, which nobody can know


def train() -> tuple[nn.Module, srn.Shrink]:
    torch.manual_seed(0)
    net = NeuralNet(
        Recall,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        batch_size=BATCH,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).initialize()
    dataset = data()
    sparsifier = srn.Shrink(net.module_, dataset[:2][0], to=0.25, steps=STEPS).attach(net.optimizer_)
    net.partial_fit(dataset)
    return net.module_, sparsifier


def main() -> None:
    model, sparsifier = train()
    sparsifier.finish()
    small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long))
    print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")


if __name__ == "__main__":
    main()
