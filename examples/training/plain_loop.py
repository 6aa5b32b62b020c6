"""A plain training loop: one line more than without sparsernn. The other files of this folder do the same elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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
    model = Recall()
    dataset = data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = srn.Shrink(model, dataset[:2][0], to=0.25, steps=STEPS).attach(optimizer)
    for x, y in DataLoader(dataset, batch_size=BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, sparsifier


def main() -> None:
    model, sparsifier = train()
    sparsifier.finish()
    small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long))
    print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")


if __name__ == "__main__":
    main()
