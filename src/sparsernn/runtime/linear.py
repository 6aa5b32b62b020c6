"""torch.nn.Linear on compiled kernels: the head of a recurrent model, often its largest matrix."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from .compiled import function
from .costs import Matrix, Precision
from .engine import MANY
from .modules import Accelerated, check
from .pack import BYTES, WIDTH, Arrangement, Packed, unit_rows
from .threads import in_parallel, parts

TAIL_ROWS = 64  # rows of the last, narrower block that go through the scratch at once


class PackedLinear:
    """Weight (O, I) and bias of a Linear, packed for outputs without padding: whole blocks and a last one."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision) -> None:
        outputs, self.inputs = weight.shape
        self.outputs = outputs
        bias = weight.new_zeros(outputs) if bias is None else bias
        cut = outputs // WIDTH * WIDTH
        self.matrices: list[Matrix] = []
        for first, last in ((0, cut), (cut, outputs)):
            if first < last:
                rows, where = unit_rows(last - first, 1, (0,), 1)
                start = torch.zeros(rows.numel(), dtype=torch.float32, device="cpu")
                start[: last - first] = bias[first:last]
                self.matrices.append(Matrix(weight[first:last], Arrangement(rows, where, start, len(start)), precision))
        self._whole = cut
        self._products: dict[tuple[str, ...], Packed] = {}

    def nanoseconds(self, count: int) -> float:
        """Predicted time of a product with `count` rows."""
        return sum(m.choose(count).nanoseconds for m in self.matrices)

    def product(self, count: int) -> Packed:
        """The product for `count` rows, in the layouts that suit it."""
        layouts = tuple(m.choose(count).layout for m in self.matrices)
        if layouts not in self._products:
            packed = [m.packed(layout) for m, layout in zip(self.matrices, layouts)]
            self._products[layouts] = packed[0] if self.outputs == self._whole else self._narrow(packed)
        return self._products[layouts]

    def _narrow(self, packed: list[Packed]) -> Packed:
        tail = packed[-1]
        main = packed[0] if len(packed) == 2 else None
        scratch = -(-max(p.scratch for p in packed) // 64) * 64
        numbers = [main.kernel, main.plan] if main else [0, 0]
        numbers += [tail.kernel, tail.plan, self._whole * 4, self.outputs - self._whole, scratch]
        plan = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        kept = (plan, *(t for p in packed for t in p.kept))
        size = sum(p.bytes for p in packed)
        layout = (main or tail).layout
        return Packed(layout, "products.narrow", plan.data_ptr(), size, scratch + TAIL_ROWS * BYTES, kept)


class LinearEngine:
    """Packs one Linear and keeps it; packs anew when a weight was changed in place or replaced."""

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision
        self._stamp: tuple[int, ...] = ()
        self._packed: PackedLinear | None = None
        self._products: dict[int, tuple[Packed, float]] = {}

    def __reduce__(self) -> tuple[type[LinearEngine], tuple[Precision]]:
        return LinearEngine, (self.precision,)

    def packed(self, module: nn.Linear) -> PackedLinear:
        stamp = tuple(p._version for p in module._parameters.values() if p is not None)
        if self._packed is None or stamp != self._stamp:
            bias = None if module.bias is None else module.bias.detach()
            self._packed = PackedLinear(module.weight.detach(), bias, self.precision)
            self._products, self._stamp = {}, stamp
        return self._packed

    def product(self, module: nn.Linear, count: int) -> tuple[Packed, float]:
        """The product for `count` rows and its predicted nanoseconds."""
        packed = self.packed(module)
        like = min(count, MANY)
        if like not in self._products:
            self._products[like] = packed.product(like), packed.nanoseconds(like)
        product, took = self._products[like]
        return product, took * count / like

    def explain(self, path: str, module: nn.Linear, rows: int, steps: int) -> list[str]:
        count = rows * steps
        product, took = self.product(module, count)
        return [f"{path}: {product.layout}, {product.bytes / 1024:.0f} KiB; about {took / 1e3 / steps:.2f} us a step"]


class AcceleratedLinear(Accelerated, nn.Linear):
    """torch.nn.Linear on compiled kernels."""

    def forward(self, input: Tensor) -> Tensor:
        check(self, input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise RuntimeError(
                f"{type(self).__name__}: expected {self.in_features} features in the last dimension, "
                f"got an input of {tuple(input.shape)}."
            )
        x = input if input.dim() == 2 else input.reshape(-1, self.in_features)
        if x.stride(-1) != 1:
            x = x.contiguous()
        count = x.shape[0]
        out = x.new_empty(count, self.out_features)
        if count:
            engine = cast(LinearEngine, self._engine)
            product, took = engine.product(self, count)
            share = parts(took, count)
            if share == 1:
                _multiply(product, x, out)
            else:
                edges = [count * n // share for n in range(share + 1)]
                in_parallel([partial(_multiply, product, x[a:b], out[a:b]) for a, b in pairwise(edges)])
        return out if input.dim() == 2 else out.view(*input.shape[:-1], self.out_features)


def _multiply(product: Packed, x: Tensor, out: Tensor) -> None:
    # Small products take microseconds: nothing is made that is not needed.
    scratch = torch.empty(product.scratch, dtype=torch.uint8, device="cpu") if product.scratch else None
    place = 0 if scratch is None else scratch.data_ptr()
    run = function(product.name, 7)
    run(product.plan, x.data_ptr(), x.stride(0) * 4, x.shape[0], out.data_ptr(), out.stride(0) * 4, place)
