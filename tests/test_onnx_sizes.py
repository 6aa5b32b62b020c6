"""Sizes, widths and numbers of an ONNX file: right far from the example, or fixed with a word, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_models import check, shapes
from sparsernn.surgery.onnx import export_onnx, verify
from sparsernn.surgery.onnx.sizes import free_axes, resized

onnx = pytest.importorskip("onnx")


class Tagger(nn.Module):
    """`before` and `after` the layer, whatever they do."""

    def __init__(
        self, after: Callable[..., Any] = lambda y: y, before: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)
        self.before, self.after = before, after

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        return self.after(self.fc(self.rnn(self.before(x))[0]), *more)


def last_twenty(y: Tensor) -> Tensor:
    return y[:, -20:] if y.shape[1] > 20 else y


def halves(y: Tensor) -> Tensor:
    return y if y.shape[1] > 4 else y * 2


def single(y: Tensor) -> Tensor:
    return y * 2 if y.shape[0] == 1 else y


def number_of_steps(y: Tensor) -> Tensor:
    return y * int(y.shape[1])


def repeated(y: Tensor) -> Tensor:
    return torch.stack([y[:, n] for n in range(y.shape[1])], 1)


def pooled(y: Tensor) -> Tensor:
    return functional.max_pool1d(y.transpose(1, 2), y.shape[1])


def long(y: Tensor) -> Tensor:
    return y * len(y)


@pytest.mark.parametrize("after", [last_twenty, halves, single, number_of_steps, repeated, pooled, long])
def test_numbers_made_of_sizes_are_refused_with_size_and_line(after, tmp_path):
    """Whether they show at twice the length, at half of it, at a batch of one or at any other size."""
    torch.manual_seed(0)
    model = Tagger(after).eval()
    with pytest.raises(ValueError, match=r"on (a (time|batch) of \d+|the example)") as caught:
        export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 10, 4))
    message = str(caught.value)
    assert "dynamic=False" in message and len(message.splitlines()) <= 3 and not list(tmp_path.iterdir())
    assert "test_onnx_sizes.py:" in message  # torch's tracer says which line
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 10, 4), dynamic=False)
    assert shapes(tmp_path / "m.onnx") == {"x": [2, 10, 4]}
    check(tmp_path / "m.onnx", model, torch.randn(2, 10, 4))


def test_a_branch_on_a_size_that_no_check_reaches_is_a_warning(tmp_path):
    model = Tagger(lambda y: y * 2 if y.shape[1] > 5000 else y)
    with pytest.warns(UserWarning, match="test_onnx_sizes.py:.* a branch depends on a size"):
        export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 10, 4))


def test_an_axis_that_torch_cannot_change_is_fixed_with_its_reason(tmp_path):
    class Flattened(Tagger):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(30, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0].flatten(1))

    with pytest.warns(UserWarning, match=r"time .axis 1 of x. is fixed at 5.*\n.*cannot be multiplied"):
        export_onnx(Flattened(), tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert shapes(tmp_path / "m.onnx") == {"x": ["batch", 5, 4]}


def test_lengths_in_steps_are_dynamic(tmp_path):
    """A model that takes multiples of four only."""
    torch.manual_seed(0)
    model = Tagger(before=lambda x: x.unflatten(1, (-1, 4)).mean(2)).eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 8, 4))
    assert shapes(tmp_path / "m.onnx")["x"][:2] == ["batch", "time"]
    check(tmp_path / "m.onnx", model, torch.randn(3, 20, 4))


def test_a_batch_that_only_broadcasts_in_the_example_is_one_axis(tmp_path):
    torch.manual_seed(0)
    model = Tagger(lambda y, gain: y * gain[:, None]).eval()
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(1, 5, 4), torch.rand(1, 3)))
    assert [shape[0] for shape in shapes(tmp_path / "m.onnx").values()] == ["batch", "batch"]
    check(tmp_path / "m.onnx", model, torch.randn(3, 2, 4), torch.rand(3, 3))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_checks_are_in_proportion_to_inputs_and_outputs(scale, tmp_path):
    """Small inputs aren't drowned by noise; rounding of large logits is no dependence on the batch."""
    torch.manual_seed(0)
    model = Tagger(lambda y, mask: y * (mask * 1e5)[:, None, None], lambda x: x / scale).eval()
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(2, 5, 4) * scale, torch.tensor([True, False])))
    assert [shape[0] for shape in shapes(tmp_path / "m.onnx").values()] == ["batch", "batch"]
    check(tmp_path / "m.onnx", model, torch.randn(3, 9, 4) * scale, torch.tensor([True, True, False]), share=1e-4)


def test_small_outputs_are_compared_as_well():
    """A number that is wrong by a tenth is seen, however small it is: here a length that stays the example's."""
    from sparsernn.surgery.onnx.sizes import alike

    for scale in (1e-9, 1.0, 1e9):
        y = torch.randn(5, 3) * scale
        assert alike(y, y * (1 + 1e-6)) and not alike(y, y * 1.1) and not alike(y, y + 0.01 * scale)
    assert not alike(torch.full((2,), torch.nan), torch.full((2,), torch.nan))


def test_nan_is_refused_with_the_module_where_it_arose(tmp_path):
    model = Tagger()
    with torch.no_grad():
        model.fc.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN on the example, first in .*fc \(Linear\)"):
        export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))


def test_many_states_that_share_a_batch_are_one_set_of_axes():
    """Also where time and batch of the example are both one."""
    rows = [torch.zeros(1, 2 + n) for n in range(9)]
    x = torch.ones(1, 1, 5)

    def attempt(values: Any) -> Any:
        batch = {len(row) for row in values[1:]} | {values[0].shape[1]}
        return (values[0] * 2,) if len(batch) == 1 and values[0].shape[2] == 5 else ValueError("sizes")

    found = free_axes([x, *rows], attempt)
    assert [set(one.axes) for one in found] == [{(0, 0)}, {(0, 1), *((n, 0) for n in range(1, 10))}]


def test_lengths_follow_the_size_of_their_axis():
    x, lengths = torch.zeros(2, 6, 3), torch.tensor([6, 2])
    for size, want in ((12, [12, 2]), (3, [3, 2]), (1, [1, 1])):
        values = resized([x, lengths], [([(0, 1)], size)])
        assert values[0].shape == (2, size, 3) and values[1].tolist() == want


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0]
        return self.encoder(y + self.attention(y, y, y)[0])


@pytest.mark.parametrize("dynamic", [True, False])
def test_attention_after_a_recurrent_layer_is_exported(dynamic, tmp_path):
    torch.manual_seed(0)
    model = Attention().eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4), dynamic=dynamic)
    check(tmp_path / "m.onnx", model, torch.randn(3, 11, 4) if dynamic else torch.randn(2, 5, 4))


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return functional.fold(self.rnn(x)[0].transpose(1, 2), (8, 1), (4, 1))


def test_all_checked_sizes_together_take_no_longer_than_the_limit(tmp_path, monkeypatch):
    """The nearest come first. Time goes by one second a look at the clock, so a run of the example takes one."""
    seconds, runs = itertools.count(), []
    monkeypatch.setattr(verify.time, "perf_counter", lambda: next(seconds))
    compare = verify.Check._compare
    monkeypatch.setattr(
        verify.Check, "_compare", lambda self, what, values: runs.append(values[0].shape) or compare(self, what, values)
    )
    export_onnx(Tagger(), tmp_path / "m.onnx", torch.randn(2, 6, 4))
    costs = [max(now / then for now, then in zip(shape[:2], (2, 6)) if now != then) for shape in runs[2:]]
    assert costs == sorted(costs) and 10 < sum(costs) <= verify.SECONDS
    assert {(1, 6), (2, 3), (3, 6), (2, 13)} < {(batch, time) for batch, time, _ in runs}


def test_an_operation_of_a_newer_opset_says_which(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="Pass opset=18"):
        export_onnx(Folded(), tmp_path / "m.onnx", torch.randn(2, 5, 4), dynamic=False)
    with pytest.warns(UserWarning, match=r"time .* is fixed at 5"):
        export_onnx(Folded(), tmp_path / "m.onnx", torch.randn(2, 5, 4), opset=18)
    assert {entry.version for entry in onnx.load(tmp_path / "m.onnx").opset_import if not entry.domain} == {18}
    for wrong in (12, 21, 17.5, "17"):
        with pytest.raises(ValueError, match="expected 13 to 20"):
            export_onnx(Folded(), tmp_path / "m.onnx", torch.randn(2, 5, 4), opset=wrong)  # type: ignore[arg-type]
