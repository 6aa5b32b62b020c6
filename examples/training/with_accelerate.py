"""accelerate, several processes: `torchrun --nproc-per-node 2 examples/training/with_accelerate.py`."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, gather_object
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


def train(accelerator: Accelerator) -> tuple[nn.Module, srn.Shrink]:
    torch.manual_seed(0)
    model = Recall()
    dataset = data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = srn.Shrink(model, dataset[:2][0], to=0.25, steps=STEPS).attach(optimizer)
    prepared, prepared_optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(dataset, batch_size=BATCH))
    for x, y in loader:
        prepared_optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(prepared(x), y))
        prepared_optimizer.step()
    return model, sparsifier


def main() -> None:
    # Each batch is split among the processes, so that the run is that of one process.
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    model, sparsifier = train(accelerator)
    sparsifier.finish()
    masks = gather_object([{name: mask.tolist() for name, mask in sparsifier.masks.items()}])
    if accelerator.is_main_process:
        small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long))
        print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")
        print(f"{len(masks)} processes, the same masks: {all(mask == masks[0] for mask in masks)}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
