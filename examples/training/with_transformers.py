"""The Trainer of Hugging Face transformers: hand over the optimizer that the sparsifier is attached to."""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from transformers import Trainer, TrainingArguments

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


class WithLoss(nn.Module):
    """What the Trainer expects: keywords in, loss and logits out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(input_ids)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Named(Dataset[dict[str, Tensor]]):
    """Each sample as a dict of keywords."""

    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, y = self.dataset[index]
        return {"input_ids": x, "labels": y}


def data() -> TensorDataset:
    x = torch.randint(SYMBOLS, (STEPS * BATCH, TIME))
    return TensorDataset(x, x.roll(1, dims=1))  # the first answer is the last symbol, which nobody can know


def train() -> tuple[nn.Module, srn.Shrink]:
    torch.manual_seed(0)
    model = Recall()
    dataset = data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = srn.Shrink(model, dataset[:2][0], to=0.25, steps=STEPS).attach(optimizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        Trainer(WithLoss(model), arguments, train_dataset=Named(dataset), optimizers=(optimizer, None)).train()
    return model, sparsifier


def main() -> None:
    model, sparsifier = train()
    sparsifier.finish()
    small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long))
    print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")


if __name__ == "__main__":
    main()
