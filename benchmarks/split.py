"""Training steps of split layers, and inference, beside the dense forms that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.nn import SplitLSTM

from .measure import Ceiling, Engine, Row, versus

INPUT, UNITS, BLOCKS, TIME, BATCH = 1725, 1725, 5, 35, 20
TARGETS = {"masked layer of the same width": 3.5, "dense layer of the same size": 1 / 1.1}


def split(ceiling: Ceiling, rounds: int) -> list[Row]:
    """a split LSTM 5 x 345 against the masked layer of its width and the dense layer of its size"""
    torch.manual_seed(0)
    layer = SplitLSTM(INPUT, UNITS, blocks=BLOCKS, input_density=1 / BLOCKS)
    masked = layer.to_dense()
    masks = [(p != 0).to(p.dtype) for p in masked.parameters()]
    size = sum(p.numel() for p in layer.parameters())
    dense = dense_of(size)
    x_TBI = torch.randn(TIME, BATCH, INPUT)
    narrow_TBI = x_TBI[..., : dense.input_size].contiguous()
    operations = 3 * 2 * TIME * BATCH * sum(p.numel() for p in layer.parameters() if p.dim() > 1)
    ours = Engine(step(layer, x_TBI), output(layer, x_TBI))
    others = {
        "masked layer of the same width": step(masked, x_TBI, masks),
        "dense layer of the same size": step(dense, narrow_TBI),
    }
    checks = {
        "masked layer of the same width": output(masked, x_TBI),
        "dense layer of the same size": lambda: torch.zeros(1),
    }
    work = f"training step, split LSTM {BLOCKS}x{UNITS // BLOCKS}, T{TIME} B{BATCH}"
    # The outputs are compared before the first step, after which the weights differ.
    first = {name: check() for name, check in checks.items()} | {"ours": ours.check()}
    engines = {name: Engine(call, lambda name=name: first[name], TARGETS[name]) for name, call in others.items()}
    rows = versus(
        work, Engine(ours.call, lambda: first["ours"]), engines, ceiling.ideal(operations, 4 * size, 3), rounds
    )
    return rows + _inference(ceiling, rounds, layer, x_TBI)


def _inference(ceiling: Ceiling, rounds: int, layer: SplitLSTM, x_TBI: Tensor) -> list[Row]:
    model = nn.Sequential(SplitLSTM(INPUT, UNITS, blocks=BLOCKS, input_density=1 / BLOCKS)).eval()
    model[0].load_state_dict(layer.state_dict())
    fast, whole = srn.accelerate(model), model[0].to_dense().eval()
    matrices = sum(p.numel() for p in layer.parameters() if p.dim() > 1)
    found: list[Row] = []
    for name, x in (("T35 B20", x_TBI), ("step", x_TBI[:1, :1].contiguous())):
        calls: dict[str, Callable[[], Any]] = {
            "torch, the components one by one": lambda x=x: model(x)[0],
            "torch, the dense layer with zeros": lambda x=x: whole(x)[0],
        }
        engines = {n.replace("torch, ", "") + " in torch": Engine(call, call) for n, call in calls.items()}
        ours = Engine(lambda x=x: fast(x)[0], lambda x=x: fast(x)[0])
        ideal = ceiling.ideal(2 * matrices * x.shape[0] * x.shape[1], 4 * matrices, 1)
        found += versus(f"inference in one call, {name}", ours, engines, ideal, rounds)
    return found


def dense_of(size: int) -> nn.LSTM:
    """The square dense layer whose number of parameters is nearest to `size`."""
    width = min(range(1, 4000), key=lambda w: abs(4 * w * (2 * w + 2) - size))
    return nn.LSTM(width, width)


def step(layer: nn.Module, x_TBI: Tensor, masks: list[Tensor] | None = None) -> Callable[[], Any]:
    """One step of SGD; with masks the absent weights are set to zero again after it."""
    optimizer = torch.optim.SGD(layer.parameters(), 0.01, momentum=0.9)

    def call() -> Tensor:
        with torch.enable_grad():
            optimizer.zero_grad()
            layer(x_TBI)[0].square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            for p, mask in zip(layer.parameters(), masks or ()):
                p.mul_(mask)
        return x_TBI

    return call


def output(layer: nn.Module, x_TBI: Tensor) -> Callable[[], Tensor]:
    return lambda: layer(x_TBI)[0].detach()
