"""Ragged stacks against torch's own: a dense module with zero-padded units is the oracle."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN, RaggedState

RAGGED = {"LSTM": RaggedLSTM, "GRU": RaggedGRU, "RNN": RaggedRNN}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def padded_dense(ragged) -> nn.Module:
    """torch's module at the largest width; units and projected units that `ragged` lacks are zero."""
    width = max(w for row in ragged.hidden_sizes for w in row)
    options = {"bias": ragged.bias, "batch_first": ragged.batch_first, "bidirectional": ragged.bidirectional}
    if ragged.kind == "RNN":
        options["nonlinearity"] = ragged.nonlinearity
    out = width
    if ragged.proj_sizes is not None:
        out = max(w for row in ragged.proj_sizes for w in row)
        width = max(width, out + 1)
        options["proj_size"] = out
    dense = getattr(nn, ragged.kind)(ragged.input_size, width, ragged.num_layers, **options).double()
    dense = dense.train(ragged.training)
    gates = GATES[ragged.kind]
    with torch.no_grad():
        for layer, ends in enumerate(ragged.suffixes()):
            columns = list(range(ragged.input_size))
            if layer:
                columns = [d * out + k for d, w in enumerate(ragged.output_widths(layer - 1)) for k in range(w)]
            for direction, end in enumerate(ends):
                own, kept = ragged.hidden_sizes[layer][direction], ragged.output_widths(layer)[direction]
                rows = [g * width + k for g in range(gates) for k in range(own)]
                places = {"weight_ih": (rows, columns), "weight_hh": (rows, range(kept)), "bias_ih": (rows,)}
                places |= {"bias_hh": (rows,), "weight_hr": (range(kept), range(own))}
                for name, place in places.items():
                    if hasattr(dense, name + end):
                        target = getattr(dense, name + end).zero_()
                        index = torch.meshgrid(*(torch.as_tensor(list(p)) for p in place), indexing="ij")
                        target[index] = getattr(ragged, name + end)
    return dense


def kept_columns(ragged, out: int) -> Tensor:
    widths = ragged.output_widths(ragged.num_layers - 1)
    return torch.tensor([d * out + k for d, w in enumerate(widths) for k in range(w)])


@st.composite
def stacks(draw, kinds=("LSTM", "GRU", "RNN")):
    kind = draw(st.sampled_from(kinds))
    directions = draw(st.sampled_from([1, 2]))
    layers = draw(st.integers(1, 3))

    def widths(high):
        return [tuple(draw(st.integers(1, high)) for _ in range(directions)) for _ in range(layers)]

    options = {
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": directions == 2,
        "dtype": torch.float64,
    }
    if kind == "LSTM" and draw(st.booleans()):
        options["proj_sizes"] = widths(4)
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    return RAGGED[kind](draw(st.integers(1, 4)), widths(5), **options)


def states_of(ragged, batch: int | None) -> tuple:
    """Random states as a RaggedState each, and the same padded to the dense widths."""
    shape = () if batch is None else (batch,)
    outputs = [w for layer in range(ragged.num_layers) for w in ragged.output_widths(layer)]
    cells = [w for row in ragged.hidden_sizes for w in row]
    widths = [outputs, cells] if ragged.kind == "LSTM" else [outputs]
    rows = [[torch.randn(*shape, w, dtype=torch.float64) for w in part] for part in widths]
    return tuple(RaggedState(part) for part in rows)


def widen(state: RaggedState, width: int) -> Tensor:
    return torch.stack([nn.functional.pad(row, (0, width - row.shape[-1])) for row in state])


def as_hx(kind: str, states: tuple):
    return states if kind == "LSTM" else states[0]


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def same_states(ragged, got, want) -> None:
    for small, dense in zip(*((got, want) if ragged.kind == "LSTM" else ((got,), (want,)))):
        assert len(small) == len(dense)
        for row, full in zip(small, dense):
            same(row, full[..., : row.shape[-1]])


@given(stacks(), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_padded_call_equals_dense_with_zero_units(ragged, batch, time, with_state, unbatched):
    dense = padded_dense(ragged)
    out = dense.proj_size or dense.hidden_size
    shape = (time,) if unbatched else (batch, time) if ragged.batch_first else (time, batch)
    x = torch.randn(*shape, ragged.input_size, dtype=torch.float64)
    hx = wide = None
    if with_state:
        given_states = states_of(ragged, None if unbatched else batch)
        hx = as_hx(ragged.kind, given_states)
        wide = as_hx(ragged.kind, tuple(widen(s, w) for s, w in zip(given_states, (out, dense.hidden_size))))
    got, state = ragged(x, hx)
    want, dense_state = dense(x, wide)
    same(got, want[..., kept_columns(ragged, out)])
    same_states(ragged, state, dense_state)


@given(stacks(), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_packed_call_equals_dense_with_zero_units(ragged, lengths, sort, with_state):
    lengths = sorted(lengths, reverse=True) if sort else lengths
    dense = padded_dense(ragged)
    out = dense.proj_size or dense.hidden_size
    x = torch.randn(len(lengths), max(lengths), ragged.input_size, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=sort)
    hx = wide = None
    if with_state:
        given_states = states_of(ragged, len(lengths))
        hx = as_hx(ragged.kind, given_states)
        wide = as_hx(ragged.kind, tuple(widen(s, w) for s, w in zip(given_states, (out, dense.hidden_size))))
    got, state = ragged(packed, hx)
    want, dense_state = dense(packed, wide)
    assert isinstance(got, PackedSequence)
    same(got.data, want.data[:, kept_columns(ragged, out)])
    same(pad_packed_sequence(got)[0], pad_packed_sequence(want)[0][..., kept_columns(ragged, out)])
    same_states(ragged, state, dense_state)


@given(stacks(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_gradients_equal_the_dense_ones(ragged, packed):
    dense = padded_dense(ragged)
    out = dense.proj_size or dense.hidden_size
    x = torch.randn(3, 3, ragged.input_size, dtype=torch.float64)
    seen = pack_padded_sequence(x, torch.tensor([3, 1, 2]), enforce_sorted=False) if packed else x
    results = []
    for module in (ragged, dense):
        y, state = module(seen)
        y = y.data if packed else y
        rows = [row for part in (state if ragged.kind == "LSTM" else (state,)) for row in part]
        (y.pow(2).sum() + sum(row.pow(3).sum() for row in rows)).backward()
    for layer, ends in enumerate(ragged.suffixes()):
        for direction, end in enumerate(ends):
            width = ragged.hidden_sizes[layer][direction]
            for g in range(GATES[ragged.kind]):
                got = getattr(ragged, "weight_hh" + end).grad[g * width : (g + 1) * width]
                want = getattr(dense, "weight_hh" + end).grad[g * dense.hidden_size :][:width, : got.shape[1]]
                results.append((got, want))
    assert out and results
    for got, want in results:
        same(got, want)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", RAGGED)
def test_equal_widths_are_torchs_module_to_the_bit(kind):
    torch.manual_seed(0)
    ragged = RAGGED[kind](3, [(4, 4), (4, 4)], bidirectional=True, dropout=0.5)
    dense = getattr(nn, kind)(3, 4, 2, bidirectional=True, dropout=0.5)
    assert list(dense.state_dict()) == list(ragged.state_dict())
    dense.load_state_dict(ragged.state_dict())
    x = torch.randn(5, 2, 3)
    results = []
    for module in (ragged, dense):
        torch.manual_seed(7)
        y, state = module(x)
        results.append([y, *(state if kind == "LSTM" else (state,))])
    for got, want in zip(*results):
        assert isinstance(got, Tensor)
        assert torch.equal(got, want)
    assert ragged.hidden_size == 4
    assert [len(w) for w in ragged.all_weights] == [len(w) for w in dense.all_weights]


def test_dropout_acts_between_layers_in_training_only():
    torch.manual_seed(0)
    ragged = RaggedGRU(3, [5, 2], dropout=0.9, dtype=torch.float64)
    still = RaggedGRU(3, [5, 2], dtype=torch.float64)
    still.load_state_dict(ragged.state_dict())
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    assert not torch.equal(ragged(x)[0], still(x)[0])
    same(ragged.eval()(x)[0], still(x)[0])
    with pytest.warns(UserWarning, match="between layers"):
        RaggedGRU(3, [5], dropout=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("proj_sizes", [None, [(2, 1), (1, 6)]])
def test_cuda_equals_cpu_without_a_warning_about_contiguous_weights(proj_sizes):
    torch.manual_seed(0)
    ragged = RaggedLSTM(3, [(4, 2), (5, 5)], bidirectional=True, proj_sizes=proj_sizes, dtype=torch.float64)
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([5, 2, 3]), enforce_sorted=False)
    want, want_packed = ragged(x)[0], ragged(packed)[0].data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = copy.deepcopy(ragged).cuda()
        torch.testing.assert_close(moved(x.cuda())[0].cpu(), want, rtol=0, atol=1e-10)
        torch.testing.assert_close(moved(packed.to("cuda"))[0].data.cpu(), want_packed, rtol=0, atol=1e-10)


def test_the_layer_above_a_projection_reads_what_is_projected():
    ragged = RaggedLSTM(3, [(5, 4), (4, 2)], proj_sizes=[(2, 3), (1, 1)], bidirectional=True, dtype=torch.float64)
    assert ragged.weight_ih_l1.shape == (16, 2 + 3) and ragged.weight_ih_l1_reverse.shape == (8, 2 + 3)
    x, dense = torch.randn(4, 2, 3, dtype=torch.float64), padded_dense(ragged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(ragged(x)[0], dense(x)[0][..., kept_columns(ragged, dense.proj_size)])
