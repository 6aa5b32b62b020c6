"""Gated stacks equal the dense layer whose constant gates they fold."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparsernn.nn.gated import GatedGRU, GatedLSTM, GatedRNN, is_loop_faster
from sparsernn.nn.ragged import RaggedLSTM

GATED = {"LSTM": GatedLSTM, "GRU": GatedGRU, "RNN": GatedRNN}
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}


def ends_of(module) -> list[str]:
    return [f"_l{n}{end}" for n in range(module.num_layers) for end in ("", "_reverse")[: 1 + module.bidirectional]]


def zero_gates(module, share: float) -> dict[str, dict[str, Tensor]]:
    """Zero the rows of random gates, and b_hn of some units; which they are, as constant_gates gives them."""
    names, found = GATES[type(module).__name__], {}
    with torch.no_grad():
        for end in ends_of(module):
            weight_ih, weight_hh = getattr(module, "weight_ih" + end), getattr(module, "weight_hh" + end)
            gone = torch.rand(len(weight_ih)) < share
            weight_ih[gone] = 0.0
            weight_hh[gone] = 0.0
            masks = gone.view(len(names), -1)
            found[end[1:]] = {name: masks[g] for g, name in enumerate(names)}
            if module.bias and len(names) == 3:
                bias = getattr(module, "bias_hh" + end)[2 * masks.shape[1] :]
                bias[torch.rand(len(bias)) < 0.5] = 0.0
    return found


@st.composite
def dense_stacks(draw):
    kind = draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    options = {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    width = draw(st.integers(2, 5))
    if kind == "LSTM" and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, width - 1))
    module = getattr(nn, kind)(draw(st.integers(1, 3)), width, draw(st.integers(1, 2)), **options).double()
    return module, zero_gates(module, draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])))


def close(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.fixture(scope="module", params=[True, False], ids=["loop", "kernel"])
def way(request):
    """Both ways in which a layer may run, whatever its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsernn.nn.gated.is_loop_faster", lambda w, batch: request.param)
        yield request.param


@given(dense_stacks(), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_dense_layer(way, case, batch, time, with_state, with_masks):
    dense, constant = case
    gated = GATED[type(dense).__name__].from_dense(dense, constant if with_masks else None)
    assert {name: tuple(map(sum, counts)) for name, counts in _living(gated).items()} == {
        name: (sum(int((~mask).sum()) for mask in masks.values()),) for name, masks in constant.items()
    }
    gated.check_tensors()
    x = torch.randn(*((batch, time) if dense.batch_first else (time, batch)), dense.input_size, dtype=torch.float64)
    x.requires_grad_()
    _, state = dense(x)
    hx = None
    if with_state:
        hx = tuple(torch.randn_like(s) for s in state) if isinstance(state, tuple) else torch.randn_like(state)
    close(gated(x, hx), dense(x, hx))
    close(gated.to_dense()(x, hx), dense(x, hx))
    close(*(torch.autograd.grad(module(x, hx)[0].pow(2).sum(), x)[0] for module in (gated, dense)))


def _living(gated) -> dict[str, list[tuple[int, ...]]]:
    flat = [counts for row in gated.living for counts in row]
    return {end[1:]: [counts] for end, counts in zip(ends_of(gated), flat)}


@given(dense_stacks(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_packed_sequences_equal_the_dense_layer(way, case, lengths):
    dense, _ = case
    gated = GATED[type(dense).__name__].from_dense(dense)
    x = torch.randn(max(lengths), len(lengths), dense.input_size, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    (got, state), (want, dense_state) = gated(packed), dense(packed)
    close(got.data, want.data)
    close(state, dense_state)


@pytest.mark.smoke
def test_holds_living_rows_and_constants_only():
    torch.manual_seed(0)
    dense = nn.LSTM(3, 4).double()
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(dense, name)[4:8] = 0.0  # f of all units
            getattr(dense, name)[1] = 0.0  # i of unit 1
    gated = GatedLSTM.from_dense(dense)
    assert gated.living == (((3, 0, 4, 4),),)
    shapes = {name: tuple(p.shape) for name, p in gated.named_parameters()}
    assert shapes == {
        "weight_ih_l0": (11, 3),
        "weight_hh_l0": (11, 4),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
    }
    assert gated.rows_l0.tolist() == [0, 2, 3, *range(8, 16), 1, 4, 5, 6, 7]
    assert gated.hidden_size == 4 and "living=[[[3, 0, 4, 4]]]" in repr(gated)


@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize("zeroed", ["weight_ih_l0", "weight_hh_l0"])
def test_gates_that_read_the_input_or_the_state_alone_live(kind, zeroed, way):
    torch.manual_seed(0)
    dense = getattr(nn, kind)(3, 4).double()
    with torch.no_grad():
        getattr(dense, zeroed).zero_()
    gated = GATED[kind].from_dense(dense)
    assert gated.living == (((4,) * gated.gates,),)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    close(gated(x), dense(x))


def test_candidate_of_a_gru_is_constant_only_without_a_living_reset(way):
    torch.manual_seed(0)
    dense = nn.GRU(2, 3).double()
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(dense, name)[6:9] = 0.0  # n of all units
            getattr(dense, name)[0] = 0.0  # r of unit 0
        dense.bias_hh_l0[8] = 0.0  # b_hn of unit 2
    gated = GatedGRU.from_dense(dense)
    assert gated.living == (((2, 3, 0),),)
    assert gated.scaled == ((1,),)  # unit 1: r lives and b_hn is not zero
    assert gated.rows_l0.tolist() == [1, 2, 3, 4, 5, 7, 0, 6, 8]
    x = torch.randn(6, 2, 2, dtype=torch.float64)
    close(gated(x), dense(x))


def test_ragged_stacks_fold_too(way):
    torch.manual_seed(0)
    ragged = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True, proj_sizes=[(2, 1), (1, 6)], dtype=torch.float64)
    with torch.no_grad():
        ragged.weight_ih_l0_reverse[2:5] = 0.0
        ragged.weight_hh_l0_reverse[2:5] = 0.0
    gated = GatedLSTM.from_dense(ragged)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    (got, (h, c)), (want, (dense_h, dense_c)) = gated(x), ragged(x)
    close(got, want)
    for row, dense_row in zip([*h, *c], [*dense_h, *dense_c]):
        close(row, dense_row)
    other = copy.deepcopy(gated)
    other.load_state_dict(gated.state_dict())
    close(other(x)[0], want)


def test_folding_loses_no_bit(way):
    """A float32 layer and its folded form are the same function in float64: nothing is rounded when they are made."""
    torch.manual_seed(0)
    dense = nn.GRU(3, 9, bidirectional=True)
    zero_gates(dense, 0.6)
    gated = GatedGRU.from_dense(dense)
    back = gated.to_dense()
    assert all(torch.equal(value, getattr(back, name)) for name, value in dense.named_parameters())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    close(gated.double()(x), dense.double()(x))


def test_gradients_reach_constants_and_living_rows(way):
    torch.manual_seed(0)
    dense = nn.GRU(2, 3).double()
    zero_gates(dense, 0.5)
    gated = GatedGRU.from_dense(dense)
    gated(torch.randn(4, 2, 2, dtype=torch.float64))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gated.parameters())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: GatedLSTM.from_dense(nn.GRU(2, 3)), TypeError, "expected LSTM or RaggedLSTM"),
        (lambda: GatedGRU.from_dense(nn.GRU(2, 3), {"l1": {}}), ValueError, "layers are l0"),
        (lambda: GatedGRU.from_dense(nn.GRU(2, 3), {"l0": {"f": torch.ones(3).bool()}}), ValueError, "gates r, z, n"),
        (lambda: GatedGRU.from_dense(nn.GRU(2, 3), {"l0": {"r": torch.ones(3).bool()}}), ValueError, "not all zero"),
        (lambda: GatedGRU.from_dense(nn.GRU(2, 3), {"l0": {"r": torch.ones(2).bool()}}), ValueError, r"bool \(3,\)"),
        (lambda: GatedLSTM(2, [3], [[(1, 2, 3, 4)]]), ValueError, "living"),
        (lambda: GatedLSTM(2, [3], [[(1, 2, 3)]]), ValueError, "gates i, f, g, o"),
        (lambda: GatedLSTM(2, [3], []), ValueError, "one entry for each"),
        (lambda: GatedLSTM(2, [3], [[(1, 1, 1, 1)]], scaled=[[1]]), ValueError, "scaled"),
        (lambda: GatedRNN(2, [3], [[(1,)]], nonlinearity="sine"), ValueError, "nonlinearity"),
        (lambda: GatedRNN(2, [3], [[(1,)]])(torch.zeros(0, 2, 2)), RuntimeError, "larger than 0"),
    ],
)
def test_bad_input_gets_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert len(str(caught.value).splitlines()) <= 3


def test_the_loop_is_for_large_layers_with_few_living_gates():
    def worth(width: int, living: int, batch: int) -> bool:
        gated = GatedLSTM(width, [width], [[(living, 0, 0, 0)]], device="meta")
        return is_loop_faster(gated._weights("_l0"), batch)

    assert worth(600, 100, 8) and worth(2000, 100, 1)
    assert not worth(32, 1, 8) and not worth(600, 600, 8)
    with torch.overrides.BaseTorchFunctionMode():
        assert worth(32, 1, 8)


def test_rows_that_are_no_order_are_refused():
    gated = GatedLSTM(2, [3], [[(1, 2, 3, 0)]])
    gated.check_tensors()
    gated.rows_l0[0] = 5
    with pytest.raises(ValueError, match="rows_l0"):
        gated.check_tensors()
