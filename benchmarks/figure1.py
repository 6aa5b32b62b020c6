"""Figure 1 of Wen et al. (arXiv 1709.05027) with our curves: what sparsity is worth in one matrix product.

A matrix of single weights, of 16x1 blocks, of int8 in 16x4 blocks and one from which rows and columns are gone, each
of the same number of weights, against torch's dense product of the whole matrix.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.timing import benchmark

from . import measure
from .measure import Ceiling, Ideal, Row

SHAPES = ((6000, 3000), (1200, 600))  # the products of LSTMs of 1500 and of 300 units, input and state side by side
BATCHES = (1, 10, 32)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
BASE = "torch dense"
Call = Callable[[], Tensor]


def figure1(ceiling: Ceiling, rounds: int) -> list[Row]:
    """the product W x over sparsity, as Figure 1 of Wen et al. (arXiv 1709.05027) draws it"""
    torch.manual_seed(0)
    rows: list[Row] = []
    for shape in SHAPES:
        weight = torch.randn(*shape) / shape[1] ** 0.5
        for sparsity in SPARSITIES:
            curves = _curves(weight, 1 - sparsity)
            for batch in BATCHES:
                x = torch.randn(batch, shape[1])
                rows += _rows(ceiling, rounds, weight, x, sparsity, curves)
    return rows


def _curves(weight: Tensor, density: float) -> dict[str, tuple[Tensor, Callable[[Tensor], Call], float]]:
    """Name -> the matrix, what makes the call for an input, and the bytes of one weight."""
    single = weight * (torch.rand_like(weight) < density)
    tall = weight * _blocks(weight, density, 1)
    wide = weight * _blocks(weight, density, 4)
    side = density**0.5
    small = weight[: round(side * weight.shape[0]), : round(side * weight.shape[1])].contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is in beta
        csr = single.to_sparse_csr()
    head = nn.Linear(small.shape[1], small.shape[0], bias=False)
    head.weight.data = small
    return {
        "MKL CSR": (single, lambda x: _product(csr, x), 8),
        "sparsernn, single weights": (single, _ours(single, "float32"), 5),
        "sparsernn, 16x1 blocks": (tall, _ours(tall, "float32"), 4.25),
        "sparsernn, int8 16x4 blocks": (wide, _ours(wide, "int8"), 1.06),
        "torch, rows and columns gone": (small, lambda x: _linear(head, x), 4),
        "sparsernn, rows and columns gone": (small, _ours(small, "float32"), 4),
    }


def _blocks(weight: Tensor, density: float, width: int) -> Tensor:
    tall, wide = -(-weight.shape[0] // 16), -(-weight.shape[1] // width)
    keep = (torch.rand(tall, wide) < density).repeat_interleave(16, 0).repeat_interleave(width, 1)
    return keep[: weight.shape[0], : weight.shape[1]]


def _ours(weight: Tensor, precision: Any) -> Callable[[Tensor], Call]:
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.weight.data = weight
    # Linear layers are accelerated beside a recurrent one.
    fast = srn.accelerate(nn.ModuleDict({"rnn": nn.RNN(1, 1), "head": head}).eval(), precision)["head"]
    return lambda x: _linear(fast, x)


def _linear(head: nn.Module, x: Tensor) -> Call:
    narrow = x[:, : head.in_features].contiguous()  # type: ignore[index]
    return lambda: head(narrow)


def _product(matrix: Tensor, x: Tensor) -> Call:
    xt = x.t().contiguous()
    return lambda: (matrix @ xt).t()


def _rows(
    ceiling: Ceiling, rounds: int, weight: Tensor, x: Tensor, sparsity: float, curves: dict[str, Any]
) -> list[Row]:
    dense = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    dense.weight.data = weight
    ways = (_product(weight, x), _linear(dense, x))
    calls = {name: make(x) for name, (_, make, _) in curves.items()}
    found = benchmark(
        {BASE: _taking(min(ways, key=measure.quickest)), **{name: _taking(call) for name, call in calls.items()}},
        torch.zeros(1),
        repeats=rounds,
        console=Console(file=io.StringIO()),
        clock=measure.clock,
    )
    rows: list[Row] = []
    for row in found.rows[1:]:
        matrix, _, size = curves[row.name]
        kept = int(matrix.count_nonzero())
        peak = 4 if "int8" in row.name else 1
        ideal: Ideal = ceiling.ideal(2.0 * kept * len(x) / peak, int(kept * size), 1)
        want = x[:, : matrix.shape[1]].double() @ matrix.double().t()
        work = f"{weight.shape[0]}x{weight.shape[1]} {100 * sparsity:.0f}%, B{len(x)}: {row.name}"
        rows.append(
            {
                "work": work,
                "against": BASE,
                "ratio": round(row.ratio, 3),
                "spread": round(row.spread, 3),
                "max_error": float((calls[row.name]().double() - want).abs().max()),
                "roofline": round(ideal.seconds / (row.milliseconds * 1e-3), 3),
                "bound": ideal.bound,
                "target": None,
                "ms": round(row.milliseconds, 5),
                "shape": list(weight.shape),
                "batch": len(x),
                "sparsity": sparsity,
                "engine": row.name,
            }
        )
    return rows


def _taking(call: Call) -> Callable[[Any], Any]:
    return lambda _: call()
