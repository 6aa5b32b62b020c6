"""Lightning: attach where the optimizer is made; the state goes into Lightning's checkpoints."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
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


class Training(pl.LightningModule):
    def __init__(self, model: nn.Module, example_inputs: Tensor) -> None:
        super().__init__()
        self.model = model
        self.sparsifier = srn.Shrink(model, example_inputs, to=0.25, steps=STEPS)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        self.sparsifier.attach(optimizer)
        return optimizer

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sparsifier"] = self.sparsifier.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sparsifier.load_state_dict(checkpoint["sparsifier"])


def train() -> tuple[nn.Module, srn.Shrink]:
    torch.manual_seed(0)
    model = Recall()
    dataset = data()
    training = Training(model, dataset[:2][0])
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(training, DataLoader(dataset, batch_size=BATCH))
    return model, training.sparsifier


def main() -> None:
    model, sparsifier = train()
    sparsifier.finish()
    small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long))
    print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")


if __name__ == "__main__":
    main()
