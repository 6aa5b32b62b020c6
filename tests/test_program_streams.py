"""Streams of models that are no chain: the model's own inputs and outputs, step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from program_models import STREAMS
from program_networks import Function
from program_steps import STEPS
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.program.stream import ProgramStream


class Gated(nn.Module):
    """Two inputs by name, two outputs in a dict, a normalised residual."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, gain: Tensor) -> dict[str, Tensor]:
        y = self.norm(x + self.rnn(x)[0]) * gain[:, None]
        return {"y": y, "logits": self.head(y)}


class Ahead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 5, padding=2, stride=2)
        self.rnn = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))[0]


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 7)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = self.cell(x, state)
        return h * 2, (h, c)


@pytest.mark.parametrize("batch", (1, 3))
def test_inputs_and_outputs_are_the_models(batch: int) -> None:
    torch.manual_seed(0)
    model = Gated().eval()
    x, gain = torch.randn(2, 30, 6), torch.rand(2, 6)
    stream = accelerate(model).stream(batch, example=(x, gain), time={"x": 1, "gain": None})
    assert isinstance(stream, ProgramStream) and stream.every == 1 and stream.delay == 0
    x, gain = torch.randn(batch, 30, 6), torch.rand(batch, 6)
    want = model.double()(x.double(), gain.double())
    for _ in range(2):
        for t in range(30):
            got = stream.step(x[:, t], gain=gain) if t % 2 else stream.step(x[:, t].contiguous(), gain)
            assert list(got) == ["y", "logits"]
            assert all((got[key] - want[key][:, t]).abs().max() <= 1e-5 for key in got)
        stream.reset()
    with pytest.raises(TypeError, match="expected x, gain"):
        stream.step(x[:, 0], gian=gain)


def test_outputs_that_are_late_and_rare() -> None:
    torch.manual_seed(1)
    model = Ahead().eval()
    with pytest.raises(RuntimeError, match=r"Ahead can't run step by step: .*pass delay=\d"):
        accelerate(model).stream(example=torch.randn(1, 20, 4))
    stream = accelerate(model).stream(example=torch.randn(1, 20, 4), delay=2)
    x = torch.randn(1, 40, 4)
    found = [y.clone() for t in range(40) if (y := stream.step(x[:, t])) is not None]
    want = model.double()(x.double())[:, : len(found)]
    assert stream.every == 2 and len(found) >= 19
    assert (torch.stack(found, 1) - want).abs().max() <= 1e-5


def test_states_that_are_given_and_handed_out() -> None:
    torch.manual_seed(2)
    model = Cell().eval()
    state = torch.zeros(1, 7), torch.zeros(1, 7)
    stream = accelerate(model).stream(example=(torch.randn(1, 3), state), states={"state": 1})
    exact = Cell().double().eval()
    exact.load_state_dict(model.state_dict())
    state = tuple(s.double() for s in state)
    for _ in range(20):
        x = torch.randn(1, 3)
        want, state = exact(x.double(), state)  # type: ignore[arg-type]
        y, _ = stream.step(x)
        assert (y - want).abs().max() <= 1e-5


def test_a_state_is_kept_assigned_and_looked_at() -> None:
    torch.manual_seed(3)
    stream = accelerate(Gated().eval()).stream(
        example=(torch.randn(1, 9, 6), torch.rand(1, 6)), time={"x": 1, "gain": None}
    )
    assert isinstance(stream, ProgramStream)
    x, gain = torch.randn(1, 6), torch.rand(1, 6)
    for _ in range(5):
        stream.step(x, gain)
    kept = stream.state
    y = stream.step(x, gain)["y"].clone()
    other = stream.another()
    other.state = kept
    assert torch.equal(other.step(x, gain)["y"], y) and int(stream.state["step"]) == 6
    assert all(not torch.equal(value, kept[name]) for name, value in stream.state.items())
    before = stream.state
    for wrong, why in (
        ({"rnn.q": x}, "is none of the states"),
        ({next(iter(kept)): torch.zeros(3)}, "expected a tensor"),
    ):
        with pytest.raises(ValueError, match=why):
            stream.state = wrong
    assert all(torch.equal(value, before[name]) for name, value in stream.state.items())
    assert "normalise" in stream.explain() and "test_program_streams.py" in stream.explain()


def test_who_writes_into_what_a_step_gave_changes_no_state_and_no_constant() -> None:
    torch.manual_seed(4)
    model = Function(lambda m, x: (m.g(x)[0], m.l.weight), g=nn.GRU(3, 4, batch_first=True), l=nn.Linear(2, 2)).eval()
    x = torch.randn(2, 12, 3)
    stream = accelerate(model).stream(2, example=x)
    want, weight = model(x)
    for t, frame in enumerate(x.unbind(1)):
        y, w = stream.step(frame)
        assert torch.allclose(y, want[:, t], atol=1e-6) and torch.equal(w, weight)
        y.fill_(torch.nan), w.zero_()


def test_a_chain_that_gives_more_than_its_end_and_states_gives_it_in_each_step() -> None:
    torch.manual_seed(5)
    x = torch.randn(2, 12, 3)
    parts = {"g": nn.GRU(3, 4, batch_first=True), "l": nn.Linear(4, 2)}
    model = Function(lambda m, x: (lambda y: (m.l(y), y))(m.g(x)[0]), **parts).eval()
    stream, want = accelerate(model).stream(2, example=x), model(x)
    for t, frame in enumerate(x.unbind(1)):
        given = stream.step(frame)
        assert all(torch.allclose(a, b[:, t], atol=1e-6) for a, b in zip(given, want, strict=True))


def test_a_stream_is_opened_again_and_not_copied() -> None:
    stream = accelerate(Gated().eval()).stream(example=(torch.randn(1, 9, 6), torch.randn(1, 6)))
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"another\(\) opens a second one"):
            copied(stream)
    for number in (-1, 2.5):
        with pytest.raises(ValueError, match="a whole number from 0 on"):
            stream.state = {"step": torch.tensor(number)}
    with pytest.raises(TypeError, match="got list, expected a dict"):
        stream.state = []  # type: ignore[assignment]


def test_a_model_without_recurrent_layers_streams() -> None:
    """What kernels do not replace in whole calls is said; frame by frame, and a step without a state, as well."""
    torch.manual_seed(6)
    conv, x = nn.Conv1d(3, 4, 3).eval(), torch.randn(1, 3, 20)
    with pytest.warns(RuntimeWarning, match="Whole calls stay on torch"):
        fast = accelerate(conv)
    assert torch.equal(fast(x), conv(x))
    stream = fast.stream(example=x, time=2)
    steps = [y.clone() for frame in x.unbind(2) if (y := stream.step(frame)) is not None]
    assert torch.allclose(torch.stack(steps, 2), conv(x), atol=1e-5)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    for shape, states in (((1, 9, 3), None), ((1, 3), {})):
        stream = accelerate(net).stream(2, example=torch.randn(*shape), states=states)
        frame = torch.randn(2, 3)
        assert torch.allclose(stream.step(frame), net(frame), atol=1e-6)
    with pytest.raises(RuntimeError, match=r"is one step, name its states, or pass states=\{\}"):
        accelerate(net).stream(2, example=torch.randn(2, 3))


def test_layers_of_several_precisions_have_the_finest_in_a_program() -> None:
    torch.manual_seed(8)
    net, x = Gated().eval(), (torch.randn(1, 9, 6), torch.rand(1, 6))
    time = {"x": 1, "gain": None}
    mixed, plain, coarse = (
        accelerate(net, precision).stream(example=x, time=time)
        for precision in ({"rnn": "bfloat16", "*": "float32"}, "float32", "bfloat16")
    )
    same = [[s.step(x[0][:, t], x[1])["logits"].clone() for t in range(9)] for s in (mixed, plain, coarse)]
    assert all(map(torch.equal, same[0], same[1])) and not all(map(torch.equal, same[0], same[2]))


def test_a_stream_begins_with_the_state_that_the_model_was_given() -> None:
    torch.manual_seed(9)
    gru, x, h = nn.GRU(4, 5, batch_first=True).eval(), torch.randn(1, 9, 4), torch.randn(1, 1, 5)
    stream = accelerate(gru).stream(example=(x, h), time={"input": 1}, states={"hx": 1})
    for start in (h, torch.randn(1, 1, 5)):
        stream.reset()
        if start is not h:
            stream.state = {"h": start}
        y = [stream.step(frame)[0].clone() for frame in x.unbind(1)]
        assert torch.allclose(torch.stack(y, 1), gru(x, start)[0], atol=1e-5)
    with pytest.raises(RuntimeError, match="name it in states=, beside time="):
        accelerate(gru).stream(example=(x, h))
    with pytest.raises(ValueError, match="states names q, the model's inputs are input, hx"):
        accelerate(gru).stream(example=(x, h), time=1, states={"q": 1})


def test_symbols_that_a_model_computes_stay_inside_of_its_table() -> None:
    class Symbols(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.table((x * 10).long().clamp(0, 3)) + self.table((x * 0).long())

    net = Symbols().eval()
    with pytest.warns(RuntimeWarning, match="Whole calls stay on torch"):
        fast = accelerate(net)
    stream = fast.stream(example=torch.rand(1, 9), time=1)
    assert torch.allclose(stream.step(torch.tensor([0.21])), net(torch.tensor([[0.21]]))[:, 0])
    for wrong in (1e30, -1e30, torch.nan, torch.inf):
        assert stream.step(torch.tensor([wrong])).shape == (1, 3)


def test_a_sequence_without_a_batch_and_a_state_whose_rows_are_inside() -> None:
    torch.manual_seed(7)
    gru, x = nn.GRU(4, 5).eval(), torch.randn(12, 4)
    net = nn.Sequential(gru).eval()
    stream = accelerate(net).stream(example=x, time=0)
    steps = [stream.step(frame)[0].clone() for frame in x]
    assert torch.allclose(torch.stack(steps), gru(x)[0], atol=1e-5)


@pytest.mark.parametrize("name", ("chain", "TCN and GRU", "CRN", "policy"))
def test_some_rows_of_the_batch_start_anew(name: str) -> None:
    torch.manual_seed(4)
    if name == "chain":
        model, example, shape, options = nn.LSTM(5, 6, 2), torch.randn(9, 3, 5), (5,), {}
    else:
        make, given, *rest = {**STREAMS, **STEPS}[name]
        model, example = make(), given()
        shape = {"TCN and GRU": (6,), "CRN": (1, 16), "policy": (4,)}[name]
        options = rest[0] if rest else {}
    batch = 2 if name == "policy" else 3  # its state has two rows
    others = [n for n in range(batch) if n != 1]
    fast = accelerate(model.eval())
    stream, fresh, other = (fast.stream(batch, example=example, **options) for _ in range(3))

    def outputs(y: object) -> list[Tensor]:
        return [leaf.clone() for leaf in tree_leaves(y)]

    for _ in range(11):
        stream.step(torch.randn(batch, *shape))
    other.state = stream.state  # type: ignore[assignment]
    stream.reset([n == 1 for n in range(batch)])
    for _ in range(11):
        x = torch.randn(batch, *shape)
        for got, begun, on in zip(*(outputs(s.step(x)) for s in (stream, fresh, other))):
            assert torch.equal(got[1], begun[1]) and torch.equal(got[others], on[others])
    for wrong in ([True] * (batch + 1), torch.zeros(batch, dtype=torch.int64)):
        with pytest.raises(ValueError, match=rf"expected \({batch},\) bool"):
            stream.reset(wrong)


def test_rows_that_share_a_clock_start_anew_together() -> None:
    stream = accelerate(Ahead().eval()).stream(2, example=torch.randn(2, 20, 4), delay=2)
    with pytest.raises(ValueError, match="the same for all rows"):
        stream.reset([True, False])


def test_parts_of_the_features_by_narrow() -> None:
    torch.manual_seed(0)
    rnn = nn.GRU(3, 6, batch_first=True)
    model = Function(lambda m, x: m.rnn(x.narrow(-1, 1, 3))[0].narrow(-1, 0, 4), rnn=rnn).eval()
    x = torch.randn(1, 9, 5)
    stream = accelerate(model).stream(1, example=x)
    found = [stream.step(part).clone() for part in x.unbind(1)]
    torch.testing.assert_close(torch.stack(found, 1), model(x).detach(), rtol=0, atol=1e-5)
