"""What a net takes to answer one question, dense and compact, in torch and in our runtime; the LSTMs' share of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sparsernn.runtime.layers import accelerate
from sparsernn.timing import benchmark

from .bidaf_model import BiDAF


def timed(
    dense: BiDAF, small: BiDAF, inputs: tuple[Any, ...], *, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds of both nets, each in torch and on our kernels, interleaved, one thread.

    `ms_dense`, `ms_dense_fast`, `ms_compact`, `ms_fast`; `speedup_*` and `spread_*` against the dense net in torch;
    `speedup_twin`: our kernels on the compact net against our kernels on the dense one; `share_*`: of the four
    LSTM modules in the time of each.
    """
    forms = {
        "dense": dense,
        "dense_fast": accelerate(dense),
        "compact": small,
        "fast": accelerate(small),
    }
    table = benchmark(forms, inputs, repeats=rounds, console=Console(quiet=True), clock=clock)
    by_name = {row.name: row for row in table.rows}
    figures = {f"ms_{name}": row.milliseconds for name, row in by_name.items()}
    for name, row in list(by_name.items())[1:]:
        figures |= {f"speedup_{name}": row.ratio, f"spread_{name}": row.spread}
    figures["speedup_twin"] = by_name["fast"].ratio / by_name["dense_fast"].ratio
    for name, form in forms.items():
        figures[f"share_{name}"] = lstm_share(form, inputs, rounds=rounds, clock=clock)
    return figures


def lstm_share(model: nn.Module, inputs: tuple[Any, ...], *, rounds: int, clock: Callable[[], float]) -> float:
    """Share of the time of `model(*inputs)` that its recurrent modules take: the median of so many calls."""
    spent: list[float] = []
    begun: list[float] = []
    modules = [getattr(model, name) for name in ("contextual", "modelling", "output")]
    hooks = [module.register_forward_pre_hook(lambda *_: begun.append(clock())) for module in modules]
    hooks += [module.register_forward_hook(lambda *_: spent.append(clock() - begun.pop())) for module in modules]
    shares = []
    try:
        with torch.no_grad():
            model(*inputs)
            for _ in range(rounds):
                spent.clear()
                start = clock()
                model(*inputs)
                shares.append(sum(spent) / (clock() - start))
    finally:
        for hook in hooks:
            hook.remove()
    return statistics.median(shares)
