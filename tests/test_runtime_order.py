"""Units are re-sorted where that saves blocks: the same function, never more blocks, the planted order found again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from sparsernn.runtime import matrices
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layouts import LAYOUTS, offered
from sparsernn.runtime.order import WIDTH, blocks, plain_order, similar_order
from sparsernn.runtime.processor import processor

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def flat(value: object) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]  # type: ignore[attr-defined]


def planted(model: nn.LSTM | nn.GRU | nn.RNN, density: float, wide: int = 1) -> tuple[nn.Module, nn.Module]:
    """`model` in blocks of WIDTH rows (within a gate) and `wide` columns, and with its units shuffled."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and "hr" not in name:
                gates = p.view(-1, model.hidden_size, p.shape[1])
                keep = torch.rand(len(gates), -(-gates.shape[1] // WIDTH), -(-p.shape[1] // wide)) < density
                keep = keep.repeat_interleave(WIDTH, 1)[:, : gates.shape[1]].repeat_interleave(wide, 2)
                gates.mul_(keep[..., : p.shape[1]])
    shuffled = copy.deepcopy(model)
    with torch.no_grad():
        for layer in range(model.num_layers):
            for end in ("", "_reverse")[: 1 + model.bidirectional]:
                order = torch.randperm(model.hidden_size)
                for name, p in shuffled.named_parameters():
                    if name.endswith(f"_l{layer}{end}"):
                        if "hr" in name:
                            p.copy_(p[:, order])
                        else:
                            p.copy_(p.view(-1, model.hidden_size, *p.shape[1:])[:, order].view(p.shape))
                        if "weight_hh" in name and not model.proj_size:
                            p.copy_(p[:, order])
    return model.eval(), shuffled.eval()


def agree(fast: nn.Module, model: nn.Module, *arguments: object) -> None:
    with torch.no_grad():
        for got, want in zip(flat(fast(*arguments)), flat(model(*arguments))):
            assert torch.equal(got, want) if got.dtype == torch.int64 else torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("hidden", (WIDTH * 8, WIDTH * 8 + 5))
def test_a_planted_order_is_found_again(hidden: int) -> None:
    rng = np.random.default_rng(hidden)
    groups = -(-hidden // WIDTH)
    pattern = np.repeat(rng.random((groups, 300)) < 0.1, WIDTH, 0)[:hidden]
    shuffled = pattern[rng.permutation(hidden)]
    found = similar_order(shuffled)
    assert found is not None and sorted(found[found >= 0]) == list(range(hidden))
    assert blocks(shuffled, found) == blocks(pattern, plain_order(hidden)) < blocks(shuffled, plain_order(hidden)) / 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(0, 150), st.floats(0, 1), st.integers(0, 2**31))
def test_never_more_blocks_and_always_the_same(hidden: int, features: int, density: float, seed: int) -> None:
    pattern = np.random.default_rng(seed).random((hidden, features)) < density
    found = similar_order(pattern)
    if found is not None:
        assert sorted(found[found >= 0]) == list(range(hidden)) and len(found) == len(plain_order(hidden))
        assert blocks(pattern, found) < blocks(pattern, plain_order(hidden))
        again = similar_order(pattern)
        assert again is not None and (found == again).all()


@pytest.mark.parametrize("cls", (nn.LSTM, nn.GRU, nn.RNN))
def test_shuffled_blocks_run_as_blocks(cls: type[nn.LSTM]) -> None:
    torch.manual_seed(1)
    for hidden, options in ((10 * WIDTH, {"num_layers": 2}), (9 * WIDTH + 3, {"bidirectional": True})):
        plain, shuffled = planted(cls(40, hidden, batch_first=True, **options), 0.07)  # type: ignore[arg-type]
        fast, straight = accelerate(shuffled), accelerate(plain)
        assert "units re-sorted" in fast.explain() and "units re-sorted" not in straight.explain()
        found = [m for layer in fast._engine.matrices(fast) for m in layer]
        before = [m for layer in straight._engine.matrices(straight) for m in layer]
        for mine, other in zip(found, before):
            assert all(mine.matrices[n].counts.blocks == other.matrices[n].counts.blocks for n in ("ih", "hh"))
        x = torch.randn(3, 7, 40)
        count = 2
        state: object = torch.randn(count, 3, hidden)
        state = (state, torch.randn(count, 3, hidden)) if cls is nn.LSTM else state
        agree(fast, shuffled, x)
        agree(fast, shuffled, x, state)
        packed = pack_padded_sequence(x, torch.tensor([4, 7, 2]), batch_first=True, enforce_sorted=False)
        agree(fast, shuffled, packed, state)


def test_projections_and_every_precision() -> None:
    torch.manual_seed(2)
    for precision in ("float32", "bfloat16", "int8")[: 2 + processor().vnni]:
        wide = max(LAYOUTS[name].columns for name in offered(precision))
        _, model = planted(nn.LSTM(30, 8 * WIDTH + 2, proj_size=20), 0.07, wide)
        fast = accelerate(model, precision)
        assert "units re-sorted" in fast.explain()
        x, state = torch.randn(6, 2, 30), (torch.randn(1, 2, 20), torch.randn(1, 2, 8 * WIDTH + 2))
        with torch.no_grad():
            off = [(a - b).abs().max() for a, b in zip(flat(fast(x, state)), flat(model(x, state)))]
        assert max(off) < {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.03}[precision]


def test_streams_hand_out_the_units_in_their_own_order() -> None:
    torch.manual_seed(3)
    _, rnn = planted(nn.GRU(20, 9 * WIDTH, 2), 0.07)
    fast = accelerate(rnn)
    assert fast.explain().count("units re-sorted") == 2
    stream, x = fast.stream(2), torch.randn(6, 2, 20)
    with torch.no_grad():
        want, last = rnn(x)
    first = torch.stack([stream.step(x_t).clone() for x_t in x[:3]])
    kept = stream.state
    rest = torch.stack([stream.step(x_t).clone() for x_t in x[3:]])
    assert torch.allclose(torch.cat([first, rest]), want, atol=1e-5)
    assert torch.allclose(torch.stack([h for (h,) in stream.state]), last, atol=1e-5)
    stream.state = kept
    assert torch.equal(torch.stack([stream.step(x_t).clone() for x_t in x[3:]]), rest)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_gives_the_same_function(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    cls = draw(st.sampled_from((nn.LSTM, nn.GRU, nn.RNN)))
    hidden = draw(st.integers(WIDTH + 1, 3 * WIDTH))
    options = {"proj_size": draw(st.integers(1, hidden - 1))} if cls is nn.LSTM and draw(st.booleans()) else {}
    model = cls(draw(st.integers(1, 40)), hidden, bidirectional=draw(st.booleans()), **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p *= torch.rand(p.shape) < 0.15
    x = torch.randn(draw(st.integers(1, 6)), draw(st.integers(1, 9)), model.input_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrices, "WORTH", float("inf"))
        fast = accelerate(model)
        agree(fast, model, x)
        with torch.no_grad():
            agree(fast, model, x, model(x)[1])
