"""Every cell kind x layers x direction x bias x batch_first x proj_size, padded and packed, with random dead units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparsernn.nn import RHN
from sparsernn.surgery.compact import compact

from .architecture import difference, inside, inside_rhn, lengths_of, merge, reads, renew, run, set_slices
from .compacted import floor, quiet_compact, widths

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

KINDS = ["LSTM", "LSTM projected", "GRU", "RNN tanh", "RNN relu", "RHN"]
CELLS = ["LSTMCell", "GRUCell", "RNNCell tanh", "RNNCell relu"]
HIDDEN, PROJ, INPUT, DEPTH = 6, 4, 3, 2

fuzz = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # the cases are small as they are
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Net(nn.Module):
    """A recurrent module of any kind with a head; packed if lengths are given."""

    def __init__(self, kind: str, layers: int, bidirectional: bool, bias: bool, batch_first: bool):
        super().__init__()
        name, _, variant = kind.partition(" ")
        extra = {"projected": {"proj_size": PROJ}, "tanh": {"nonlinearity": "tanh"}, "relu": {"nonlinearity": "relu"}}
        options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, **extra.get(variant, {})}
        if name == "RHN":
            self.rnn = RHN(INPUT, HIDDEN, DEPTH, layers, **options)
        else:
            self.rnn = getattr(nn, name)(INPUT, HIDDEN, layers, **options)
        width = PROJ if variant == "projected" else HIDDEN
        self.fc = nn.Linear(width * (1 + bidirectional), 2)
        self.batch_first = batch_first

    def forward(self, x, lengths=None, state=None):
        if lengths is None:
            return self.fc(self.rnn(x, state)[0])
        packed = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted=False)
        return self.fc(pad_packed_sequence(self.rnn(packed, state)[0], self.batch_first)[0])


def example(net: Any, batch: int, length: int, packed: bool, with_state: bool) -> tuple[Any, ...]:
    torch.manual_seed(batch * 10 + length)
    x = torch.randn(*((batch, length) if net.batch_first else (length, batch)), INPUT, dtype=torch.float64)
    rows = net.rnn.num_layers * (1 + net.rnn.bidirectional)
    h = torch.randn(rows, batch, net.rnn.proj_size or HIDDEN, dtype=torch.float64)
    c = torch.randn(rows, batch, HIDDEN, dtype=torch.float64)
    state = None if not with_state else (h, c) if isinstance(net.rnn, nn.LSTM) else h
    return x, lengths_of(batch, length) if packed else None, state


@pytest.mark.counts("cells", 6)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
@fuzz
@given(data=st.data())
def test_dead_units_leave_and_nothing_else_changes(kind, layers, bidirectional, data):
    bias, batch_first, packed, with_state = (
        data.draw(st.booleans(), label=name) for name in ("bias", "batch_first", "packed", "with_state")
    )
    torch.manual_seed(data.draw(st.integers(0, 999), label="seed"))
    net = Net(kind, layers, bidirectional, bias, batch_first).double().eval()
    renew(net)
    proj = PROJ if kind == "LSTM projected" else 0
    end = ".projected" if proj else ""
    own = inside_rhn("rnn", HIDDEN, DEPTH, layers, bidirectional)
    readers = merge(
        own if kind == "RHN" else inside("rnn", HIDDEN, layers, bidirectional, proj),
        {f"rnn.l{layers - 1}{end}": [reads("fc.weight")]},
        {f"rnn.l{layers - 1}_reverse{end}": [reads("fc.weight", 1, proj or HIDDEN)]} if bidirectional else {},
    )
    dead = {
        name: data.draw(st.sets(st.integers(0, (PROJ if name.endswith("projected") else HIDDEN) - 1)), label=name)
        for name in readers
    }
    parameters = dict(net.named_parameters())
    for name, units in dead.items():
        set_slices(parameters, [one for k in units for read in readers[name] for one in read.slices(k)], 0.0)
    examples = [example(net, *size, packed, with_state) for size in ((3, 5), (1, 2), (4, 7))]
    expected = [run(net, one) for one in examples]
    small = (compact if any(dead.values()) else quiet_compact)(net, examples[0])
    for one, theirs in zip(examples, expected):
        assert difference(run(small, one), theirs) <= 1e-10
    before, after = widths(net), widths(small)
    # What is always zero may go as well: projections of cells that are all dead, and without a bias layers whose
    # whole input is dead.
    used_up = any(len(units) == before[name] for name, units in dead.items())
    cascade = used_up and (proj or not (bias or with_state))
    for name, width in before.items():
        expected_width = max(floor(after, name), width - len(dead[name]))
        assert 1 <= after[name] <= expected_width if cascade else after[name] == expected_width


@pytest.mark.parametrize("layers", [1, 2])
def test_one_direction_loses_projected_units(layers):
    """The cells keep one width everywhere; only what they are projected to differs."""
    torch.manual_seed(0)
    net = Net("LSTM projected", layers, True, True, False).double().eval()
    renew(net)
    readers = [("fc.weight", 1, PROJ + 1), (f"rnn.weight_hh_l{layers - 1}_reverse", 1, 1)]
    set_slices(dict(net.named_parameters()), readers, 0.0)
    one = example(net, 3, 5, True, True)
    small: Any = compact(net, one)
    assert small.rnn.hidden_sizes == ((HIDDEN, HIDDEN),) * layers
    assert small.rnn.proj_sizes == ((PROJ, PROJ),) * (layers - 1) + ((PROJ, PROJ - 1),)
    assert difference(run(small, one), run(net, one)) <= 1e-10


class CellNet(nn.Module):
    def __init__(self, kind: str, bias: bool):
        super().__init__()
        name, _, nonlinearity = kind.partition(" ")
        self.cell = getattr(nn, name)(INPUT, HIDDEN, bias, **({"nonlinearity": nonlinearity} if nonlinearity else {}))
        self.fc = nn.Linear(HIDDEN, 2)

    def forward(self, x, state=None):
        outs = []
        for x_t in x:
            state = self.cell(x_t, state)
            outs.append(self.fc(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outs)


@pytest.mark.counts("cells", 6)
@pytest.mark.parametrize("kind", CELLS)
@fuzz
@given(
    bias=st.booleans(),
    with_state=st.booleans(),
    dead=st.sets(st.integers(0, HIDDEN - 1)),
    seed=st.integers(0, 999),
)
def test_dead_units_of_cells_leave(kind, bias, with_state, dead, seed):
    torch.manual_seed(seed)
    net = CellNet(kind, bias).double().eval()
    renew(net)
    slices = [(name, 1, k) for k in dead for name in ("cell.weight_hh", "fc.weight")]
    set_slices(dict(net.named_parameters()), slices, 0.0)

    def inputs(batch: int, length: int) -> tuple[Any, ...]:
        h, c = torch.randn(2, batch, HIDDEN, dtype=torch.float64)
        state = None if not with_state else (h, c) if kind == "LSTMCell" else h
        return torch.randn(length, batch, INPUT, dtype=torch.float64), state

    examples = [inputs(3, 4), inputs(1, 6)]
    expected = [run(net, one) for one in examples]
    small = (compact if dead else quiet_compact)(net, examples[0])
    for one, theirs in zip(examples, expected):
        assert difference(run(small, one), theirs) <= 1e-10
    assert widths(small)["cell"] == max(1, HIDDEN - len(dead))
