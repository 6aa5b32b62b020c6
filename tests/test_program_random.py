"""Causal models composed at random stream exactly: 300 here, 10,000 by `python tests/compositions.py --of programs`."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import CausalConv, Loop
from sparsernn.runtime.program.calls import NotAProgram
from sparsernn.runtime.program.check import BEYOND
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.make import make_program

STEPS = 48


class Along(nn.Module):
    """A layer on (B, C, T) for (B, T, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Merge(nn.Module):
    """Two branches of the same rate, the longer one cut at its start; added, gated, or side by side."""

    def __init__(self, one: nn.Module, two: nn.Module, how: str) -> None:
        super().__init__()
        self.one, self.two, self.how = one, two, how

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        steps = min(a.shape[1], b.shape[1])
        a, b = a[:, a.shape[1] - steps :], b[:, b.shape[1] - steps :]
        if self.how == "add":
            return a + b
        return a * torch.sigmoid(b) if self.how == "gate" else torch.cat([a, b], -1)


class Simple(nn.Module):
    """One of some functions without weights."""

    FUNCTIONS = (
        torch.tanh,
        F.silu,
        F.elu,
        lambda x: F.leaky_relu(x, 0.3),
        lambda x: x * 2 - 1,
        lambda x: x.softmax(-1),
        lambda x: F.pad(x, (0, 0, 2, 0))[:, :-2],  # two steps late
        lambda x: x[:, 1:],
        lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1),
        lambda x: x - F.pad(x, (0, 0, 1, 0))[:, :-1],
        lambda x: torch.where(x > 0, x, -0.1 * x),
        lambda x: x.clamp(-1, 1).flip(-1),
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.square().mean(-1, keepdim=True) + 1).sqrt(),
        lambda x: F.pad(x, (0, 0, 2, 0)).unfold(1, 3, 1).mean(-1),
        lambda x: torch.einsum("btf,btf->bt", x, x).unsqueeze(-1) * x / x.shape[-1],
    )

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return self.FUNCTIONS[self.number](x)


def layer(rng: random.Random, width: int, depth: int, strides: bool) -> tuple[nn.Module, int]:
    """A causal module from `width` features to the number that is returned."""
    out = rng.randint(1, 6)
    kind = rng.choice(
        ("linear", "norm", "rnn", "conv", "valid", "simple", "simple", "merge", "stride", "batch", "loop", "depth")
    )
    if kind == "linear":
        return nn.Linear(width, out, bias=rng.random() < 0.7), out
    if kind == "norm":
        return nn.LayerNorm(width), width
    if kind == "rnn":
        cls = rng.choice((nn.LSTM, nn.GRU, nn.RNN))
        return Recurrent(cls(width, out, rng.choice((1, 2)), batch_first=True, bias=rng.random() < 0.7)), out
    if kind == "conv":
        return Along(CausalConv(width, out, rng.randint(1, 4), rng.randint(1, 3))), out
    if kind == "depth":
        return Along(CausalConv(width, width, rng.randint(1, 4), rng.randint(1, 2), groups=width)), width
    if kind == "valid":
        return Along(nn.Conv1d(width, out, rng.randint(1, 3))), out
    if kind == "stride" and strides:
        return Along(nn.Conv1d(width, out, rng.randint(2, 3), stride=2, padding=rng.randint(0, 1))), out
    if kind == "batch":
        norm = nn.BatchNorm1d(width)
        norm.running_mean, norm.running_var = torch.randn(width) * 0.3, torch.rand(width) + 0.5
        return Along(norm), width
    if kind == "loop" and width == 4:
        return Loop(), 3
    if kind == "merge" and depth:
        one, a = chain(rng, width, depth - 1, rng.randint(1, 2), False)
        how = rng.choice(("add", "gate", "cat"))
        two, b = chain(rng, width, depth - 1, rng.randint(0, 2), False)
        if how != "cat" and a != b:
            two, b = nn.Sequential(two, nn.Linear(b, a)), a
        return Merge(one, two, how), a + b if how == "cat" else a
    return Simple(rng.randrange(len(Simple.FUNCTIONS))), width


def chain(rng: random.Random, width: int, depth: int, count: int, strides: bool) -> tuple[nn.Sequential, int]:
    layers = []
    for _ in range(count):
        new, width = layer(rng, width, depth, strides)
        layers.append(new)
    return nn.Sequential(*layers), width


def check(seed: int) -> None:
    """The program made of a random model gives each element of the whole call, when its clock says so: exactly in
    float64, and compiled as nearly as torch in float32, or 1e-5 of the output."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    width, rows = rng.randint(1, 5), rng.choice((1, 3))
    model, _ = chain(rng, width, 2, rng.randint(1, 5), True)
    model.eval()
    try:
        made = make_program(model, torch.randn(rows, 10, width), time=1)
    except NotAProgram as error:  # a strided convolution whose padding is more than its past
        assert "of look-ahead" in str(error) or "in the place of the last steps" in str(error)
        return
    program = made.program
    run, compiled = Interpreter(program), Compiled(program)
    # The whole call is a bit longer: its last elements read padding, where those of the stream go on.
    x = torch.randn(rows, STEPS + BEYOND, width, dtype=torch.float64)
    with torch.no_grad():
        # Norms over two features carry roundings far: that of the input moves them as well as those of torch.
        singles = [model.float()((x * (1 + n * 2.0**-24)).float()) for n in (0, -1, 1)]
        whole = model.double()(x)
    port, largest = program.outputs[0], max(1.0, float(whole.abs().max()))
    near = max(1e-5 * largest, *(4 * float((single - whole).abs().max()) for single in singles))
    for _ in range(2):
        exact, nearly = [], []
        for t in range(STEPS):
            (y,), (z,) = run.step(x[:, t]), compiled.step(x[:, t].float())
            assert (y is not None) == (z is not None) == port.clock.due(t)
            if y is not None and z is not None and len(exact) < whole.shape[1]:
                exact.append(y), nearly.append(z.clone())
        assert len(exact) >= (whole.shape[1] - 1) * STEPS // (STEPS + BEYOND) - 1
        if exact:
            want = whole[:, : len(exact)]
            scale = want.abs().amax((0, *range(2, want.dim())), keepdim=True).clamp(min=1.0)
            assert ((torch.stack(exact, 1) - want).abs() <= 1e-10 * scale).all(), seed
            assert (torch.stack(nearly, 1) - want).abs().max() <= near, seed
        run.reset(), compiled.reset()


@pytest.mark.parametrize("block", range(20))  # tests/compositions.py draws as many as one likes
def test_random_causal_models_stream_exactly(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sparsernn.runtime.program.check.FAR", STEPS
    )  # nothing here goes by the number of a step in Python
    for seed in range(15 * block, 15 * block + 15):
        check(seed)
