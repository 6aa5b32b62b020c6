"""The bound that `benchmark` prints for bfloat16 and int8 holds for every input, also for large and long ones."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from sparsernn.nn.rhn import RHN
from sparsernn.runtime.bounds import error_bound, product_error
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import processor
from sparsernn.timing import benchmark

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.filterwarnings("ignore:accelerate. this processor has no AVX-512 VNNI"),
]


def int8(x: Tensor) -> Tensor:
    """Rounded as the kernels do: a step a row, the largest of the row is 127 of them."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return torch.where(step > 0, (x / step).round() * step, 0)


ROUNDED = {
    "bfloat16": lambda w, x: x @ w.float().bfloat16().double().T,
    "int8": lambda w, x: int8(x) @ int8(w).T,
}


@pytest.mark.parametrize("precision", ("bfloat16", "int8"))
def test_no_product_is_further_off_than_its_bound(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    nearest = 0.0
    for scale in (1e-20, 1e-3, 1.0, 1e6, 1e18):
        for density in (0.05, 0.5, 1.0):
            w = torch.randn(20, 33, generator=generator, dtype=torch.float64)
            w = (w * (torch.rand(w.shape, generator=generator) < density)).float().double()
            x = torch.randn(300, 33, generator=generator, dtype=torch.float64)
            x[::3] *= 10 ** (4 * torch.rand(x[::3].shape, generator=generator, dtype=torch.float64) - 2)  # spikes
            x *= scale
            off = (ROUNDED[precision](w, x) - x @ w.T).abs()
            for row in (0, 1, 2, 3, 151, 299):
                bound = product_error(w, x[row].abs(), precision)  # type: ignore[arg-type]
                assert (off[row] <= bound * (1 + 1e-9)).all()
                nearest = max(nearest, float((off[row] / bound.clamp(min=1e-300)).max()))
            bound = product_error(w, x.abs().amax(0), precision)  # type: ignore[arg-type]
            assert (off <= bound * (1 + 1e-9)).all()
    assert nearest > 0.2  # a bound, and not just any large number


class Net(nn.Module):
    def __init__(self, rnn: nn.Module, width: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.rnn, self.head, self.last = rnn, nn.Linear(width, 8), last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.rnn(x)[0]))


def net(rnn: nn.Module, width: int, last: nn.Module | None = None) -> Net:
    """With weights three times as large as usual: its states are far from the linear range."""
    torch.manual_seed(0)
    model = Net(rnn, width, last).eval().requires_grad_(False)
    for p in model.parameters():
        p.mul_(3)
    return model


def sequences(seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(rows, steps, 16, generator=generator)
        for scale, rows, steps in ((1.0, 2_000, 8), (100.0, 200, 8), (1e6, 200, 8), (1e-6, 100, 8), (1.0, 5, 100))
    ]


def test_an_int8_net_stays_inside_on_thousands_of_inputs() -> None:
    stays_inside(sequences())


@pytest.mark.nightly
@pytest.mark.counts("int8_bound", 2_505)
@pytest.mark.parametrize("seed", range(2, 6))
def test_an_int8_net_stays_inside_on_ten_thousand_inputs(seed: int) -> None:
    stays_inside(sequences(seed))


def stays_inside(inputs: list[Tensor]) -> None:
    """By an oracle of the int8 products, since not every processor has them."""
    model = net(nn.LSTM(16, 32, batch_first=True), 32)
    weights = {name: p.double() for name, p in model.named_parameters()}

    def run(x: Tensor, product: object) -> Tensor:
        h = c = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            gates = product(weights["rnn.weight_ih_l0"], step) + product(weights["rnn.weight_hh_l0"], h)  # type: ignore[operator]
            i, f, g, o = (gates + weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"]).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return product(weights["head.weight"], h) + weights["head.bias"]  # type: ignore[operator]

    bound = error_bound(accelerate(model, "int8"), torch.zeros(1, 2, 16))
    assert bound is not None and bound < 100
    for x in inputs:
        x = x.double()
        off = (run(x, ROUNDED["int8"]) - run(x, lambda w, x: x @ w.T)).abs().max()
        assert 0 < off <= bound


PRECISIONS = ("bfloat16", "int8") if processor().vnni else ("bfloat16",)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "model",
    [
        net(nn.LSTM(16, 24, 2, batch_first=True), 24),
        net(nn.LSTM(16, 24, batch_first=True, proj_size=10, bidirectional=True), 20, nn.Tanh()),
        net(nn.GRU(16, 24, batch_first=True), 24, nn.Sigmoid()),
        net(nn.RNN(16, 24, batch_first=True, bidirectional=True), 48, nn.ReLU()),
        net(RHN(16, 20, depth=2, batch_first=True), 20),
    ],
    ids=["lstm", "projected", "gru", "rnn", "highway"],
)
def test_models_stay_inside_what_benchmark_prints(model: Net, precision: str) -> None:
    fast = accelerate(model, precision)  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=140)
    result = benchmark({"dense": model, "fast": fast}, torch.randn(2, 5, 16), repeats=1, console=console)
    bound = result.rows[1].bound
    assert result.rows[0].bound is None and bound is not None
    assert "bound: on any" in console.file.getvalue()  # type: ignore[attr-defined]
    for x in sequences():
        x = x[:100]
        assert (fast(x) - model.double()(x.double())).abs().max() <= bound
        model.float()


def test_where_there_is_no_bound_none_is_printed() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(16, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.rnn(x)[0]

    x = torch.randn(2, 5, 16)
    for model, precision in (
        (net(nn.LSTM(16, 24, batch_first=True), 24), "float32"),
        (net(nn.RNN(16, 24, nonlinearity="relu", batch_first=True), 24), "bfloat16"),
        (Residual().eval(), "bfloat16"),
    ):
        fast = accelerate(model, precision)  # type: ignore[arg-type]
        console = Console(file=io.StringIO(), width=140)
        assert benchmark({"fast": fast}, x, repeats=1, console=console).rows[0].bound is None
        assert "bound" not in console.file.getvalue()  # type: ignore[attr-defined]
    # What saturates has one again.
    assert error_bound(accelerate(net(nn.RNN(16, 24, nonlinearity="relu", batch_first=True), 24, nn.Tanh()), "int8"), x)
