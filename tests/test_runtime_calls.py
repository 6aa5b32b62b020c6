"""Calls of accelerated modules: the weights are those of the moment, in graphs and by turns too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrizations, vector_to_parameters
from torch.nn.utils.rnn import pack_padded_sequence

from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.nn.rhn import RHN
from sparsernn.runtime.layers import accelerate


class Net(nn.Module):
    """A layer of each kind that is accelerated, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 20, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(40, 18, batch_first=True)
        self.ragged = RaggedLSTM(18, [9, 17], batch_first=True)
        self.highway = RHN(17, 8, 2, batch_first=True)
        self.cell = nn.LSTMCell(8, 11)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.lstm, self.gru, self.ragged, self.highway):
            x = layer(x)[0]
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0])  # type: ignore[index]


def new(like: Tensor, seed: int = 1) -> nn.Parameter:
    values = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return nn.Parameter(0.3 * values, requires_grad=False)


def each(change: Callable[[nn.Module, str, nn.Parameter], Any]) -> Callable[[nn.Module], None]:
    def change_all(model: nn.Module) -> None:
        for module in list(model.modules()):
            for name, p in list(module._parameters.items()):
                if p is not None:
                    change(module, name, p)

    return change_all


def set_data(module: nn.Module, name: str, p: nn.Parameter) -> None:
    p.data = new(p).data


def other_strides(module: nn.Module, name: str, p: nn.Parameter) -> None:
    # The same memory, read the other way round.
    p.data = p.data.view(p.shape[::-1]).t() if p.dim() == 2 else p.data


def another_object(module: nn.Module, name: str, p: nn.Parameter) -> None:
    """The same place again, by another object whose own count of changes is as high."""
    other = nn.Parameter(p.data, requires_grad=False)
    other.view(-1)[:3].mul_(1.5)
    while other._version < p._version:
        other.mul_(1.0)
    setattr(module, name, other)


# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "setattr": each(lambda m, name, p: setattr(m, name, new(p))),
    "setattr twice": each(lambda m, name, p: [setattr(m, name, new(p, s)) for s in (3, 4)]),
    ".data =": each(set_data),
    "a lazily negated parameter": each(
        lambda m, name, p: setattr(m, name, nn.Parameter(torch._neg_view(new(p).data), requires_grad=False))
    ),
    ".data = other strides": each(other_strides),
    "another object of the same memory": each(another_object),
    ".data.mul_": each(lambda m, name, p: p.data.mul_(1.5)),
    ".data.add_": each(lambda m, name, p: p.data.add_(0.01)),
    "numpy": each(lambda m, name, p: p.detach().numpy().__imul__(0.5)),
    "in place": each(lambda m, name, p: p.copy_(new(p))),
    "one number in place": each(lambda m, name, p: p.view(-1)[:1].fill_(3.0)),
    "load_state_dict": lambda m: m.load_state_dict({k: new(v).data for k, v in m.state_dict().items()}),
    "assign": lambda m: m.load_state_dict({k: new(v) for k, v in m.state_dict().items()}, assign=True),
    "vector": lambda m: vector_to_parameters(0.5 * parameters_to_vector(m.parameters()), m.parameters()),
    "half and back": lambda m: m.half().float(),
    "requires_grad": lambda m: m.requires_grad_(True),
    "pruned": lambda m: [
        torch.nn.utils.prune.l1_unstructured(module, name, 0.5)
        for module, name in ((m.head, "weight"), (m.gru, "weight_hh_l0"), (m.cell, "weight_ih"))
    ],
    "a bias pruned": lambda m: torch.nn.utils.prune.l1_unstructured(m.head, "bias", 0.5),
    "normalised": lambda m: [parametrizations.weight_norm(module) for module in (m.head,)],
    "no bias": lambda m: setattr(m.head, "bias", None),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_call_sees_every_change_of_its_weights(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 4, 6)
    with torch.no_grad():
        fast = accelerate(model)
        fast(x), fast(x)
        for changed in (fast, model):
            CHANGES[kind](changed)
        for _ in range(2):
            torch.testing.assert_close(fast(x), model(x), rtol=0, atol=1e-5)


def test_functional_calls_use_the_weights_given() -> None:
    model, x = Net().eval(), torch.randn(2, 4, 6)
    fast, other = accelerate(model), Net().eval()
    with torch.no_grad():
        given = {name: p.clone() for name, p in other.named_parameters()}
        for _ in range(2):
            got = torch.func.functional_call(fast, given, (x,))
            torch.testing.assert_close(got, other(x), rtol=0, atol=1e-5)
            torch.testing.assert_close(fast(x), model(x), rtol=0, atol=1e-5)


def test_weights_made_in_inference_mode_are_watched_too() -> None:
    model, x = nn.LSTM(4, 9).eval(), torch.randn(3, 2, 4)
    fast = accelerate(model)
    with torch.inference_mode():
        for changed in (fast, model):
            changed.weight_hh_l0 = new(model.weight_hh_l0)
        torch.testing.assert_close(fast(x)[0], model(x)[0], rtol=0, atol=1e-5)
        for changed in (fast, model):
            changed.weight_hh_l0[0, 0] = 3.0
        torch.testing.assert_close(fast(x)[0], model(x)[0], rtol=0, atol=1e-5)


def test_weights_that_went_elsewhere_are_refused() -> None:
    fast = accelerate(nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 5)).eval())
    fast(torch.randn(2, 1, 4))
    kept = copy.deepcopy(fast)
    fast[1].weight_hh_l0.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"weight_hh_l0 .* without memory of its own"):
        fast(torch.randn(2, 1, 4))
    kept.to("meta")
    with pytest.raises(RuntimeError):
        kept(torch.randn(2, 1, 4))


@pytest.mark.parametrize("backend", ("eager", "aot_eager"))
def test_under_torch_compile_a_module_is_a_graph_break(backend: str) -> None:
    model = Net().eval()
    fast = accelerate(model)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(fast, backend=backend)
        for batch, steps in ((1, 3), (2, 5), (1, 6), (1, 3)):
            x = torch.randn(batch, steps, 6)
            torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-5)
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"compiled kernels|LSTM"):
            torch.compile(fast, backend=backend, fullgraph=True)(x)
    torch._dynamo.reset()


def test_a_stream_under_torch_compile_steps_as_it_does() -> None:
    fast = accelerate(nn.Sequential(nn.GRU(4, 7, batch_first=True)).eval())
    ours, theirs = fast.stream(2), fast.stream(2)
    torch._dynamo.reset()
    step = torch.compile(lambda x: theirs.step(x + 1) * 2, backend="eager")
    with torch.no_grad():
        for x in torch.randn(5, 2, 4):
            assert torch.equal(step(x), ours.step(x + 1) * 2)
    with pytest.raises(RuntimeError, match="kernels"):
        torch.vmap(ours.step)(torch.randn(3, 2, 4))
    torch._dynamo.reset()


def test_known_calls_are_known_by_all_that_shapes_them() -> None:
    """Calls of many forms by turns, each form again and again, as torch answers them."""
    torch.manual_seed(1)
    model = nn.LSTM(5, 9, 2, batch_first=True, bidirectional=True, proj_size=4).eval()
    fast = accelerate(model)

    def states(*rows: int) -> tuple[Tensor, Tensor]:
        return torch.randn(4, *rows, 4), torch.randn(4, *rows, 9)

    x = torch.randn(3, 7, 5)
    packed = pack_padded_sequence(x, torch.tensor([2, 7, 1]), batch_first=True, enforce_sorted=False)
    forms: list[Callable[[], tuple[Any, ...]]] = [
        lambda: (x,), lambda: (x[:, :4],), lambda: (x[0],), lambda: (x[0], states()), lambda: (x, states(3)),
        lambda: (x[:1], states(1)), lambda: (packed,), lambda: (packed, states(3)), lambda: (x.transpose(0, 1),),
        lambda: (x, list(states(3))),
    ]  # fmt: skip
    with torch.no_grad():
        for _ in range(3):
            for form in forms:
                given = form()
                torch.testing.assert_close(fast(*given), model(*given), rtol=0, atol=1e-5)
        for changed in (fast, model):
            changed.batch_first = False
        torch.testing.assert_close(fast(x), model(x), rtol=0, atol=1e-5)
    same = nn.LSTMCell(4, 6).eval()
    fast_cell, h, x = accelerate(same), torch.randn(2, 6), torch.randn(2, 4)
    for given in ((h, h), (h, h + 1), (h, h)):
        torch.testing.assert_close(fast_cell(x, given), same(x, given), rtol=0, atol=1e-5)
