"""What surgery attached, edited by someone who signs the file again: every size is compared with the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import CheckpointError, load, save


class Reader(nn.Module):
    """Of six units the first two may go, and two words; `mode` decides what surgery has to leave behind."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode, self.width, self.rounds = mode, 6, 2
        self.words, self.lstm = nn.Embedding(5, 4, padding_idx=0), nn.LSTM(4, 6, batch_first=True)
        self.head, self.spare = nn.Linear(6, 3), nn.Linear(6, 2)
        self.sizes = {"width": 6}
        with torch.no_grad():
            self.lstm.weight_hh_l0[:, :2] = self.head.weight[:, :2] = self.spare.weight[:, :2] = 0
            self.words.weight[1:3] = 0

    def forward(self, tokens: Tensor, spare: bool = False) -> Tensor:
        x = self.words(tokens)
        zeros = x.new_zeros(1, len(x), self.width if self.mode == "attribute" else 6)
        y = self.lstm(x, (zeros, zeros))[0]
        if self.mode == "adapters":
            y = y + torch.zeros(self.sizes["width"])
        if self.mode == "attribute":
            y = y.view(len(x), -1, self.width)
        return self.spare(y) if spare else self.head(y)


TOKENS = torch.tensor([[1, 2, 3], [4, 0, 1]])
MODES = {
    "states": {"kept_states", "kept_words", "unreached"},
    "attribute": {"updated_widths", "kept_words"},
    "adapters": {"dense_widths", "kept_words"},
}


def small(mode: str) -> nn.Module:
    return srn.compact(Reader(mode).eval(), TOKENS, words=True)


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["sparsernn"]), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def numbers(value: Any) -> Iterator[Callable[[Any], None]]:
    """For every number in a JSON value a function that puts something else in its place."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if type(part) is int:
            yield lambda new, key=key: value.__setitem__(key, new)
        elif isinstance(part, (dict, list)):
            yield from numbers(part)


@pytest.mark.filterwarnings("ignore:.*no example reached")
@pytest.mark.parametrize("mode", MODES)
def test_a_number_that_is_no_size_of_the_model_is_refused(mode, tmp_path):
    path, model = tmp_path / "m", small(mode)
    save(model, path)
    header, tensors = opened(path)
    tags = {item["tag"] for items in header["attached"].values() for item in items}
    assert tags >= MODES[mode]
    kept = json.dumps(header["attached"])
    count = len(list(numbers(header["attached"])))
    assert count > 3
    for n in range(count):
        for odd in (10**11, (2**70, -1, 1.5, True, "6", [6])[n % 6]):
            header["attached"] = json.loads(kept)
            list(numbers(header["attached"]))[n](odd)
            _container.write_container(path, header, tensors)
            with pytest.raises(CheckpointError, match=r"attached\..*\.data: "):
                load(Reader(mode), path)
    header["attached"] = json.loads(kept)
    _container.write_container(path, header, tensors)
    assert torch.equal(load(Reader(mode).eval(), path)(TOKENS), model(TOKENS))


def dense(*axis: Any, **more: Any) -> dict[str, Any]:
    return {"tag": "dense_widths", "data": {"inputs": {}, "output": list(axis) or None, "states": None} | more}


FORGED = {
    "an output wider than the layer": ("head", dense(-1, 10**11, [0, 1, 2])),
    "an output with units left out": ("head", dense(-1, 3, [0, 1])),
    "an output of another dimension": ("head", dense(0, 3, [0, 1, 2])),
    "a unit twice": ("head", dense(-1, 3, [0, 1, 1])),
    "units in another order": ("head", dense(-1, 3, [2, 1, 0])),
    "an argument that there is not": ("head", dense(inputs={"1": [-1, 6, [0, 1, 2, 3, 4, 5]]})),
    "states of a linear layer": ("head", dense(states=[[[-1, 6, [0]]]])),
    "one state of an LSTM": ("lstm", dense(states=[[[-1, 6, [0, 1, 2, 3, 4, 5]]]])),
    "adapters of the whole model": ("", dense(-1, 3, [0, 1, 2])),
    "states of the whole model": ("", {"tag": "kept_states", "data": {"dense": [6], "kept": [[[0]]]}}),
    "states without rows": ("lstm", {"tag": "kept_states", "data": {"dense": [], "kept": []}}),
    "three states": ("lstm", {"tag": "kept_states", "data": {"dense": [6] * 3, "kept": [[[*range(6)]]] * 3}}),
    "states that lose units": ("lstm", {"tag": "kept_states", "data": {"dense": [6, 6], "kept": [[[0, 1]]] * 2}}),
    "a width that did not change": ("", {"tag": "updated_widths", "data": {"values": {"width": 4}}}),
    "a number that is no width": ("", {"tag": "updated_widths", "data": {"values": {"rounds": 10**12}}}),
    "the number of layers": ("lstm", {"tag": "updated_widths", "data": {"values": {"num_layers": 1}}}),
    "training mode": ("", {"tag": "updated_widths", "data": {"values": {"training": 1}}}),
    "a method": ("", {"tag": "updated_widths", "data": {"values": {"forward": 1}}}),
    "words of a linear layer": (
        "head",
        {"tag": "kept_words", "data": {"rows": {"$tensor": ".attached.rows"}, "padding": 0}},
    ),
    "more words than there are": (
        "words",
        {"tag": "kept_words", "data": {"rows": {"$tensor": ".attached.rows"}, "padding": 0}},
    ),
    "words that are a weight": (
        "words",
        {"tag": "kept_words", "data": {"rows": {"$tensor": "head.bias"}, "padding": 0}},
    ),
    "a guard of another width": ("head", {"tag": "unreached", "data": {"path": "head", "width": 7}}),
    "a guard of a layer that reads nothing": ("words", {"tag": "unreached", "data": {"path": "words", "width": 0}}),
    "a guard of a layer without a width": ("words", {"tag": "unreached", "data": {"path": "x", "width": 7}}),
}


@pytest.mark.parametrize("name", FORGED)
def test_attachments_that_do_not_fit_the_model_are_refused(name, tmp_path):
    place, item = FORGED[name]
    path = tmp_path / "m"
    save(Reader("states"), path)
    header, tensors = opened(path)
    header["attached"] = {place: [item]}
    _container.write_container(path, header, tensors | {".attached.rows": torch.zeros(9, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=rf"attached\.{place}\[0\]\.data: "):
        load(Reader("states"), path)


def test_an_attachment_stands_once(tmp_path):
    path = tmp_path / "m"
    save(Reader("states"), path)
    header, tensors = opened(path)
    header["attached"] = {"head": [{"tag": "unreached", "data": {"path": "head", "width": 6}}] * 2}
    _container.write_container(path, header, tensors)
    with pytest.raises(CheckpointError, match=r"attached\.head\[1\]\.tag: unreached stands twice"):
        load(Reader("states"), path)


class Folded(nn.Module):
    """The reader takes the units three at a time, so that only adapters fit; others read them in branches not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(3, 2)
        self.linear, self.rnn, self.cell, self.conv = (
            nn.Linear(6, 2),
            nn.GRU(6, 2, batch_first=True),
            nn.GRUCell(6, 2),
            nn.Conv1d(6, 2, 1),
        )
        with torch.no_grad():
            self.lstm.weight_hh_l0[:, [0, 3]] = self.head.weight[:, :1] = 0

    def forward(self, x: Tensor, branch: str = "") -> Tensor:
        y = self.lstm(x)[0]
        y = {"": y.reshape(len(x), -1, 3), "cell": y[:, 0], "conv": y.mT}.get(branch, y)
        return getattr(self, branch or "head")(y)


@pytest.mark.filterwarnings("ignore:.*no example reached")
@torch.no_grad()
def test_branches_that_no_example_took_are_still_refused_after_load(tmp_path):
    path, x = tmp_path / "m", torch.randn(2, 6, 4)
    model = srn.compact(Folded().eval(), x)
    assert model.lstm.hidden_size == 4
    save(model, path)
    again = load(Folded().eval(), path)
    assert torch.equal(again(x), model(x))
    for branch in ("linear", "rnn", "cell", "conv"):
        for one in (model, again):
            with pytest.raises(RuntimeError, match=f"{branch} .*\n?.*Compact again"):
                one(x, branch)
