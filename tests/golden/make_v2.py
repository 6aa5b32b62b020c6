"""How the golden files of format 2 were made. A released format's files stay as they are: this refuses to overwrite.

Each `v2-NAME.safetensors` was written by `sparsernn.save`; `v2-NAME.json` holds the outputs of the plain model of the
file's weights for `example()`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn

FOLDER = Path(__file__).parent


class Speller(nn.Module):
    """Embedding, two layers of LSTM, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.lstm = nn.LSTM(8, 20, 2, batch_first=True)
        self.head = nn.Linear(20, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])


class Counter(nn.Module):
    """A convolution, a GRU and a head, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3)
        self.gru = nn.GRU(3, 5)
        self.head = nn.Linear(5, 1)
        self.double()

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.gru(self.conv(series).permute(2, 0, 1))[0][-1])


def sparse_speller() -> Speller:
    torch.manual_seed(3)
    model = Speller().eval()
    with torch.no_grad():
        for gate in range(4):  # blocks of 16 rows and 4 columns
            model.lstm.weight_hh_l0[20 * gate : 20 * gate + 16, 4:] = 0.0
        model.lstm.weight_ih_l1[torch.rand(80, 20) < 0.8] = 0.0
    return model


def speller() -> Any:
    """int8, its head in bfloat16."""
    return srn.accelerate(sparse_speller(), {"*": "int8", "head": "bfloat16"})


def counter() -> Counter:
    """As `fold(..., bits=4)` leaves a model: whole numbers times one scale a row."""
    torch.manual_seed(4)
    model = Counter().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                numbers = torch.randint(-7, 8, parameter.shape).double()
                parameter.copy_(numbers * torch.randint(1, 999, (len(numbers),) + (1,) * (parameter.dim() - 1)) / 8192)
    return model


def example(name: str) -> Tensor:
    if name == "speller":
        return torch.arange(14).view(2, 7) % 9
    return torch.linspace(-1, 1, 20, dtype=torch.float64).view(2, 1, 10)


GOLDEN: dict[str, tuple[Any, Any]] = {"speller": (Speller, speller), "counter": (Counter, counter)}

if __name__ == "__main__":
    for name, (dense, make) in GOLDEN.items():
        path = FOLDER / f"v2-{name}.safetensors"
        if path.exists():
            raise SystemExit(f"{path} is there; a released format's golden files are never made anew.")
        srn.save(make(), path)
        plain = dense().eval()
        plain.load_state_dict(srn.load(dense(), path).state_dict())
        path.with_suffix(".json").write_text(json.dumps(plain(example(name)).flatten().tolist()) + "\n")
