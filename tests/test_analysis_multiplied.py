"""Multiply-adds are those that the examples really take, by hand for every kind of layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparsernn.analysis.multiplied import multiply_adds
from sparsernn.analysis.sparsity import inspect


def weights(module: nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in module.named_parameters() if p.dim() >= 2}


@pytest.mark.parametrize(
    ("module", "shape", "positions"),
    [
        (nn.Linear(3, 5), (2, 7, 3), 14),
        (nn.Linear(3, 5, bias=False), (3,), 1),
        (nn.Conv1d(4, 6, 3), (2, 4, 10), 2 * 8),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (1, 4, 10), 5),
        (nn.Conv1d(4, 4, 3, dilation=3, groups=4), (1, 4, 10), 4),
        (nn.Conv2d(2, 3, (3, 1), stride=(1, 2)), (2, 2, 9, 8), 2 * 7 * 4),
        (nn.Conv3d(1, 2, 2), (1, 1, 3, 4, 5), 2 * 3 * 4),
        (nn.ConvTranspose1d(4, 6, 5, stride=3), (2, 4, 7), 2 * 7),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 6), 30),
        (nn.LSTM(3, 4, 2, bidirectional=True), (7, 2, 3), 14),
        (nn.GRU(3, 4), (7, 3), 7),
        (nn.RNN(3, 4, batch_first=True), (2, 7, 3), 14),
        (nn.LSTMCell(3, 4), (2, 3), 2),
        (nn.GRUCell(3, 4), (3,), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_each_weight_is_multiplied_once_a_position(module: nn.Module, shape: tuple[int, ...], positions: int) -> None:
    found = multiply_adds(module, torch.randn(*shape))
    assert found == {name: number * positions for name, number in weights(module).items()}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projections_packed_sequences_and_several_examples() -> None:
    lstm = nn.LSTM(3, 4, proj_size=2)
    packed: PackedSequence = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    assert multiply_adds(lstm, packed) == {name: 7 * number for name, number in weights(lstm).items()}
    both = multiply_adds(lstm, [packed, torch.randn(4, 2, 3)])
    assert both == {name: 15 * number for name, number in weights(lstm).items()}


def test_computed_weights_tables_and_attention() -> None:
    normed = weight_norm(nn.Linear(3, 5))
    assert multiply_adds(normed, torch.randn(4, 3)) == {"parametrizations.weight.original1": 60}
    assert multiply_adds(nn.Embedding(5, 3), torch.tensor([1, 2])) == {}
    attention = nn.MultiheadAttention(4, 2)
    x = torch.randn(5, 3, 4)  # five places, three rows: each projection once a place and row, attention itself apart
    assert multiply_adds(attention, (x, x, x)) == {"in_proj_weight": 15 * 48, "out_proj.weight": 15 * 16}

    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.a, self.b = (
                nn.Linear(6, 5),
                nn.Parameter(torch.randn(2, 6)),
                nn.Parameter(torch.ones(5, 2)),
            )
            self.register_buffer("mask", torch.ones(5, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x @ ((self.linear.weight + self.b @ self.a) * self.mask).t()

    found = multiply_adds(LowRank(), torch.randn(7, 6))
    assert found == {"linear.weight": 7 * 30, "a": 5 * 2 * 6}


class Speech(nn.Module):
    """Three convolutions that halve the rate once, an LSTM, and a head that reads the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(8, 16, 3, padding=1)
        self.down = nn.Conv1d(16, 16, 4, stride=2, padding=1)
        self.rnn = nn.LSTM(16, 12, batch_first=True)
        self.up = nn.ConvTranspose1d(12, 4, 2, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.rnn(self.down(self.front(x).relu()).relu().transpose(1, 2))
        return self.up(y.transpose(1, 2)), self.head(y[:, -1])


@pytest.mark.parametrize("rows", (1, 3))
def test_a_report_counts_in_steps_of_the_recurrent_layer(rows: int) -> None:
    report = inspect(Speech(), torch.randn(rows, 8, 40)).to_dict()
    found = {row["name"]: row["now"]["mult_adds"] for row in report["layers"]}
    assert found == {
        "front": 2 * 16 * 8 * 3,  # two positions a step of the LSTM
        "down": 16 * 16 * 4,
        "rnn.l0": 48 * (16 + 12),
        "up": 12 * 4 * 2,
        "head": 60 / 20,  # once in twenty steps
    }
    assert report["now"]["mult_adds"] == sum(found.values())


def test_hand_written_cells_count_in_their_own_steps() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.back, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h, read = x.new_zeros(x.shape[1], 6), self.read(x)
            for step in read:
                h = torch.tanh(step + self.back(h))
            return self.head(h)

    report = inspect(Cell(), torch.randn(10, 2, 3)).to_dict()
    found = {row["name"]: row["now"]["mult_adds"] for row in report["layers"] if row["now"]["weights"]}
    assert (found["read"], found["back"], found["head"]) == (18, 36, round(12 / 10))
