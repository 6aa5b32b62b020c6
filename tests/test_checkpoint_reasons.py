"""A file is narrower than the model only where surgery made it so; any other difference is another architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.surgery.checkpoint import CheckpointError, load, save


class Net(nn.Module):
    """Words, a convolution, an LSTM and a head, of any sizes; `cut` makes two of the units dead."""

    def __init__(
        self, words: int = 7, channels: int = 5, hidden: int = 6, classes: int = 3, head: str = "linear"
    ) -> None:
        super().__init__()
        self.words, self.conv = nn.Embedding(words, 4), nn.Conv1d(4, channels, 3, padding=1)
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.bridge = nn.Linear(hidden, 4)
        self.head: Any = nn.Parameter(torch.randn(classes, 4)) if head == "bare" else nn.Linear(4, classes)
        if head == "tied":
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.conv(self.words(tokens).transpose(1, 2)).transpose(1, 2)
        y = torch.tanh(self.bridge(self.lstm(x)[0]))
        return y @ self.head.t() if isinstance(self.head, nn.Parameter) else self.head(y)

    def cut(self) -> nn.Module:
        with torch.no_grad():
            self.lstm.weight_hh_l0[:, :2] = self.bridge.weight[:, :2] = 0
        return srn.compact(self.eval(), TOKENS)


TOKENS = torch.tensor([[1, 2, 3, 0], [4, 0, 1, 1]])
SIZES = {
    "fewer classes": ({"classes": 2}, {"classes": 3}),
    "fewer words": ({"words": 6}, {"words": 7}),
    "fewer words that are classes": (
        {"words": 6, "classes": 6, "head": "tied"},
        {"words": 7, "classes": 7, "head": "tied"},
    ),
    "more classes": ({"classes": 4}, {"classes": 3}),
}
AFTER_SURGERY = SIZES | {
    "fewer classes of a bare parameter": ({"classes": 2, "head": "bare"}, {"classes": 3, "head": "bare"}),
    "fewer channels": ({"channels": 4}, {"channels": 5}),
    "a smaller layer": ({"hidden": 5}, {"hidden": 6}),
    "a smaller layer and fewer classes": ({"hidden": 5, "classes": 2}, {"hidden": 6, "classes": 3}),
}


@pytest.mark.parametrize("name", AFTER_SURGERY)
def test_a_compacted_model_of_other_sizes_is_refused(name, tmp_path):
    own, other = AFTER_SURGERY[name]
    model = Net(**own)
    save(model.cut(), tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"m: (tensors|modules)\."):
        load(Net(**other), tmp_path / "m")
    assert load(Net(**own), tmp_path / "m").lstm.hidden_size == model.lstm.hidden_size - 2


@pytest.mark.parametrize("name", SIZES)
def test_a_plain_model_of_other_classes_or_words_is_refused(name, tmp_path):
    own, other = SIZES[name]
    save(Net(**own), tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"m: (tensors|modules)\.(head|words)"):
        load(Net(**other), tmp_path / "m")


def again(small: nn.Module, dense: nn.Module, folder: Any) -> None:
    save(small, folder / "m")
    loaded = load(dense.eval(), folder / "m")
    assert [(n, p.shape) for n, p in loaded.named_parameters()] == [(n, p.shape) for n, p in small.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), small.parameters()))


def test_whatever_became_of_a_compacted_model_it_comes_back(tmp_path):
    small = Net().cut()
    again(copy.deepcopy(small), Net(), tmp_path)
    again(srn.accelerate(small), Net(), tmp_path)
    again(small.lstm, Net().lstm, tmp_path)
    again(small.bridge, Net().bridge, tmp_path)
    around = nn.ModuleDict({"inner": Net(), "more": nn.Linear(2, 2)})
    again(nn.ModuleDict({"inner": small, "more": nn.Linear(2, 2)}), around, tmp_path)
    loaded: Any = load(around, tmp_path / "m")
    save(loaded["inner"], tmp_path / "m")  # saved anew, it is known still what it was
    with pytest.raises(CheckpointError, match="before surgery"):
        load(Net(hidden=8), tmp_path / "m")
    again(loaded["inner"], Net(), tmp_path)


def test_cut_twice_it_is_still_of_the_first_model(tmp_path):
    small = Net().cut()
    with torch.no_grad():
        small.lstm.weight_hh_l0[:, :1] = small.bridge.weight[:, :1] = 0
    smaller = srn.compact(small, TOKENS)
    assert smaller.lstm.hidden_size == 3
    again(smaller, Net(), tmp_path)


def test_words_and_gates_that_went_are_reasons_too(tmp_path):
    model = Net().eval()
    with torch.no_grad():
        model.words.weight[1:4] = 0
        model.lstm.weight_ih_l0[:2] = model.lstm.weight_hh_l0[:2] = 0
        model.lstm.weight_hh_l0[:, 3] = model.bridge.weight[:, 3] = 0
    small = srn.compact(model, TOKENS, gates=True, words=True)
    assert small.words.num_embeddings == 5 and type(small.lstm).__name__ == "GatedLSTM"
    again(small, Net(), tmp_path)


class Flat(nn.Module):
    """Two directions, read as one long row over time beside another input: the reader has other widths."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.rnn, self.mix = nn.GRU(3, 5, batch_first=True, bidirectional=True), nn.Conv1d(10, 4, 1)
        self.head = nn.Linear(4 * 6 + 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.rnn(x)[0].transpose(1, 2))
        return self.head(torch.cat([y.flatten(1), x[:, 0, :2]], 1))


def test_without_notes_readers_of_several_steps_are_reasons(tmp_path):
    """As files of earlier versions and models made narrow by hand are: nothing says what they were."""
    small = Flat()
    small.mix, small.head = nn.Conv1d(10, 3, 1), nn.Linear(3 * 6 + 2, 3)
    again(small, Flat(), tmp_path)
    small.mix, small.head = nn.Conv1d(10, 4, 1), nn.Linear(4 * 6 + 2, 2)
    save(small, tmp_path / "n")
    with pytest.raises(CheckpointError, match=r"tensors\.head\.weight\.shape: got \[2, 26\].*other classes"):
        load(Flat(), tmp_path / "n")
