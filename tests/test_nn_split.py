"""Split layers against their dense equals: a torch module with zeros where no component reaches is the oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparsernn.nn import SplitGRU, SplitLSTM, SplitRNN
from sparsernn.nn.segments import segments
from sparsernn.nn.split_dense import places
from sparsernn.structure.cells import recurrent_layers

SPLIT = {"LSTM": SplitLSTM, "GRU": SplitGRU, "RNN": SplitRNN}


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(list(SPLIT)))
    blocks = draw(st.integers(1, 4))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "blocks": blocks,
        "input_density": draw(st.sampled_from([1 / blocks, (1 + 1 / blocks) / 2, 1.0])),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dtype": torch.float64,
    }
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layer = SPLIT[kind](draw(st.integers(blocks, 7)), draw(st.integers(blocks, 9)), **options)
    return layer, {name: options[name] for name in ("blocks", "input_density")}


def inputs(layer, form: str) -> tuple[Tensor | PackedSequence, int]:
    time, batch = 5, 3
    if form == "unbatched":
        return torch.randn(time, layer.input_size, dtype=torch.float64), 0
    shape = (batch, time) if layer.batch_first else (time, batch)
    x = torch.randn(*shape, layer.input_size, dtype=torch.float64)
    if form == "packed":
        return pack_padded_sequence(x, torch.tensor([2, 5, 4]), layer.batch_first, enforce_sorted=False), batch
    return x, batch


def states(layer, batch: int) -> Tensor | tuple[Tensor, Tensor]:
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    shape = (rows, batch, layer.hidden_size) if batch else (rows, layer.hidden_size)
    made = [torch.randn(*shape, dtype=torch.float64) for _ in range(2 if layer.kind == "LSTM" else 1)]
    return (made[0], made[1]) if layer.kind == "LSTM" else made[0]


def flat(result) -> Tensor:
    y, last = result
    y = y.data if isinstance(y, PackedSequence) else y
    return torch.cat([part.reshape(-1) for part in (y, *(last if isinstance(last, tuple) else (last,)))])


def with_gradients(module: nn.Module):
    """A copy of `module` that has its gradients for weights."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for mine, original in zip(twin.parameters(), module.parameters()):
            mine.copy_(original.grad)
    return twin


@given(layers(), st.sampled_from(["padded", "packed", "unbatched"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_split_layers_equal_their_dense_form_gradients_too(made, form, given_states):
    layer, _ = made
    dense = layer.to_dense()
    x, batch = inputs(layer, form)
    hx = states(layer, batch) if given_states else None
    ours, theirs = flat(layer(x, hx)), flat(dense(x, hx))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    weights = torch.randn(len(ours), dtype=torch.float64)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for part, whole in places(with_gradients(layer), with_gradients(dense)):
        assert torch.allclose(part, whole, rtol=0, atol=1e-10)


@given(layers())
@settings(max_examples=20, deadline=None)
def test_from_dense_takes_back_what_to_dense_wrote_and_refuses_weights_outside_the_pattern(made):
    layer, pattern = made
    dense = layer.to_dense()
    again = type(layer).from_dense(dense, **pattern)
    assert again.segments == layer.segments
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters()))
    if pattern["blocks"] > 1:
        with torch.no_grad():
            dense.weight_hh_l0[0, -1] = 1.0
        with pytest.raises(ValueError, match="weight_hh_l0 has 1 weights"):
            type(layer).from_dense(dense, **pattern)


def test_the_sizes_of_the_language_model_are_those_of_the_paper():
    share = 0.66666
    sizes = {}
    for inputs_, units, reduce_in, reduce_out in (
        (400, 1725, 1, share),
        (1725, 1725, share, share),
        (1725, 400, share, 1),
    ):
        layer = SplitLSTM.from_reduction(inputs_, units, reduce_in=reduce_in, reduce_out=reduce_out, device="meta")
        parts = [(c.input_size, c.hidden_size) for c in layer.layer_components(0)]
        sizes[inputs_, units] = parts, sum(p.numel() for p in layer.parameters())
    assert sizes[400, 1725] == ([(400, 575)] * 3, 6_741_300)
    assert sizes[1725, 1725] == ([(957, 575), (958, 575), (958, 575)], 10_589_200)
    assert sizes[1725, 400] == ([(1349, 200), (1350, 200)], 2_482_400)
    dense = {(400, 1150): 7_139_200, (1150, 1150): 10_589_200, (1150, 400): 2_483_200}
    assert {s: sum(p.numel() for p in nn.LSTM(*s, device="meta").parameters()) for s in dense} == dense


@given(st.integers(20, 300), st.integers(20, 300), st.floats(0.4, 1), st.floats(0.4, 1), st.sampled_from(list(SPLIT)))
@settings(max_examples=40, deadline=None)
def test_a_reduction_gives_the_parameters_of_the_reduced_dense_layer(size, units, reduce_in, reduce_out, kind):
    layer = SPLIT[kind].from_reduction(size, units, reduce_in=reduce_in, reduce_out=reduce_out, device="meta")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    target = gates * reduce_out * units * (reduce_in * size + reduce_out * units + 2)
    parts = layer.layer_components(0)
    found = sum(p.numel() for p in layer.parameters())
    # Widths are whole numbers: each component may be a unit or an input off.
    off = gates * sum(c.input_size + 2 * c.hidden_size + 4 for c in parts) * (1.0 if len(parts) > 1 else 0.5)
    full = all(c.input_size == size for c in parts)
    assert found <= target + off and (full or found >= target - off)
    fewer = len(parts) - 1
    if fewer:  # with one component less, even inputs that do not overlap would be too many
        assert gates * units * (size / fewer + units / fewer + 2) > target


@given(st.integers(1, 400), st.integers(1, 12), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_segments_cover_all_inputs_and_are_equally_long_to_one(size, blocks, extra):
    blocks = min(blocks, size)
    found = segments(size, blocks, 1 / blocks + extra * (1 - 1 / blocks))
    assert {n for begin, end in found for n in range(begin, end)} == set(range(size))
    lengths = [end - begin for begin, end in found]
    assert max(lengths) - min(lengths) <= 1
    assert sum(end - begin for begin, end in segments(size, blocks, 1 / blocks)) == size


def test_no_zeros_are_stored_and_every_component_is_a_layer_of_its_own():
    model = nn.Sequential(SplitGRU(8, 12, 2, blocks=4, input_density=0.5, bidirectional=True))
    names = [layer.name for layer in recurrent_layers(model)]
    assert names == [f"0.components.{n}.{c}.l0{end}" for n in range(2) for c in range(4) for end in ("", "_reverse")]
    recurrent = sum(p.numel() for name, p in model.named_parameters() if "weight_hh" in name)
    assert recurrent == 2 * 2 * 3 * 12 * 12 // 4
    assert all(torch.all(p != 0) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"blocks": 0}, "blocks is 0"),
        ({"blocks": 9}, "blocks is 9"),
        ({"blocks": 2.0}, "blocks is 2.0"),
        ({"blocks": 3, "input_density": 0.2}, "input_density is 0.2"),
        ({"blocks": 3, "input_density": 1.2}, "input_density is 1.2"),
        ({"blocks": [2, 2]}, "blocks has 2 entries"),
        ({"blocks": 2, "num_layers": 0}, "num_layers is 0"),
        ({"blocks": 2, "dropout": 2}, "dropout is 2"),
    ],
)
def test_patterns_that_do_not_exist_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        SplitLSTM(6, 6, **options)
    assert str(caught.value).count("\n") < 3


def test_reductions_that_do_not_exist_get_a_sentence():
    for reduce_in, reduce_out in ((0, 0.5), (1, 1.5), (0.01, 0.01)):
        with pytest.raises(ValueError, match="reduce"):
            SplitLSTM.from_reduction(40, 40, reduce_in=reduce_in, reduce_out=reduce_out)
