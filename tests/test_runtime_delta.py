"""A delta stream multiplies what moved, and nothing else: held against the recurrence in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from delta_models import Chain, walk
from sparsernn.runtime import delta as module
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.pack import WIDTH


class Product:
    """y = b + W x' of the inputs x' as last propagated, in float64; which columns moved, step by step."""

    def __init__(self, weight: Tensor, bias: Tensor, threshold: float | Tensor) -> None:
        self.weight, self.bias, self.threshold = weight.double(), bias.double(), threshold
        self.last = torch.zeros(weight.shape[1], dtype=torch.float32)
        self.moved: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        moved = (x - self.last).abs() > self.threshold  # float32, as the kernel decides
        self.last = torch.where(moved, x, self.last)
        self.moved.append(moved)
        return self.weight @ self.last.double() + self.bias


class Oracle:
    """The delta recurrence of a `Chain` in float64, given the states that the stream had in float32 before each step:
    what moved is decided on the same numbers."""

    def __init__(self, model: Chain, delta: float) -> None:
        self.mode = model.rnn.mode
        w = {name: p.detach() for name, p in model.named_parameters()}
        self.products = []
        for n in range(2):
            for kind in ("ih", "hh"):
                self.products.append(Product(w[f"rnn.weight_{kind}_l{n}"], w[f"rnn.bias_{kind}_l{n}"], delta))
        self.products.append(Product(w["head.weight"], w["head.bias"], delta))

    def step(self, x: Tensor, before: list[Any], after: list[Any]) -> tuple[list[Tensor], Tensor]:
        """h of each layer and the output, from the stream's states before a step, and after it for readers."""
        found = []
        for n in range(2):
            h, *c = (s[0].double() for s in before[n])
            a, b = self.products[2 * n](x), self.products[2 * n + 1](before[n][0][0])
            if self.mode == "GRU":
                (ar, az, an), (br, bz, bn) = a.chunk(3), b.chunk(3)
                z, new = torch.sigmoid(az + bz), torch.tanh(an + torch.sigmoid(ar + br) * bn)
                found.append((1 - z) * new + z * h)
            elif self.mode == "LSTM":
                i, f, g, o = (a + b).chunk(4)
                c_new = torch.sigmoid(f) * c[0] + torch.sigmoid(i) * torch.tanh(g)
                found.append(torch.sigmoid(o) * torch.tanh(c_new))
            else:
                found.append(torch.tanh(a + b))
            x = after[n][0][0]
        return found, self.products[4](x)


def thin_blocks(model: nn.Module, share: float = 0.3) -> None:
    """Only a share of the WIDTH x 1 blocks of each matrix keeps its weights."""
    generator = torch.Generator().manual_seed(3)
    for weight in (p for p in model.parameters() if p.dim() == 2):
        kept = torch.rand(-(-weight.shape[0] // WIDTH), weight.shape[1], generator=generator) < share
        weight.data *= kept.repeat_interleave(WIDTH, 0)[: weight.shape[0]]


@pytest.mark.smoke
@pytest.mark.parametrize("sparse", (False, True))
@pytest.mark.parametrize("delta", (0.0, 0.05))
@pytest.mark.parametrize("cls", (nn.GRU, nn.LSTM, nn.RNN))
def test_the_recurrence_in_float64_and_its_columns(cls: Any, delta: float, sparse: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "REFRESH", 70)
    torch.manual_seed(1)
    model = Chain(cls).eval()
    if sparse:
        thin_blocks(model)
    stream = accelerate(model).stream(delta=delta)
    oracle, columns, worst = Oracle(model, delta), 0, 0.0
    for x in walk(200):
        before = stream.state
        got = stream.step(x)[0]
        after = stream.state
        hidden, want = oracle.step(x[0], before, after)
        worst = max(worst, float((got - want).abs().max()))
        for (h, *_), expected in zip(after, hidden):
            worst = max(worst, float((h[0] - expected).abs().max()))
        for (memory,), product in zip(after[2:], oracle.products):
            assert torch.equal(memory[0, -len(product.last) - 1 : -1], product.last)
    assert worst <= 2e-6
    for product in oracle.products:  # the steps at which sums are made anew read all columns that are not zero
        columns += sum(int(moved.sum()) for moved in product.moved)
    total = sum(len(product.last) for product in oracle.products)
    assert columns <= stream.read.columns * 200 * total <= columns + 2 * total
    assert delta == 0 or stream.read.columns < 0.6


@pytest.mark.parametrize("cls", (nn.GRU, nn.LSTM, nn.RNN))
def test_threshold_0_is_the_plain_stream(cls: Any) -> None:
    """Up to the order of summation: columns are added to the sum of the step before."""
    torch.manual_seed(2)
    fast = accelerate(Chain(cls).eval())
    plain, stream = fast.stream(), fast.stream(delta=0.0)
    for x in walk(1500):
        assert torch.allclose(stream.step(x), plain.step(x), rtol=0, atol=5e-6)


def test_what_stands_still_is_not_read() -> None:
    """Bytes are those of the blocks of columns that moved, and of their indices."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 3 * WIDTH), nn.ReLU()).eval()
    thin_blocks(model, 0.5)

    class Front(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.rnn = model, nn.RNN(3 * WIDTH, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.front(x))[0]

    fast = accelerate(Front().eval())
    stream = fast.stream(delta={"front.0": 0.01})
    plain = fast.stream().read.plain
    linear = fast.stream(delta={"front.0": 0.0}).read.bytes  # nothing of it was read yet
    x = torch.ones(1, 6)
    stream.step(x)
    x[0, 2] += 1.0
    x[0, 4] += 0.005
    for _ in range(3):
        stream.step(x)
    blocks = (model[0].weight.view(3, WIDTH, 6) != 0).any(1).sum(0)
    read = (int(blocks.sum()) + int(blocks[2])) * (4 * WIDTH + 4) + (6 + 1) * 8
    assert stream.read.steps == 4 and stream.read.plain == plain
    assert stream.read.columns == 7 / 24
    assert stream.read.bytes == linear + read / 4


def test_thresholds_of_each_column() -> None:
    torch.manual_seed(4)
    fast = accelerate(Chain().eval())
    still = torch.full((9,), torch.inf)
    still[4] = 0.0
    stream = fast.stream(delta={"rnn.l0": (still, 0.0)})
    want = fast.stream()
    for x in walk(30):
        only = torch.zeros(1, 9)
        only[0, 4] = x[0, 4]
        assert torch.allclose(stream.step(x), want.step(only), atol=1e-6)


def test_state_and_reset_bring_the_memory_back(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "REFRESH", 16)
    fast = accelerate(Chain(nn.LSTM).eval())
    stream, other = fast.stream(delta=0.05), fast.stream(delta=0.05)
    xs = walk(40)
    first = [stream.step(x).clone() for x in xs[:10]]
    kept = stream.state
    rest = [stream.step(x).clone() for x in xs[10:]]
    other.state = kept
    assert all(torch.equal(other.step(x), want) for x, want in zip(xs[10:], rest))
    stream.reset()
    assert all(torch.equal(stream.step(x), want) for x, want in zip(xs, first + rest))
    stream.reset(torch.tensor([False]))
    assert not torch.equal(stream.step(xs[0]), first[0])
    with pytest.raises(ValueError, match="one row a recurrent layer"):
        stream.state = kept[:2]


def test_sums_that_are_made_anew_do_not_drift(monkeypatch: Any) -> None:
    torch.manual_seed(5)
    fast = accelerate(nn.RNN(8, WIDTH).eval())
    bias = (fast.bias_ih_l0 + fast.bias_hh_l0).double()
    errors = []
    for period in (module.REFRESH, 10**9):
        monkeypatch.setattr(module, "REFRESH", period)
        stream = fast.stream(delta=0.0)
        for x in torch.randn(20_000, 1, 8, generator=torch.Generator().manual_seed(6)):
            stream.step(x)
        total = stream._matrices.products[0].memory[0, :WIDTH]
        errors.append(float((total - (fast.weight_ih_l0.double() @ x[0].double() + bias)).abs().max()))
    assert errors[0] < 5e-6 < errors[1]


def test_nan_is_gone_after_a_reset() -> None:
    fast = accelerate(Chain().eval())
    stream, clean = fast.stream(delta=0.1), fast.stream(delta=0.1)
    x = walk(3)
    stream.step(torch.full((1, 9), torch.nan))
    assert stream.step(x[0]).isnan().any()
    stream.reset()
    assert all(torch.equal(stream.step(step), clean.step(step)) for step in x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rnn(x)[0]


@pytest.mark.parametrize(
    ("make", "options", "words"),
    (
        (Chain, {"delta": 0.1, "batch": 2}, "batch=1, got 2"),
        (Chain, {"delta": -0.1}, "a number from 0 on"),
        (Chain, {"delta": {"rnn.l0": "much"}}, "a number from 0 on"),
        (Chain, {"delta": {"rnn.l0": torch.zeros(3)}}, "one for each of 9 columns"),
        (Chain, {"delta": {"rnn.l7": 0.1}}, "these are rnn.l0, rnn.l1, head"),
        (Chain, {"delta": {"head": (0.1, 0.1)}}, "2 thresholds, expected one threshold"),
        (Residual, {"delta": 0.1}, "chains of layers"),
    ),
)
def test_refusals(make: Any, options: dict[str, Any], words: str) -> None:
    fast = accelerate(make().eval())
    with pytest.raises((ValueError, RuntimeError), match=words) as error:
        fast.stream(**options)
    assert str(error.value).count("\n") <= 2


def test_low_precision_is_refused() -> None:
    fast = accelerate(Chain().eval(), {"rnn": "bfloat16"})
    with pytest.raises(ValueError, match="float32 weights alone"):
        fast.stream(delta=0.1)
    assert fast.stream(delta={"head": 0.1}).read.steps == 0
