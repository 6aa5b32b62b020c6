"""Sizes, widths and numbers of an ONNX file: right far from the example, or fixed with a word, or refused."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

import sparsernn as srn
from sparsernn.surgery.onnx import export_onnx, verify
from sparsernn.surgery.onnx.sizes import free_axes, resized

ort = pytest.importorskip("onnxruntime")
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


def session(path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def shapes(path) -> dict[str, list]:
    return {given.name: given.shape for given in session(path).get_inputs()}


def check(path, model: nn.Module, *values: Tensor) -> None:
    run = session(path)
    got = run.run(None, {given.name: value.numpy() for given, value in zip(run.get_inputs(), values, strict=True)})[0]
    with torch.no_grad():
        want = model(*values)
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


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
    check(tmp_path / "m.onnx", model, torch.randn(3, 9, 4) * scale, torch.tensor([True, True, False]))


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


class Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv1d(4, 5, 3), cell

    def forward(self, x: Tensor) -> Any:
        return self.cell(self.conv(x).squeeze(2))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_after_a_convolution_is_exported(kind, tmp_path):
    torch.manual_seed(0)
    export_onnx(Cells(kind(5, 6)), tmp_path / "m.onnx", torch.randn(2, 4, 3))


class LowRank(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(len(weight), 2)), nn.Parameter(torch.randn(2, weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * self.a @ self.b


class DropsWeights(nn.Module):
    """Weight drop: the raw weight is a parameter of the wrapper, and each call writes the layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 6, batch_first=True)
        self.raw = nn.Parameter(self.rnn.weight_hh_l0.detach() * 2)
        del self.rnn._parameters["weight_hh_l0"]

    def forward(self, x: Tensor) -> Tensor:
        self.rnn.weight_hh_l0 = functional.dropout(self.raw, 0.5, self.training)
        return self.rnn(x)[0]


def parametrized(change: Callable[[Tagger], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = Tagger()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own word on the older forms
            change(model)
        return model

    return make


COMPUTED = {
    "weight norm": parametrized(lambda m: parametrizations.weight_norm(m.rnn, "weight_hh_l0")),
    "older weight norm": parametrized(lambda m: nn.utils.weight_norm(m.rnn, "weight_ih_l0")),
    "spectral norm": parametrized(lambda m: parametrizations.spectral_norm(m.fc)),
    "spectral norm of the layer": parametrized(lambda m: parametrizations.spectral_norm(m.rnn, "weight_hh_l0")),
    "orthogonal": parametrized(lambda m: parametrizations.orthogonal(m.fc)),
    "mask": parametrized(lambda m: prune.l1_unstructured(m.rnn, "weight_hh_l0", 0.5)),
    "mask of a head": parametrized(lambda m: prune.l1_unstructured(m.fc, "weight", 0.5)),
    "low rank": parametrized(
        lambda m: parametrize.register_parametrization(m.rnn, "weight_hh_l0", LowRank(m.rnn.weight_hh_l0))
    ),
    "weight drop": DropsWeights,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed_are_exported_as_they_are_now(name, tmp_path):
    """Also after a step of training, which leaves tensors with a history on the layer; the model stays as it was."""
    torch.manual_seed(0)
    model = COMPUTED[name]()
    model(torch.randn(2, 5, 4)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    kinds, keys = [type(m) for m in model.modules()], list(model.state_dict())
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert [type(m) for m in model.modules()] == kinds and list(model.state_dict()) == keys
    check(tmp_path / "m.onnx", model.eval(), torch.randn(3, 9, 4))


def lazy() -> nn.Module:
    model = Tagger()
    model.fc = nn.LazyLinear(3)
    return model


def scripted_part() -> nn.Module:
    model = Plain()
    model.fc = torch.jit.script(model.fc)  # type: ignore[assignment]
    return model


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, dtype=torch.qint8)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class TrainGivesNone(Plain):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: srn.accelerate(Plain().eval()), "before accelerate"),
        (lambda: torch.jit.script(Plain()), "torch.jit"),
        (lambda: torch.jit.trace(Plain().eval(), torch.randn(2, 5, 4)), "torch.jit"),
        (scripted_part, "fc is compiled by torch.jit"),
        (quantized, "fc is quantized by torch"),
        (lambda: Plain().to("meta"), "rnn.weight_ih_l0 is on the meta device"),
        (lazy, "fc.weight has no size yet"),
        (lambda: Plain().half(), "float16"),
    ],
)
def test_models_without_an_onnx_form_get_what_to_export_in_their_place(make, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        export_onnx(make(), tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())


class ReadsData(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.data)


def test_the_data_of_an_input_is_the_input(tmp_path):
    torch.manual_seed(0)
    model = ReadsData().eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))
    check(tmp_path / "m.onnx", model, torch.randn(3, 9, 4))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: m])
def test_wrapped_models_are_exported_as_what_is_inside(wrap, tmp_path):
    export_onnx(wrap(TrainGivesNone()), tmp_path / "m.onnx", torch.randn(2, 5, 4), dynamic=False)
    assert shapes(tmp_path / "m.onnx") == {"x": [2, 5, 4]}
