"""Buffers whose addresses kernels are given have the type and the place that the kernels take them for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn import runtime
from sparsernn.nn.gated import GatedGRU
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.nn.rhn import RHN
from sparsernn.runtime.processor import processor

MAKERS = (
    "empty",
    "zeros",
    "ones",
    "full",
    "tensor",
    "as_tensor",
    "arange",
    "linspace",
    "eye",
    "rand",
    "randn",
    "randint",
)


def unnamed(tree: ast.Module) -> list[int]:
    """Lines that make a tensor without naming its dtype and device."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    makers = [c for c in calls if ast.unparse(c.func) in {f"torch.{name}" for name in MAKERS}]
    return [c.lineno for c in makers if not {"dtype", "device"} <= {k.arg for k in c.keywords}]


def test_every_buffer_of_the_kernels_names_its_dtype_and_device() -> None:
    assert unnamed(ast.parse("torch.zeros(3, dtype=torch.float32)")) == [1]
    files = Path(str(runtime.__file__)).parent.glob("*.py")
    assert {path.name: lines for path in files if (lines := unnamed(ast.parse(path.read_text("utf-8"))))} == {}


class Net(nn.Module):
    """Every kind of layer, and every state as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(6, 20, proj_size=9, bidirectional=True)
        self.gated = GatedGRU.from_dense(nn.GRU(18, 20))
        self.cell = nn.GRUCell(20, 17)
        self.ragged = RaggedLSTM(17, [5, 19])
        self.highway = RHN(19, 18, depth=2)
        self.head = nn.Linear(18, 21)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a, (h, c) = self.first(x)
        b, g = self.gated(a)
        y = torch.stack([self.cell(step) for step in b])
        y, (_, last) = self.ragged(y)
        y, s = self.highway(y)
        return [self.head(y), h, c, g, last[-1], s]


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def sparse(model: nn.Module) -> nn.Module:
    """Half of the weights gone, so that other layouts than the dense one are chosen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p *= torch.rand_like(p) > 0.9
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"][: 2 + processor().vnni])
def test_defaults_of_dtype_and_device_change_nothing(dtype: torch.dtype, precision: Any) -> None:
    x = torch.randn(7, 3, 6)
    chain = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.Tanh()).eval()
    recurrent = nn.Sequential(*chain, nn.LSTM(6, 20)).eval()
    for make in (Net, lambda: sparse(Net())):
        model = make().eval()
        with torch.no_grad():
            want = srn.accelerate(model, precision)(x)
            early = srn.accelerate(model, precision)
            early(x[:1])
            with defaults(dtype, "meta"):
                for fast in (early, srn.accelerate(model, precision)):
                    got = fast(x)
                    assert [g.dtype for g in got] == [torch.float32] * len(want)
                    assert all(torch.equal(g, w) for g, w in zip(got, want))
    tokens = torch.tensor([3])
    want = srn.accelerate(recurrent, precision).stream(example=torch.tensor([[3]])).step(tokens).clone()
    with defaults(dtype, "meta"):
        assert torch.equal(srn.accelerate(recurrent, precision).stream().step(tokens), want)
