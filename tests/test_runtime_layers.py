"""Accelerated modules compute what torch's modules compute in float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparsernn.nn.gated import GatedGRU, GatedLSTM
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate

# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

STACKS = (nn.LSTM, nn.GRU, nn.RNN)


def flat(value: object) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in flat(part)]  # type: ignore[attr-defined]


def agree(fast: nn.Module, model: nn.Module, *arguments: object) -> None:
    """`fast` is as near to `model` in float64 as contract allows: max(1e-5, 4 times the error of torch's float32)."""

    def double(value: object) -> object:
        if isinstance(value, PackedSequence):
            return value.to(torch.float64)
        if isinstance(value, Tensor):
            return value.double()
        return tuple(double(part) for part in value)  # type: ignore[attr-defined]

    with torch.no_grad():
        want = flat(copy.deepcopy(model).double()(*map(double, arguments)))
        got, torch_got = flat(fast(*arguments)), flat(model(*arguments))
    assert [t.shape for t in got] == [t.shape for t in torch_got]
    assert [t.dtype for t in got] == [t.dtype for t in torch_got]
    for g, w, t in zip(got, want, torch_got):
        if g.numel():
            bound = max(1e-5, 4 * (t - w).abs().max().item())
            assert (g - w).abs().max().item() <= bound


def pruned(model: nn.Module, density: float) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p *= torch.rand(p.shape) < density
    return model.eval()


def inputs(model: nn.Module, steps: int, batch: int, packing: str, with_state: bool) -> tuple[object, ...]:
    m: nn.LSTM = model  # type: ignore[assignment]
    if packing == "packed":
        lengths = torch.randint(1, steps + 1, (batch,))
        x: object = pack_padded_sequence(torch.randn(steps, batch, m.input_size), lengths, enforce_sorted=False)
    elif packing == "unbatched":
        x, batch = torch.randn(steps, m.input_size), 0
    else:
        x = torch.randn(*((batch, steps) if m.batch_first else (steps, batch)), m.input_size)
    if not with_state:
        return (x,)
    count = m.num_layers * (2 if m.bidirectional else 1)
    size = (count, batch) if batch else (count,)
    h = torch.randn(*size, m.proj_size or m.hidden_size)
    return (x, (h, torch.randn(*size, m.hidden_size)) if isinstance(model, nn.LSTM) else h)


@pytest.mark.smoke
@pytest.mark.parametrize("cls", STACKS)
def test_same_function(cls: type[nn.Module]) -> None:
    torch.manual_seed(1)
    for layers, both, first, bias in itertools.product((1, 2), (False, True), (False, True), (False, True)):
        model = cls(19, 33, layers, bias=bias, batch_first=first, bidirectional=both).eval()  # type: ignore[call-arg]
        fast = accelerate(model)
        for packing, with_state in itertools.product(("padded", "packed", "unbatched"), (False, True)):
            agree(fast, model, *inputs(model, 6, 3, packing, with_state))


@pytest.mark.parametrize("cls", (nn.LSTMCell, nn.GRUCell, nn.RNNCell))
def test_cells(cls: type[nn.Module]) -> None:
    torch.manual_seed(2)
    for bias in (True, False):
        model = cls(21, 37, bias=bias).eval()  # type: ignore[call-arg]
        fast = accelerate(model)
        for shape in ((), (1,), (5,)):
            state = torch.randn(*shape, 37)
            hx = (state, torch.randn(*shape, 37)) if cls is nn.LSTMCell else state
            agree(fast, model, torch.randn(*shape, 21))
            agree(fast, model, torch.randn(*shape, 21), hx)
        assert [t.shape for t in flat(fast(torch.zeros(0, 21)))] == [t.shape for t in flat(model(torch.zeros(0, 21)))]


@pytest.mark.parametrize("cls", (RaggedLSTM, RaggedGRU, RaggedRNN))
def test_ragged(cls: type[nn.Module]) -> None:
    torch.manual_seed(3)
    for first in (True, False):
        options = {"proj_sizes": [(3, 4), (2, 2)]} if cls is RaggedLSTM and first else {}
        model = cls(9, [(17, 5), (8, 21)], bidirectional=True, batch_first=first, **options).eval()  # type: ignore[call-arg]
        fast = accelerate(model)
        x = torch.randn(4, 6, 9)
        with torch.no_grad():
            state = model(x)[1]
        agree(fast, model, x)
        with torch.no_grad():
            got, want = fast(x, state), copy.deepcopy(model)(x, state)
        for g, w in zip(flat([got[0]]), flat([want[0]])):
            assert torch.allclose(g, w, atol=1e-5)
        agree(fast, model, pack_padded_sequence(torch.randn(6, 3, 9), torch.tensor([2, 6, 1]), enforce_sorted=False))


@pytest.mark.parametrize("precision", ("bfloat16", "int8"))
@pytest.mark.filterwarnings("ignore:accelerate. this processor")
def test_lower_precisions_stay_near(precision: Precision) -> None:
    torch.manual_seed(7)
    for cls, density, batch in itertools.product(STACKS, (1.0, 0.1), (1, 9)):
        model = pruned(nn.ModuleDict({"rnn": cls(40, 70, 2, bidirectional=True), "head": nn.Linear(140, 11)}), density)
        fast = accelerate(model, precision)
        x = torch.randn(15, batch, 40)
        with torch.no_grad():
            (got, _), (want, _) = fast["rnn"](x), model["rnn"](x)
            off, head_off = (got - want).abs(), (fast["head"](want) - model["head"](want)).abs()
        # Weights of 8 bits: a hundredth of the outputs' range, not noise and not float32.
        assert off.max() < 0.05 and off.mean() < 0.005 and head_off.max() < 0.03
        agree(accelerate(model)["rnn"], model["rnn"], x)
        with torch.no_grad():
            broken = x.clone()
            broken[3, 0, 5] = float("nan")
            assert torch.equal(fast["rnn"](broken)[0][:, 1:], got[:, 1:])


def test_gated_modules_become_dense_packings() -> None:
    torch.manual_seed(4)
    for cls, dense in ((GatedLSTM, nn.LSTM), (GatedGRU, nn.GRU)):
        model = dense(12, 40)
        with torch.no_grad():
            for name in ("weight_ih_l0", "weight_hh_l0"):
                getattr(model, name)[40:72] = 0
        small = nn.Sequential(cls.from_dense(model)).eval()
        x = torch.randn(7, 2, 12)
        with torch.no_grad():
            assert torch.allclose(accelerate(small)(x)[0], model.eval()(x)[0], atol=1e-5)


def test_batches_of_none_and_sequences_of_none() -> None:
    for cls in STACKS:
        model = cls(5, 7).eval()
        fast = accelerate(model)
        got, want = fast(torch.zeros(3, 0, 5)), model(torch.zeros(3, 0, 5))
        assert [t.shape for t in flat(got)] == [t.shape for t in flat(want)]
        for shape in ((0, 2, 5), (0, 0, 5), (0, 5)):
            with pytest.raises(RuntimeError, match="length to be larger than 0"):
                fast(torch.zeros(*shape))


def test_views_and_strides_are_read_in_place() -> None:
    model = nn.GRU(6, 10, batch_first=True).eval()
    fast = accelerate(model)
    big = torch.randn(9, 4, 8)
    for x in (big.transpose(0, 1)[..., :6], big.permute(1, 0, 2)[:, ::2, 1:7], big[:1, :, :6].expand(9, 4, 6)):
        agree(fast, model, x)
    agree(fast, model, torch.randn(4, 6, 9).transpose(1, 2))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_linear(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    head = nn.Linear(24, draw(st.integers(1, 100)), bias=draw(st.booleans()))
    model = pruned(nn.ModuleDict({"rnn": nn.GRU(3, 24), "head": head}), draw(st.floats(0, 1)))
    fast = accelerate(model)["head"]
    assert type(fast).__name__ == "AcceleratedLinear" and isinstance(fast, nn.Linear)
    shape = draw(st.sampled_from(((), (1,), (9,), (150,), (3, 0), (2, 3, 5))))
    x = torch.randn(*shape, 26)[..., 1:25]
    agree(fast, head, x)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsernn.runtime import threads

    torch.manual_seed(6)
    monkeypatch.setattr(threads, "WORTH", 1.0)
    before = torch.get_num_threads()
    try:
        for cls, density in itertools.product((nn.LSTM, nn.GRU), (1.0, 0.1)):
            model = pruned(nn.Sequential(cls(20, 40, 2, bidirectional=True, batch_first=True)), density)
            model = nn.ModuleDict({"rnn": model[0], "head": nn.Linear(80, 33)}).eval()
            fast = accelerate(model)
            for packing, with_state in itertools.product(("padded", "packed", "unbatched"), (False, True)):
                example = inputs(model["rnn"], 9, 7, packing, with_state)
                found = []
                for count in (1, 2, 3):
                    torch.set_num_threads(count)
                    with torch.no_grad():
                        out = flat(fast["rnn"](*example))
                        found.append([*out, fast["head"](out[0])])
                assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))
                torch.set_num_threads(1)
                agree(fast["rnn"], model["rnn"], *example)
    finally:
        torch.set_num_threads(before)


def test_long_sequences_go_through_the_workspace_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsernn.runtime import packed_layer

    torch.manual_seed(5)
    for first, packing in itertools.product((False, True), ("padded", "packed")):
        model = nn.LSTM(7, 20, bidirectional=True, batch_first=first).eval()
        example = inputs(model, 23, 5, packing, True)
        with torch.no_grad():
            whole = flat(accelerate(model)(*example))
            with monkeypatch.context() as patch:
                patch.setattr(packed_layer, "GATES_BYTES", 8 * 4 * 128)
                pieces = flat(accelerate(model)(*example))
        assert all(torch.equal(a, b) for a, b in zip(whole, pieces))


@pytest.mark.parametrize("cls", STACKS)
def test_a_row_of_nan_stays_alone(cls: type[nn.Module]) -> None:
    model = cls(6, 18, 2).eval()  # type: ignore[call-arg]
    fast = accelerate(model)
    x = torch.randn(5, 7, 6)
    clean = fast(x)[0]
    for bad in (float("nan"), float("inf")):
        broken = x.clone()
        broken[2, 3, 1] = bad
        out = fast(broken)[0]
        assert torch.equal(torch.cat([out[:, :3], out[:, 4:]], 1), torch.cat([clean[:, :3], clean[:, 4:]], 1))
        assert torch.equal(out[:2], clean[:2])
        assert torch.equal(out[2:, 3].isfinite(), model(broken)[0][2:, 3].isfinite())


@pytest.mark.parametrize("cls", STACKS)
@pytest.mark.parametrize("wrong", (None, torch.inf, torch.nan))
@torch.no_grad()
def test_without_states_a_call_starts_from_zeros_to_the_bit(cls: type[nn.Module], wrong: float | None) -> None:
    """The product of weights with zeros is left out, unless a weight makes it NaN."""
    torch.manual_seed(0)
    model = cls(5, 12, 2, bidirectional=True).eval()
    if wrong is not None:
        model.weight_hh_l0[3, 4] = wrong
    fast = accelerate(nn.Sequential(model).eval())[0]
    for steps, rows in ((1, 1), (1, 4), (2, 3), (9, 1)):
        x = torch.randn(steps, rows, 5)
        zeros = torch.zeros(4, rows, 12)
        y, state = fast(x)
        again, end = fast(x, (zeros, zeros.clone()) if cls is nn.LSTM else zeros)
        want = model(x)[0]
        torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5, equal_nan=True)
        assert torch.equal(y.nan_to_num(7.0), again.nan_to_num(7.0))
        pairs = zip(state, end) if cls is nn.LSTM else ((state, end),)
        assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs)
        if wrong is not None:
            assert y.isnan().any()
    packed = nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (4, 4, 2)])
    torch.testing.assert_close(fast(packed)[0].data, model(packed)[0].data, rtol=1e-5, atol=1e-5, equal_nan=True)
