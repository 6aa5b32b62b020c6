"""An ONNX file holds nothing frozen unsaid: no random number, none that Python read out of an input, no length."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import sparsernn as srn
from onnx_models import session
from sparsernn.surgery.attachments import attachments
from sparsernn.surgery.onnx import export_onnx


class Noisy(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.rnn, self.draw = nn.GRU(3, 4), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] * self.draw(x)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda x: torch.randn(4), "random numbers .randn at test_onnx_inputs.py"),
        (lambda x: nn.functional.dropout(x.new_ones(4), 0.5), "random numbers"),
        (lambda x: torch.bernoulli(x.new_full((4,), 0.5)) + 1, "random numbers .bernoulli"),
        (lambda x: torch.manual_seed(1) and torch.randn(4), "randn at test_onnx_inputs.py"),
        (lambda x: random.random(), "other outputs each time"),
    ],
)
def test_random_numbers_in_eval_mode_are_refused(draw, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_onnx(Noisy(draw), tmp_path / "m.onnx", torch.randn(5, 2, 3))


class InPlace(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.mul_(2.0))[0]


def test_an_input_that_is_changed_in_place_is_named_and_stays_as_it_is(tmp_path):
    torch.manual_seed(0)
    model, x = InPlace(lambda x: 1.0).eval(), torch.randn(5, 2, 3)
    with pytest.warns(UserWarning, match="changes x in place"):
        export_onnx(model, tmp_path / "m.onnx", x)
    got = session(tmp_path / "m.onnx").run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), model(x.clone()), rtol=0, atol=1e-5)


# Numbers that Python reads


class Reads(nn.Module):
    def __init__(self, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.rnn, self.read = nn.GRU(3, 4, batch_first=True), read

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.read(self.rnn(x)[0], lengths)


def branch(y: Tensor, lengths: Tensor) -> Tensor:
    return y * 2 if bool((y.abs() > 2).any()) else y


def item(y: Tensor, lengths: Tensor) -> Tensor:
    return y * (1.0 if lengths.max().item() > 3 else 2.0)


def listed(y: Tensor, lengths: Tensor) -> Tensor:
    return y * y.new_tensor([float(n) for n in lengths.tolist()]).mean()


def array(y: Tensor, lengths: Tensor) -> Tensor:
    return y + float(lengths.numpy().sum())


def equal(y: Tensor, lengths: Tensor) -> Tensor:
    return y + 1 if torch.equal(lengths, lengths.flip(0)) else y


@pytest.mark.parametrize("read", [branch, item, listed, array, equal])
def test_numbers_that_python_reads_out_of_inputs_are_refused_with_their_line(read, tmp_path):
    torch.manual_seed(0)
    line = read.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match=rf"test_onnx_inputs.py:{line}") as caught:
        export_onnx(Reads(read), tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())


def masked(y: Tensor, lengths: Tensor) -> Tensor:
    return y * float(lengths.numpy()[-1])


def test_an_example_of_equal_numbers_hides_no_constant(tmp_path):
    """A mask of ones, words that are all the first: the example's own numbers mixed would be the same."""
    for values in (torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="depend on lengths"):
            export_onnx(Reads(masked), tmp_path / "m.onnx", (torch.randn(2, 5, 3), values))


def checks(y: Tensor, lengths: Tensor) -> Tensor:
    assert bool((lengths > 0).all()), "empty"
    if bool((lengths > 1000).any()):
        raise ValueError("long")
    return y


def shortcut(y: Tensor, lengths: Tensor) -> Tensor:
    gone = torch.arange(y.shape[1])[None] >= lengths[:, None]
    return y.masked_fill(gone[..., None], 0.0) if bool(gone.any()) else y


@pytest.mark.parametrize("read", [checks, shortcut])
def test_assertions_and_shortcuts_do_no_harm(read, tmp_path):
    torch.manual_seed(0)
    export_onnx(Reads(read), tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))


# Packed sequences


class Padded(nn.Module):
    def __init__(self, change: bool, total: bool) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.change, self.total = change, total

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
        if self.change:
            packed = PackedSequence(self.fc(packed.data) + 1.0, *packed[1:])
        total = x.shape[1] if self.total else None
        return pad_packed_sequence(packed, batch_first=True, padding_value=-7.0, total_length=total)


@pytest.mark.parametrize(("change", "total"), [(False, False), (True, False), (False, True)])
def test_padding_has_its_value_and_its_length(change, total, tmp_path):
    """Also behind what was computed on packed data, and up to `total_length`."""
    torch.manual_seed(0)
    model = Padded(change, total).eval()
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([5, 3])))
    x, lengths = torch.randn(3, 9, 3), torch.tensor([2, 6, 1])
    got = session(tmp_path / "m.onnx").run(None, {"x": x.numpy(), "lengths": lengths.numpy()})
    with torch.no_grad():
        for a, b in zip(got, model(x, lengths), strict=True):
            torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=1e-5)


class Tagged(nn.Module):
    """Reads the final states by a view, which leaves adapters on the compacted layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 10), nn.LSTM(10, 16, batch_first=True, bidirectional=True)
        self.fc, self.fh = nn.Linear(32, 3), nn.Linear(32, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True)
        y, (h, _) = self.rnn(packed)
        y = pad_packed_sequence(y, batch_first=True)[0]
        return self.fc(y), self.fh(h.transpose(0, 1).contiguous().view(tokens.shape[0], -1))


def test_a_compacted_packed_layer_in_adapter_form_is_exported(tmp_path):
    torch.manual_seed(0)
    model, example = Tagged().eval(), (torch.randint(20, (2, 6)), torch.tensor([6, 4]))
    srn.Prune(model, example, 0.5, level="unit", score=srn.Magnitude(), scope="model").finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = srn.compact(model, example)
    assert "DenseWidths" in {type(one).__name__ for one in attachments(small.rnn)}
    export_onnx(small, tmp_path / "m.onnx", example)
