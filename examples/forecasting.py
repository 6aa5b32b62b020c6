"""Forecast a signal one sample ahead with a GRU: train it sparse, take out what is dead, run it sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sparsernn as srn

STEPS, TIME = 200, 40


class Forecaster(nn.Module):
    """The next sample of each signal: x_BT1 -> y_BT1."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x_BT1: Tensor) -> Tensor:
        h_BTH, _ = self.gru(x_BT1)
        return self.head(h_BTH)


def signals(batch: int) -> Tensor:
    """Sums of two sines of random frequency and phase, (batch, TIME + 1, 1)."""
    time = torch.arange(TIME + 1.0)
    frequency, phase = 0.1 + 0.5 * torch.rand(batch, 2, 1), 6.3 * torch.rand(batch, 2, 1)
    return torch.sin(frequency * time + phase).mean(1).unsqueeze(-1)


def error(model: nn.Module) -> float:
    """Root mean square error on signals that were not trained on; 0.5 is what the mean would give."""
    x = signals(64)
    with torch.no_grad():
        return nn.functional.mse_loss(model(x[:, :-1]), x[:, 1:]).sqrt().item()


def main() -> None:
    torch.manual_seed(0)
    model = Forecaster()
    example_inputs = signals(4)[:, :-1]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = srn.Shrink(model, example_inputs, to=0.25, steps=STEPS).attach(optimizer)
    for _ in range(STEPS):
        x = signals(32)
        loss = nn.functional.mse_loss(model(x[:, :-1]), x[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sparsifier.finish()
    model.eval()

    small = srn.compact(model, example_inputs)
    print(f"{model.gru.hidden_size} -> {small.gru.hidden_size} units, error {error(model):.3f} -> {error(small):.3f}")

    srn.save(small, "forecaster.safetensors")
    again = srn.load(Forecaster(), "forecaster.safetensors").eval()

    stream = srn.accelerate(again).stream(batch=1)
    signal = signals(1)
    forecasts = [stream.step(sample).item() for sample in signal[0, :-1, None]]
    off = max(abs(a - b) for a, b in zip(forecasts, small(signal[:, :-1])[0, :, 0].tolist()))
    print(f"{len(forecasts)} samples one by one, off the whole sequence by {off:.0e}")


if __name__ == "__main__":
    main()
