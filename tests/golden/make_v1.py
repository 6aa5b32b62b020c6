"""How the golden files of format 1 were made. A released format's files stay as they are: this refuses to overwrite.

Each `v1-NAME.safetensors` was written by `sparsernn.save`; `v1-NAME.json` holds the outputs for `example()`, which
every later version has to give as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsernn.nn.gated import GatedGRU
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.surgery.checkpoint import save

FOLDER = Path(__file__).parent


class Tagger(nn.Module):
    """Embedding, BiLSTM, batch norm, tied output embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(12)
        self.bridge = nn.Linear(12, 4)
        self.out = nn.Linear(4, 9)
        self.out.weight = self.embedding.weight
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.embedding(tokens))
        y = self.norm(y.transpose(1, 2)).transpose(1, 2)
        return self.out(torch.tanh(self.bridge(y)))


class Forecaster(nn.Module):
    """Conv1d, GRU with a learned initial state, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3)
        self.gru = nn.GRU(3, 5)
        self.h0 = nn.Parameter(torch.zeros(1, 1, 5))
        self.head = nn.Linear(5, 1)
        self.double()

    def forward(self, series: Tensor) -> Tensor:
        x = self.conv(series).permute(2, 0, 1)
        y, _ = self.gru(x, self.h0.expand(-1, x.shape[1], -1).contiguous())
        return self.head(y[-1])


def small_tagger() -> Tagger:
    """As surgery leaves a Tagger: ragged LSTM, the readers narrowed."""
    torch.manual_seed(1)
    model = Tagger()
    model.lstm = RaggedLSTM(4, [(3, 2), (4, 1)], bidirectional=True, batch_first=True, dtype=torch.float64)
    model.norm = nn.BatchNorm1d(5).double()
    model.norm.running_mean.uniform_()
    model.bridge = nn.Linear(5, 4).double()
    return model.eval()


def small_forecaster() -> Forecaster:
    """As surgery leaves a Forecaster: three units, constant gates folded, the learned state narrowed."""
    torch.manual_seed(2)
    model = Forecaster()
    dense = nn.GRU(3, 3).double()
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(dense, name)[[0, 3, 7, 8]] = 0.0
    model.gru = GatedGRU.from_dense(dense)
    model.h0 = nn.Parameter(torch.rand(1, 1, 3, dtype=torch.float64))
    model.head = nn.Linear(3, 1).double()
    return model.eval()


def example(name: str) -> Tensor:
    if name == "tagger":
        return torch.arange(14).view(2, 7) % 9
    return torch.linspace(-1, 1, 20, dtype=torch.float64).view(2, 1, 10)


GOLDEN = {"tagger": (Tagger, small_tagger), "forecaster": (Forecaster, small_forecaster)}

if __name__ == "__main__":
    for name, (_, make) in GOLDEN.items():
        path = FOLDER / f"v1-{name}.safetensors"
        if path.exists():
            raise SystemExit(f"{path} is there; a released format's golden files are never made anew.")
        model = make()
        save(model, path)
        path.with_suffix(".json").write_text(json.dumps(model(example(name)).flatten().tolist()) + "\n")
