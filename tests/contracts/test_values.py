"""What follows from zeros on the way in: units whose value is always zero go, gates that read nothing are constant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import difference, renew, run
from .compacted import quiet_compact, widths

HIDDEN, INPUT = 5, 3
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}
CANDIDATE = {"LSTM": "g", "GRU": "n", "RNN": "h"}
CASES = [(kind, gate) for kind, gates in GATES.items() for gate in gates]


class Net(nn.Module):
    """A layer, something between, a head; the first state is the caller's, if there is one."""

    def __init__(self, kind: str = "LSTM", between: Callable[[Tensor], Tensor] = torch.tanh, layers: int = 1) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(INPUT, HIDDEN, layers)
        self.fc = nn.Linear(HIDDEN, 2)
        self.between = between

    def forward(self, x, state=None):
        return self.fc(self.between(self.rnn(x, state)[0]))


def made(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    renew(model)
    return model.double().eval()


def inputs(time: int = 4, batch: int = 2) -> Tensor:
    return torch.randn(time, batch, INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def clear(rnn: nn.Module, kind: str, gate: str, units: list[int], biases: bool = True) -> None:
    """Zero the rows of one gate of `units`."""
    rows = [GATES[kind].index(gate) * HIDDEN + k for k in units]
    with torch.no_grad():
        for name, p in rnn.named_parameters():
            if biases or "weight" in name:
                p[rows] = 0.0


def dead(model: nn.Module, example, unit_set: str = "rnn.l0") -> list[int]:
    gone = trace(model, example).dead(dict(model.named_parameters()))[unit_set]
    return gone.nonzero()[:, 0].tolist()


@pytest.mark.smoke
@pytest.mark.parametrize(("kind", "gate"), CASES)
def test_a_unit_without_a_candidate_is_always_zero(kind, gate):
    """h stays at its first value, zero, if the candidate is zero at every step; no other gate does that."""
    model = made(Net(kind))
    clear(model.rnn, kind, gate, [1, 3])
    assert dead(model, inputs()) == ([1, 3] if gate == CANDIDATE[kind] else [])
    expected = run(model, inputs(6))
    small = quiet_compact(model, inputs())
    assert widths(small)["rnn.l0"] == HIDDEN - 2 * (gate == CANDIDATE[kind])
    assert difference(run(small, inputs(6)), expected) <= 1e-10


@pytest.mark.parametrize("kind", GATES)
def test_a_first_state_of_the_callers_is_no_zero(kind):
    model = made(Net(kind))
    clear(model.rnn, kind, CANDIDATE[kind], [1, 3])
    h = torch.randn(1, 2, HIDDEN, dtype=torch.float64)
    given = (inputs(), (h, h) if kind == "LSTM" else h)
    assert dead(model, given) == []
    assert dead(model, [inputs(), given]) == []
    assert dead(model, (inputs(), None)) == [1, 3]


@pytest.mark.parametrize(
    ("between", "stays_zero"),
    [
        (torch.relu, True),
        (lambda h: 2 * h, True),
        (lambda h: h.cumsum(0), True),
        (torch.sigmoid, False),
        (torch.cos, False),
        (lambda h: h + 1, False),
        (lambda h: h.exp(), False),
    ],
)
def test_zero_has_to_arrive_as_zero(between, stays_zero):
    model = made(Net("GRU", between))
    clear(model.rnn, "GRU", "n", [0, 4])
    assert dead(model, inputs()) == ([0, 4] if stays_zero else [])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.GRU(INPUT, HIDDEN), nn.GRU(INPUT, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, x):
        return self.fc(self.one(x)[0] + self.two(x)[0])


def test_tied_units_go_when_all_of_them_are_zero():
    model = made(Residual())
    clear(model.one, "GRU", "n", [1, 2])
    clear(model.two, "GRU", "n", [2, 3])
    assert dead(model, inputs(), "one.l0") == dead(model, inputs(), "two.l0") == [2]


def test_what_only_dead_units_read_is_dead_as_well():
    """Unit 2 of the upper layer has no readers, and is the only reader of unit 4 below."""
    model = made(Net(layers=2))
    rnn = model.rnn
    with torch.no_grad():
        model.fc.weight[:, 2] = 0.0
        rnn.weight_hh_l1[:, 2] = 0.0
        rnn.weight_hh_l0[:, 4] = 0.0
        rnn.weight_ih_l1.view(4, HIDDEN, HIDDEN)[:, [0, 1, 3, 4], 4] = 0.0
    assert rnn.weight_ih_l1[:, 4].any()
    found = trace(model, inputs()).dead(dict(model.named_parameters()))
    assert {name: gone.nonzero()[:, 0].tolist() for name, gone in found.items()} == {"rnn.l0": [4], "rnn.l1": [2]}


@pytest.mark.parametrize(("kind", "gate"), CASES)
def test_gates_that_read_nothing_are_constant(kind, gate):
    """act(bias), but for a GRU's n = tanh(b_in + r b_hn), which still sees r."""
    model = made(Net(kind))
    clear(model.rnn, kind, gate, [1, 3], biases=False)
    with torch.no_grad():  # that of unit 0 reads the input, that of unit 4 the state
        model.rnn.weight_hh_l0[GATES[kind].index(gate) * HIDDEN] = 0.0
        model.rnn.weight_ih_l0[GATES[kind].index(gate) * HIDDEN + 4] = 0.0
    found = trace(model, inputs()).constant_gates(dict(model.named_parameters()))["rnn.l0"]
    assert (kind, gate) == ("GRU", "n") or found[gate].nonzero()[:, 0].tolist() == [1, 3]
    assert not any(bool(mask.any()) for other, mask in found.items() if other != gate) and "n" not in found
    expected = run(model, inputs(6))
    folded = compact(model, inputs(), gates=True)
    assert folded.rnn.weight_ih_l0.shape[0] == len(GATES[kind]) * HIDDEN - 2
    assert difference(run(folded, inputs(6)), expected) <= 1e-10
