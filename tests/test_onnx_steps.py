"""States in an ONNX file: inputs and outputs of every step, and none that the model keeps to itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from onnx_models import inputs_of, session
from sparsernn.nn.ragged import RaggedState
from sparsernn.surgery.onnx import export_onnx
from sparsernn.surgery.onnx.nest import nest


class Step(nn.Module):
    def __init__(self, rnn: nn.Module, tupled: bool = False) -> None:
        super().__init__()
        self.rnn, self.fc, self.tupled = rnn, nn.Linear(16, 3), tupled

    def forward(self, x: Tensor, *states: Any):
        given = states[0] if self.tupled or len(states) == 1 else states
        if isinstance(self.rnn, nn.RNNCellBase):
            state = self.rnn(x, given)
            y = state if isinstance(state, Tensor) else state[0]
        else:
            y, state = self.rnn(x[None], given)
            y = y[0]
        return (self.fc(y), state) if self.tupled or not isinstance(state, tuple) else (self.fc(y), *state)


def flat(value: Any) -> list[Tensor]:
    return [leaf.value for leaf in nest("", value).tensors()]


def check_steps(path, model: nn.Module, x: Tensor, states: tuple, steps: int = 5) -> None:
    """The file, fed with the states that it gives, computes what the model does, fed with its own."""
    run = session(path)
    names = [given.name for given in run.get_inputs()]
    kept = [torch.zeros([d if isinstance(d, int) else len(x) for d in given.shape]) for given in run.get_inputs()[1:]]
    with torch.no_grad():
        for _ in range(steps):
            x = torch.randn_like(x)
            y, *states = model(x, *states)
            got = run.run(None, dict(zip(names, (value.numpy() for value in (x, *kept)), strict=True)))
            want = [y, *flat(states)]
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=1e-5)
            kept = [torch.from_numpy(value) for value in got[1:]]


STEPS = {
    "LSTM": (lambda: Step(nn.LSTM(4, 16, 2)), ((2, 16), (2, 16))),
    "GRU": (lambda: Step(nn.GRU(4, 16, 2)), ((2, 16),)),
    "one layer": (lambda: Step(nn.LSTM(4, 16)), ((1, 16), (1, 16))),
    "tuple": (lambda: Step(nn.LSTM(4, 16, 2), tupled=True), (((2, 16), (2, 16)),)),
    "LSTMCell": (lambda: Step(nn.LSTMCell(4, 16)), ((16,), (16,))),
}


def zeros(shape: Any, batch: int = 1) -> Any:
    if isinstance(shape[0], tuple):
        return tuple(zeros(one, batch) for one in shape)
    return torch.zeros(*shape[:-1], batch, shape[-1])


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_a_file_is_called_step_by_step_with_the_states_it_gives(name, compacted, tmp_path):
    """Plain, and compacted with carried states from the old example: widths are those of the layers that are left."""
    torch.manual_seed(0)
    make, shapes = STEPS[name]
    model = make().eval()
    states = tuple(map(zeros, shapes))
    example = (torch.randn(1, 4), *states)
    if compacted:
        srn.Prune(model, example, 0.5, level="unit", carried_states=True, scope="model").finish()
        model = srn.compact(model, example, carried_states=True)
    export_onnx(model, tmp_path / "m.onnx", example)
    for batch in (1, 3):
        check_steps(tmp_path / "m.onnx", model, torch.randn(batch, 4), tuple(zeros(s, batch) for s in shapes))


def test_rows_of_a_ragged_state_are_one_input_each(tmp_path):
    torch.manual_seed(0)
    model = Step(srn.nn.RaggedLSTM(4, [7, 16])).eval()
    state = RaggedState([torch.zeros(1, 7), torch.zeros(1, 16)])
    export_onnx(model, tmp_path / "m.onnx", (torch.randn(1, 4), state, state))
    assert inputs_of(tmp_path / "m.onnx") == ["x", "states_0_0", "states_0_1", "states_1_0", "states_1_1"]
    check_steps(tmp_path / "m.onnx", model, torch.randn(1, 4), (state, state))


class OwnState(nn.Module):
    """Keeps its state from call to call: `where` says how."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.rnn, self.where, self.calls = nn.GRU(3, 4), where, 0
        self.register_buffer("hidden", torch.zeros(1, 1, 4))
        self.frozen = nn.Parameter(torch.zeros(1, 1, 4), requires_grad=False)
        self.kept: Any = None
        self.nested: dict[str, list[Any]] = {"states": []}

    def forward(self, x: Tensor, memory: Any = None) -> Tensor:
        if self.where == "buffer in place":
            y, h = self.rnn(x, self.hidden)
            self.hidden[:] = h
        elif self.where == "attribute":
            y, self.kept = self.rnn(x, self.kept)
        elif self.where == "list":
            y, h = self.rnn(x, self.nested["states"][-1] if self.nested["states"] else None)
            self.nested["states"].append(h)
        elif self.where == "parameter":
            y, h = self.rnn(x, self.frozen)
            self.frozen.data.copy_(h)
        elif self.where == "number":
            self.calls += 1
            y = self.rnn(x)[0] * self.calls
        else:  # an argument that can hold tensors
            y, memory["h"] = self.rnn(x, memory.get("h"))
        return y


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("buffer in place", "hidden"),
        ("attribute", "kept"),
        ("list", "nested"),
        ("number", "calls"),
        ("parameter", "frozen"),
    ],
)
def test_a_state_that_the_model_keeps_is_refused_by_name(where, names, tmp_path):
    torch.manual_seed(0)
    model = OwnState(where).eval()
    with pytest.raises(
        ValueError, match=rf"{names} changes in forward.*\n.*argument of forward and return it"
    ) as caught:
        export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 1, 3))
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())
    assert model.kept is None and model.calls == 0 and not model.hidden.any()


def test_a_state_put_into_an_argument_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="puts tensors into its argument memory"):
        export_onnx(OwnState("argument"), tmp_path / "m.onnx", {"x": torch.randn(5, 1, 3), "memory": {}})


class Remembers(nn.Module):
    """What is kept for the user to look at, and never read again, does no harm."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.seen, self.count = nn.GRU(3, 4), [], 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.rnn(x)[0]
        self.seen.append(self.last)
        self.count += 1
        return self.last.tanh()


def test_what_a_model_only_stores_is_no_state(tmp_path):
    model = Remembers()
    model(torch.randn(5, 1, 3)).sum().backward()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 1, 3))
    assert inputs_of(tmp_path / "m.onnx") == ["x"] and model.count == 1
