"""Models that people stream, each as a whole and as one step with its states as inputs and outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

States = list[Tensor]


class Tcn(nn.Module):
    """Four dilated causal convolutions with batch norm and residual, a GRU and a head, on frames (B, T, 40)."""

    DILATIONS = (1, 2, 4, 8)

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.front = nn.Conv1d(40, channels, 1)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, dilation=d) for d in self.DILATIONS)
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in self.DILATIONS)
        self.gru = nn.GRU(channels, channels, batch_first=True)
        self.head = nn.Linear(channels, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.front(x.transpose(1, 2))
        for conv, norm, d in zip(self.convs, self.norms, self.DILATIONS):
            y = y + F.relu(norm(conv(F.pad(y, (2 * d, 0)))))
        return self.head(self.gru(y.transpose(1, 2))[0])

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, after = self.front(x[..., None]), []
        for conv, norm, past in zip(self.convs, self.norms, states):
            window = torch.cat([past, y], 2)
            after.append(window[..., 1:])
            y = y + F.relu(norm(conv(window)))
        out, h = self.gru(y.transpose(1, 2), states[-1])
        return self.head(out[:, 0]), *after, h

    def states(self) -> States:
        width = self.gru.hidden_size
        return [*(torch.zeros(1, width, 2 * d) for d in self.DILATIONS), torch.zeros(1, 1, width)]


class Crn(nn.Module):
    """A convolutional recurrent net on spectrograms (B, 1, T, 64): skip connections and a mask."""

    def __init__(self) -> None:
        super().__init__()
        options = {"stride": (1, 2), "padding": (0, 1)}
        self.e1, self.e2 = nn.Conv2d(1, 8, (2, 3), **options), nn.Conv2d(8, 16, (2, 3), **options)
        self.lstm = nn.LSTM(256, 128, batch_first=True)
        self.back = nn.Linear(128, 256)
        self.d2 = nn.ConvTranspose2d(32, 8, (1, 3), output_padding=(0, 1), **options)
        self.d1 = nn.ConvTranspose2d(16, 1, (1, 3), output_padding=(0, 1), **options)
        self.n1, self.n2 = nn.BatchNorm2d(8), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        a = F.elu(self.n1(self.e1(F.pad(x, (0, 0, 1, 0)))))
        b = F.elu(self.n2(self.e2(F.pad(a, (0, 0, 1, 0)))))
        z, _ = self.lstm(b.permute(0, 2, 1, 3).flatten(2))
        return self._decoded(x, a, b, z)

    def _decoded(self, x: Tensor, a: Tensor, b: Tensor, z: Tensor) -> Tensor:
        z = self.back(z).unflatten(2, (16, 16)).permute(0, 2, 1, 3)
        z = F.elu(self.d2(torch.cat([z, b], 1)))
        return x * torch.sigmoid(self.d1(torch.cat([z, a], 1)))

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        before, behind, h, c = states
        x = x[:, :, None]
        a = F.elu(self.n1(self.e1(torch.cat([before, x], 2))))
        b = F.elu(self.n2(self.e2(torch.cat([behind, a], 2))))
        z, (h, c) = self.lstm(b.permute(0, 2, 1, 3).flatten(2), (h, c))
        return self._decoded(x, a, b, z)[:, :, 0], x, a, h, c

    def states(self) -> States:
        return [torch.zeros(1, 1, 1, 64), torch.zeros(1, 8, 1, 32), torch.zeros(1, 1, 128), torch.zeros(1, 1, 128)]


class Policy(nn.Module):
    """A recurrent policy as reinforcement learning has it: normalised observations, an LSTM, two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(45))
        self.register_buffer("std", torch.rand(45) + 0.5)
        self.lstm = nn.LSTM(45, 64, batch_first=True)
        self.head = nn.Sequential(nn.Linear(64, 128), nn.ELU(), nn.Linear(128, 64), nn.ELU(), nn.Linear(64, 12))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(((x - self.mean) / self.std).clamp(-5, 5))
        return torch.tanh(self.head(y))

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        h, c = states
        y, (h, c) = self.lstm(((x - self.mean) / self.std).clamp(-5, 5)[:, None], (h, c))
        return torch.tanh(self.head(y[:, 0])), h, c

    def states(self) -> States:
        return [torch.zeros(1, 1, 64), torch.zeros(1, 1, 64)]


class Step(nn.Module):
    """One step of a model as its whole forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return self.model.step(x, *states)  # type: ignore[operator]
