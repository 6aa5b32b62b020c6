"""Mixed precision: autocast and a GradScaler, float16 and a fused optimizer with CUDA, bfloat16 on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sparsernn as srn

STEPS, BATCH, TIME, SYMBOLS = 150, 16, 10, 6
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISION = torch.float16 if DEVICE == "cuda" else torch.bfloat16
# On a CPU torch's LSTM runs in bfloat16 under autocast only where there is AVX-512.
AUTOCAST = DEVICE == "cuda" or "AVX512" in torch.backends.cpu.get_cpu_capability()


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
    model = Recall().to(DEVICE)
    dataset = data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler(DEVICE)
    sparsifier = srn.Shrink(model, dataset[:2][0].to(DEVICE), to=0.25, steps=STEPS).attach(optimizer)
    for x, y in DataLoader(dataset, batch_size=BATCH):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, PRECISION, enabled=AUTOCAST):
            loss = nn.functional.cross_entropy(model(x.to(DEVICE)), y.to(DEVICE))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return model, sparsifier


def main() -> None:
    model, sparsifier = train()
    sparsifier.finish()
    small = srn.compact(model.eval(), torch.zeros(2, TIME, dtype=torch.long, device=DEVICE))
    print(f"{sparsifier.density():.0%} of the recurrent weights are kept, {small.lstm.hidden_size} of 32 units")


if __name__ == "__main__":
    main()
