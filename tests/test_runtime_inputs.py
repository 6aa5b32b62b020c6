"""Inputs of accelerated modules are read as they lie in memory; what has none, or doesn't fit, is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparsernn.nn.graph import GraphLSTM
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.nn.rhn import RHN
from sparsernn.runtime.layers import accelerate

# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def modules() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    return {
        "LSTM": (nn.LSTM(6, 10), (torch.randn(3, 2, 6),)),
        "GRU with a state": (nn.GRU(6, 10), (torch.randn(3, 2, 6), torch.randn(1, 2, 10))),
        "cell": (nn.GRUCell(6, 10), (torch.randn(2, 6),)),
        "linear": (nn.Sequential(nn.GRU(2, 2), nn.Linear(6, 10)), (torch.randn(2, 6),)),
        "ragged": (RaggedLSTM(6, [4, 7]), (torch.randn(3, 2, 6),)),
        "highway": (RHN(6, 5, 2), (torch.randn(3, 2, 6),)),
    }


def accelerated(kind: str) -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
    model, arguments = modules()[kind]
    fast = accelerate(model.eval())
    if kind == "linear":
        model, fast = model[1], fast[1]  # type: ignore[index]
    return fast, model, arguments


def first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else first(outputs[0])


def fake(fast: nn.Module, *arguments: Tensor) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return fast(*map(mode.from_tensor, arguments))


def under_fake_mode(fast: nn.Module, *arguments: Tensor) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return fast(*arguments)


def traced_by_fx(fast: nn.Module, *arguments: Tensor) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(lambda *given: first(fast(*given)))(*arguments)


def forward_derivative(fast: nn.Module, *arguments: Tensor) -> Any:
    from torch.autograd import forward_ad

    with forward_ad.dual_level():
        return fast(forward_ad.make_dual(arguments[0], torch.ones_like(arguments[0])), *arguments[1:])


UNREAL: dict[str, Callable[..., Any]] = {
    "meta": lambda fast, *given: fast(*(t.to("meta") for t in given)),
    "fake": fake,
    "fake mode": under_fake_mode,
    "vmap": lambda fast, *given: torch.vmap(lambda *t: first(fast(*t)))(*(t.expand(4, *t.shape) for t in given)),
    "vmap over nothing": lambda fast, *given: torch.vmap(lambda y: y + first(fast(*given)).sum())(torch.ones(3)),
    "grad": lambda fast, *given: torch.func.grad(lambda *t: first(fast(*t)).sum())(*given),
    "jvp": lambda fast, *given: torch.func.jvp(lambda *t: first(fast(*t)), given, given),
    "functionalize": lambda fast, *given: torch.func.functionalize(lambda *t: first(fast(*t)))(*given),
    "forward_ad": forward_derivative,
    "jit.trace": lambda fast, *given: torch.jit.trace(fast, given, check_trace=False),
    "jit.script": lambda fast, *given: torch.jit.script(fast),
    "make_fx": traced_by_fx,
    "export": lambda fast, *given: torch.export.export(fast, given),
    "functional tensor": lambda fast, *given: fast(*map(torch._to_functional_tensor, given)),
    "zero tensor": lambda fast, *given: fast(*(torch._efficientzerotensor(t.shape) for t in given)),
    "sparse": lambda fast, *given: fast(*(t.to_sparse() for t in given)),
    "storage gone": lambda fast, *given: [given[0].untyped_storage().resize_(0), fast(*given)],
}


TORCH_2_6 = torch.__version__.startswith("2.6.")  # its exporter hides what it is told


@pytest.mark.parametrize("kind", [kind for kind in UNREAL if kind != "export" or not TORCH_2_6])
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_memory_is_refused_in_a_sentence(kind: str) -> None:
    for name in modules():
        fast, _, arguments = accelerated(name)
        for _ in range(2):  # before and after a call that is known
            with torch.no_grad(), pytest.raises(Exception, match=r"accelerate|kernels") as error:
                UNREAL[kind](fast, *(t.clone() for t in arguments))
            assert isinstance(error.value, (RuntimeError, TypeError)), error.value
            first(fast(*arguments))


BAD_SIZES = ([3, 3], [200, 200, 200], [1, 3], [4, -1], [2, 0, 2], [1, 1], [0, 4], [100000], [], [4, 0])


@pytest.mark.parametrize("sizes", BAD_SIZES, ids=str)
def test_packed_sequences_fit_their_data(sizes: list[int]) -> None:
    models = nn.LSTM(6, 8), nn.GRU(6, 8, bidirectional=True), RaggedLSTM(6, [3, 5]), RHN(6, 4, 2)
    for model in models:
        fast = accelerate(model.eval())
        packed = PackedSequence(torch.randn(4, 6), torch.tensor(sizes, dtype=torch.int64))
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            fast(packed)


def test_packed_sequences_fit_their_data_in_graphs() -> None:
    fast = accelerate(GraphLSTM(3, nx.path_graph(4)).eval())
    with pytest.raises(RuntimeError):
        fast(PackedSequence(torch.randn(4, 3), torch.tensor([3, 3])))


@pytest.mark.parametrize("kind", modules())
def test_views_are_read_as_what_they_stand_for(kind: str) -> None:
    fast, model, arguments = accelerated(kind)
    ways: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda t: torch._neg_view(t),
        lambda t: torch.view_as_complex(torch.stack([t, t], -1)).conj().imag,
        lambda t: t.unsqueeze(-1).expand(*t.shape, 3)[..., 1],
        lambda t: t[..., :1].expand(t.shape),
        lambda t: t[:1].expand(t.shape),
        lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    )
    with torch.no_grad():
        for way in ways:
            given = [way(t) for t in arguments]
            for _ in range(2):
                got, want = first(fast(*given)), first(model(*given))
                torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
                with torch.inference_mode():
                    assert torch.equal(first(fast(*given)), got)


LAYOUTS = {
    "contiguous": lambda x: x,
    "one vector": lambda x: x[0, 0],
    "part of the features": lambda x: torch.cat([x, x], -1)[..., 3 : 3 + x.shape[-1]],
    "every other step": lambda x: torch.cat([x, x], 1)[:, ::2],
    "transposed steps": lambda x: x.transpose(0, 1),
    "features first": lambda x: x.mT.contiguous().mT,
    "last step expanded": lambda x: x[:, -1:].expand(-1, 50, -1),
    "a matrix with gaps": lambda x: torch.cat([x, x], -1)[0, :, : x.shape[-1]],
    "a matrix of one row": lambda x: x[0, :1].expand(40, -1),
    "a column as rows": lambda x: x[:, :, None].expand(-1, -1, 3, -1),
    "four axes permuted": lambda x: x[:, :, None].expand(-1, -1, 2, -1).permute(2, 0, 1, 3),
    "backwards in time": lambda x: x.flip(1)[:, 1:],
    "a lazy sign": lambda x: torch.view_as_complex(torch.stack([x, x], -1)).conj().imag,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["linear", "lstm"])
def test_every_call_reads_an_input_as_it_lies_in_memory(kind, layout):
    """The first call and those that know the shape by then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 20)) if kind == "linear" else nn.LSTM(16, 20, batch_first=True)
    model = model.eval()
    fast = accelerate(nn.Sequential(nn.GRU(4, 4), model).eval())[1]
    for seed in range(4):
        x = LAYOUTS[layout](torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(seed)))
        if kind == "lstm" and x.dim() not in (2, 3):
            continue
        with torch.no_grad():
            got, wanted = fast(x), model(x)
            if kind == "lstm":
                got, wanted = got[0], wanted[0]
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5, msg=f"call {seed + 1}")
