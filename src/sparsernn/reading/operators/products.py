"""Products of matrices, of which neither is a weight that a layer could hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .table import operator


@operator("MatMul")
def matmul(step: Any, a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@operator("Gemm", numbers=True)
def gemm(step: Any, a: Tensor, b: Tensor, c: Any = None) -> Tensor:
    y = (a.T if step.get("transA", 0) else a) @ (b.T if step.get("transB", 0) else b)
    alpha, beta = step.get("alpha", 1.0), step.get("beta", 1.0)
    y = y if alpha == 1 else alpha * y
    return y if c is None else y + (c if beta == 1 else beta * c)


@operator("Einsum")
def einsum(step: Any, *values: Tensor) -> Tensor:
    return torch.einsum(step.get("equation").replace(" ", ""), *values)
