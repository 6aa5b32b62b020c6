"""Accelerated layers whose weights are computed at each call, or whose class is derived from torch's: the same numbers,
or torch's own path and the reason."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_sequence

import sparsernn as srn
from low_rank import lora
from sparsernn.nn.gated import GatedGRU, GatedLSTM
from sparsernn.nn.graph import GraphGRU
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.nn.rhn import RHN
from sparsernn.nn.split import SplitLSTM
from sparsernn.runtime.modules import Accelerated
from sparsernn.structure.examples import leaves_in


def twice(module: nn.Module, name: str) -> None:
    """A mask on a part of a weight norm."""
    nn.utils.weight_norm(module, name)
    if bool(((getattr(module, name) != 0).sum(1) > 1).all()):  # the norm of a row of zeros is torch's own NaN
        prune.l1_unstructured(module, f"{name}_v", 1)


COMPUTED: dict[str, Callable[[nn.Module, str], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": nn.utils.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "mask": lambda m, name: prune.l1_unstructured(m, name, 0.5),
    "masks": lambda m, name: [prune.l1_unstructured(m, name, 0.3), prune.random_unstructured(m, name, 0.3)],
    "lora": lora,
    "mask on a norm": twice,
}


def split_parts(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.LSTM)] or [module]


def gated(kind: type[Any], layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        layer.weight_ih_l0[:3] = 0
        layer.weight_hh_l0[:3] = 0
    return kind.from_dense(layer)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(6, 8, 2, bidirectional=True, proj_size=5),
    "GRU": lambda: nn.GRU(6, 8, 2, bidirectional=True),
    "RNN": lambda: nn.RNN(6, 8, nonlinearity="relu", bidirectional=True),
    "LSTMCell": lambda: nn.LSTMCell(6, 8),
    "GRUCell": lambda: nn.GRUCell(6, 8),
    "RNNCell": lambda: nn.RNNCell(6, 8),
    "RaggedLSTM": lambda: RaggedLSTM(6, [[5, 4], [3, 7]], bidirectional=True),
    "GatedLSTM": lambda: gated(GatedLSTM, nn.LSTM(6, 8)),
    "GatedGRU": lambda: gated(GatedGRU, nn.GRU(6, 8, bidirectional=True)),
    "SplitLSTM": lambda: SplitLSTM(6, 8, blocks=2),
    "Graph": lambda: GraphGRU(6, nx.gnp_random_graph(9, 0.4, seed=1)),
    "RHN": lambda: RHN(6, 8, depth=2, num_layers=2),
    "Linear": lambda: nn.Linear(6, 8),
}


class Model(nn.Module):
    """The layer, and a recurrent one that is always accelerated, before a head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.GRU(6, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        if isinstance(self.layer, nn.RNNCellBase):
            return [*leaves_in([self.layer(step) for step in x]), self.last(x)[0]]
        return [*leaves_in(self.layer(x)), self.last(x)[0]]


def close(got: Any, want: Any) -> bool:
    got, want = list(leaves_in(got)), list(leaves_in(want))
    pairs = [(a, b) for x, y in zip(got, want, strict=True) for a, b in zip(rows(x), rows(y), strict=True)]
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def rows(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def matrices(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for part in split_parts(module):
        yield from ((part, name) for name, p in list(part.named_parameters(recurse=False)) if p.dim() == 2)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("layer", LAYERS)
def test_computed_weights_are_worked_out_once(layer: str, kind: str) -> None:
    """On one weight, on the last, and on all; and nothing is left of what they were computed from."""
    x = torch.randn(4, 2, 6)
    for chosen in (slice(1), slice(-1, None), slice(None)):
        model = Model(LAYERS[layer]())
        for part, name in list(matrices(model.layer))[chosen]:
            COMPUTED[kind](part, name)
        model.eval()
        before = {name: t.clone() for name, t in model.state_dict().items()}
        fast = srn.accelerate(model)
        assert isinstance(fast.layer, Accelerated), fast.explain()
        assert close(fast(x), model(x))
        assert {name.rpartition(".")[2].partition("_l")[0] for name in fast.state_dict()} <= PLAIN
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        assert close(copy.deepcopy(fast)(x), model(x))


PLAIN = {"weight", "bias", "weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh", "mask_ih", "mask_hh"}
PLAIN |= {f"{name}_d{d}" for name in ("weight_hh", "bias") for d in range(2)}


@pytest.mark.parametrize("layer", ["LSTM", "GRUCell", "Linear", "RaggedLSTM"])
def test_masked_and_parametrized_biases_are_not_lost(layer: str) -> None:
    x = torch.randn(4, 2, 6)
    for attach in (COMPUTED["mask"], COMPUTED["lora"]):
        model = Model(LAYERS[layer]()).eval()
        for name in [name for name, p in model.layer.named_parameters() if p.dim() == 1]:
            attach(model.layer, name)
        assert close(srn.accelerate(model)(x), model(x))


def test_a_tied_weight_keeps_its_own_value() -> None:
    class Tied(nn.Module):
        def __init__(self, attach: Callable[[nn.Module, str], Any]) -> None:
            super().__init__()
            self.words, self.rnn, self.head = nn.Embedding(9, 6), nn.LSTM(6, 6), nn.Linear(6, 9)
            self.head.weight = self.words.weight
            attach(self.head, "weight")

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.words(x))[0])

    x = torch.randint(9, (5, 2))
    for name in ("mask", "lora", "spectral_norm", "old spectral_norm"):
        model = Tied(COMPUTED[name]).eval()
        assert close(srn.accelerate(model)(x), model(x))


class WeightDrop(nn.Module):
    """Merity et al., arXiv 1708.02182: the raw weight is a parameter, what the layer reads is set at each call."""

    def __init__(self, module: nn.Module, names: list[str], outside: bool, set_now: bool) -> None:
        super().__init__()
        self.module, self.names, self.outside = module, names, outside
        for name in names:
            raw = getattr(module, name)
            delattr(module, name)
            (self if outside else module).register_parameter(f"{name}_raw", nn.Parameter(raw.data))
            if set_now:
                setattr(module, name, raw.detach().clone())

    def forward(self, x: Tensor) -> Any:
        for name in self.names:
            raw = getattr(self if self.outside else self.module, f"{name}_raw")
            setattr(self.module, name, nn.functional.dropout(raw, 0.5, self.training))
        return self.module(x)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("set_now", [False, True])
@pytest.mark.parametrize("layer", ["LSTM", "GRU", "LSTMCell", "Linear", "RaggedLSTM"])
def test_weight_drop_sets_its_weights_and_they_are_used(layer: str, outside: bool, set_now: bool) -> None:
    x = torch.randn(2, 6) if layer == "LSTMCell" else torch.randn(4, 2, 6)
    inner = LAYERS[layer]()
    names = [name for name, p in inner.named_parameters() if p.dim() == 2 and "_ih" not in name]
    model = nn.ModuleDict({"a": WeightDrop(inner, names, outside, set_now), "b": nn.GRU(6, 3)}).eval()
    fast = srn.accelerate(model)
    assert isinstance(fast["a"].module, Accelerated)
    assert close(fast["a"](x), model["a"](x))
    for p, raw in zip(fast["a"].parameters(), model["a"].parameters()):
        p.normal_()
        raw.copy_(p)
    for name in names:  # what was loaded is used at the next call
        owners = [m["a"] if outside else m["a"].module for m in (fast, model)]
        getattr(owners[0], f"{name}_raw").normal_()
        getattr(owners[1], f"{name}_raw").copy_(getattr(owners[0], f"{name}_raw"))
    others = [name for name, _ in model["a"].module.named_parameters() if not name.endswith("_raw")]
    for name in others:
        getattr(model["a"].module, name).copy_(getattr(fast["a"].module, name))
    assert close(fast["a"](x), model["a"](x))
    with pytest.raises(RuntimeError, match="change the original model"):
        setattr(fast["a"].module, names[0], torch.zeros(3))


class Noise(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * torch.randn_like(weight)


def test_what_cannot_be_worked_out_stays_on_torch_with_a_reason() -> None:
    class Replaced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.LSTM(6, 6) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(self.b(self.a(x)[0])[0])[0])[0]

    model = Replaced()
    parametrize.register_parametrization(model.a, "weight_hh_l0", Noise())
    inner = model.b.forward
    model.b.forward = lambda x: inner(2 * x)
    del model.c.weight_ih_l0
    model.c.weight_ih_l0 = torch.randn(24, 6)  # of another object than a parameter: still the layer's weight
    model.eval()
    fast = srn.accelerate(model)
    assert "a: on torch, the parametrization of weight_hh_l0 gives other numbers at each call" in fast.explain()
    assert "b: on torch, its forward was replaced" in fast.explain()
    assert isinstance(fast.c, Accelerated) and isinstance(fast.d, Accelerated)
    x = torch.randn(4, 2, 6)
    fast(x), model(x)  # torch's layers look at their weights once more at a first call
    torch.manual_seed(1)
    want = model(x)
    torch.manual_seed(1)
    assert close(fast(x), want)
    with pytest.raises(RuntimeError, match="gives other numbers at each call"):
        srn.accelerate(nn.Sequential(model.a).eval())


class Scaled(nn.LSTM):
    """Only what comes behind torch's layer is its own."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        y, state = super().forward(x, hx)
        return 2 * y.relu(), state


class Last(nn.GRU):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, batch_first=True)
        self.norm = nn.Linear(sizes[-1], 4)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.norm(super().forward(x)[1][-1])


class Same(nn.RNN):
    pass


class Cell(nn.LSTMCell):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return tuple(s.tanh() for s in super().forward(x, hx))


class Ragged(RaggedLSTM):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, hx)[0] + 1


@pytest.mark.parametrize("make", [Scaled, Last, Same, Cell, lambda *s: Ragged(6, [5, 7])])
@pytest.mark.parametrize("kind", ["", "lora", "old weight_norm", "mask"])
def test_derived_layers_run_kernels_for_the_super_call(make: Callable[..., nn.Module], kind: str) -> None:
    model = nn.Sequential(make(6, 8))
    if kind:
        part, name = list(matrices(model[0]))[-1 if kind == "mask" else 0]
        COMPUTED[kind](part, name)
    model.eval()
    fast, x = srn.accelerate(model), torch.randn(*((3, 6) if make is Cell else (3, 4, 6)))
    assert isinstance(fast[0], Accelerated) and isinstance(fast[0], type(model[0]).__mro__[1 if kind == "lora" else 0])
    for again in (fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(again[0]).__name__ == type(fast[0]).__name__
        assert close(again(x), model(x))
    if make is Scaled:
        ragged = pack_sequence([torch.randn(n, 6) for n in (5, 3)])
        with pytest.raises(AttributeError):  # as the class itself: its own forward takes no packed sequence
            fast(ragged)
    if make in (Scaled, Last):
        time = 0 if make is Scaled else 1
        stream = fast.stream(x.shape[1 - time], example=x)
        for t in range(x.shape[time]):
            y, want = stream.step(x.select(time, t)), model(x.narrow(time, 0, t + 1))
            assert close(y[0], want[0][-1]) if make is Scaled else close(y, want)
