"""torch.nn.Linear on compiled kernels: the head of a recurrent model, often its largest matrix."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.coded import CodedMatrix
from ..structure.held_weights import Held
from . import threads
from .calls import Calls, settled
from .compiled import address, function
from .costs import Matrix, current
from .engine import MANY
from .fields import Call
from .held import Precision, as_coded, joined, rounded, rows_of
from .memory import eager
from .modules import Accelerated, check_call
from .pack import BYTES, WIDTH, Arrangement, Packed, unit_rows
from .stamp import Stamp
from .thin import THROUGH, inner_matrix, thin_product
from .weights import Factors, Weight, linear_weight, parts_of


class PackedLinear:
    """Weight (O, I) and bias of a Linear, packed for outputs without padding: whole blocks and a last one.

    Of a weight of two factors the outer one is packed so.
    """

    def __init__(self, weight: Weight | Factors, bias: Tensor | None, precision: Precision) -> None:
        outputs, self.inputs = weight.shape
        outer, *inner = parts_of(weight)
        source = rounded(outer, precision)
        self._inner = [inner_matrix(each, precision) for each in inner]
        self.outputs = outputs
        bias = torch.zeros(outputs, dtype=torch.float32, device="cpu") if bias is None else bias
        cut = outputs // WIDTH * WIDTH
        self.matrices: list[Matrix] = []
        for first, last in ((0, cut), (cut, outputs)):
            if first < last:
                rows, where = unit_rows(last - first, 1, (0,), 1)
                start = torch.zeros(rows.numel(), dtype=torch.float32, device="cpu")
                start[: last - first] = bias[first:last]
                arrangement = Arrangement(rows, where, start, len(start))
                self.matrices.append(Matrix(rows_of(source, first, last), arrangement, precision))
        self._whole = cut
        self._products: dict[tuple[str, ...], Packed] = {}

    def take(self, owner: object, weight: Weight | Factors, precision: Precision) -> None:
        """From now on the packed matrix is where a weight that is held once has its numbers."""
        for part, matrices in zip(parts_of(weight), (self.matrices, self._inner)):
            if isinstance(part, Held):
                part.give_to(owner, precision, partial(_together, matrices))

    def nanoseconds(self, count: int) -> float:
        """Predicted time of a product with `count` rows."""
        return sum(m.choose(count).nanoseconds for m in (*self._inner, *self.matrices))

    def product(self, count: int) -> Packed:
        """The product for `count` rows, in the layouts that suit it."""
        every = *self._inner, *self.matrices
        layouts = tuple(m.choose(count).layout for m in every)
        if layouts not in self._products:
            packed = [m.packed(layout) for m, layout in zip(every, layouts)]
            outer = packed[len(self._inner) :]
            made = outer[0] if self.outputs == self._whole else self._narrow(outer)
            inner = [thin_product(first, made, m.arrangement.width) for first, m in zip(packed, self._inner)]
            self._products[layouts] = (inner or [made])[0]
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
        return Packed(layout, "products.narrow", plan.data_ptr(), size, scratch + THROUGH * BYTES, kept)


def _together(matrices: Sequence[Matrix]) -> CodedMatrix:
    parts = [as_coded(matrix.source) for matrix in matrices]
    return parts[0] if len(parts) == 1 else joined(parts)


def _rows(x: Tensor) -> Tensor:
    """`x` as rows at one distance from each other: a matrix may have any, what has more axes is made contiguous."""
    x = settled(x)
    return x if 0 < x.dim() <= 2 else x.contiguous()


class LinearEngine(Calls):
    """Packs one Linear and keeps it; packs anew when a weight was changed or replaced."""

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        self._packed: tuple[Stamp, PackedLinear] | None = None
        self._products: dict[int, tuple[Packed, float]] = {}

    def forget(self) -> None:
        super().forget()
        self._packed, self._products = None, {}

    def packed(self, module: Any) -> PackedLinear:
        stamp = self.stamp(module)
        with self._lock:
            if self._packed is None or self._packed[0] is not stamp:
                bias = None if module.bias is None else module.bias.detach()
                with torch.inference_mode(False), torch.no_grad():
                    weight = linear_weight(module)
                    made = PackedLinear(weight, bias, self.precision)
                    made.take(self, weight, self.precision)
                self._packed, self._products = (stamp, made), {}
            return self._packed[1]

    def product(self, module: Any, count: int) -> tuple[Packed, float]:
        """The product for `count` rows and its predicted nanoseconds."""
        packed = self.packed(module)
        like = min(count, MANY)
        if like not in self._products:
            self._products[like] = packed.product(like), packed.nanoseconds(like)
        product, took = self._products[like]
        return product, took * count / like

    def explain(self, path: str, module: Any, rows: int, steps: int) -> list[str]:
        count = rows * steps
        product, took = self.product(module, count)
        text = f"{path}: {product.layout}, {product.bytes / 1024:.0f} KiB; about {took / 1e3 / steps:.2f} us a step"
        return [f"{text}; a call takes about {(took + current().call) / 1e3:.1f} us"]


_write = struct.Struct("8q").pack_into
_Fields = ctypes.c_int64 * (Call.ENTRIES + 8)


class LinearJob:
    """A product of one shape: everything about it that can be known before its tensors are there."""

    def __init__(
        self, product: Packed, took: float, stamp: Stamp, count: int, stride: int, out: Sequence[int], outputs: int
    ) -> None:
        self._product, self._stamp, self.nanoseconds = product, stamp, took
        self._count, self._stride, self._out, self._out_stride = count, 4 * stride, out, 4 * outputs
        self._run = function("whole.watched", 1)
        self._spare: list[Any] = []

    def __call__(self, x: Tensor, _given: Sequence[Tensor] = ()) -> Tensor | None:
        """The output; None where nothing was run: the sample of the weights has changed, or memory was freed."""
        source = x.data_ptr()
        if not source:
            return None
        out = x.new_empty(*self._out)
        target, count = out.data_ptr(), self._count
        if self.nanoseconds >= 2 * threads.WORTH and (share := threads.parts(self.nanoseconds, count)) > 1:
            edges = [count * n // share for n in range(share + 1)]
            calls = [partial(self._part, source, target, a, b) for a, b in pairwise(edges)]
            return out if all(threads.in_parallel(calls)) else None
        return out if self._part(source, target, 0, count) else None

    def _part(self, source: int, target: int, first: int, last: int) -> bool:
        """Rows from `first` to before `last`."""
        space = self._spare.pop() if self._spare else self._space()
        fields, argument, scratch = space
        _write(
            fields, 8 * Call.ENTRIES, self._product.kernel, self._product.plan, source + first * self._stride,
            self._stride, last - first, target + first * self._out_stride, self._out_stride, scratch.data_ptr(),
        )  # fmt: skip
        self._run(argument)
        if fields[Call.STALE]:
            return False
        self._spare.append(space)
        return True

    def _space(self) -> tuple[Any, Any, Tensor]:
        fields, sample = _Fields(), self._stamp.sample
        with torch.inference_mode(False):  # it is used again, also outside of that mode
            scratch = torch.empty(self._product.scratch, dtype=torch.uint8, device="cpu")
        fields[Call.SAMPLE], fields[Call.SAMPLES] = sample.data_ptr(), len(sample)
        fields[Call.KERNEL] = address("chain.product")
        fields[Call.ARGUMENT] = ctypes.addressof(fields) + 8 * Call.ENTRIES
        return fields, ctypes.c_int64(ctypes.addressof(fields)), scratch


class LinearLayer(Accelerated):
    """Forward of a linear layer, torch's or one of this package (`Layer.linear`)."""

    in_features: int
    out_features: int

    @eager
    def forward(self, input: Tensor) -> Tensor:
        known = self._engine.find(self, (input,), None)
        done = known.run(input, ()) if known is not None else None
        return self._look(input) if done is None else done

    def _look(self, input: Any) -> Tensor:
        """A call that is not known."""
        check_call(self, input)
        if self._engine.on_torch(self):
            return super().forward(input)  # type: ignore[misc]
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise RuntimeError(
                f"{type(self).__name__}: expected {self.in_features} features in the last dimension, "
                f"got an input of {tuple(input.shape)}."
            )
        x, engine = _rows(input), self._engine
        count = x.numel() // self.in_features if x.dim() != 2 else x.shape[0]
        out = (*x.shape[:-1], self.out_features)
        if not count:
            return x.new_empty(out)
        while True:
            product, took = engine.product(self, count)
            stride = x.stride(0) if x.dim() == 2 else self.in_features
            job = LinearJob(product, took, engine.stamp(self), count, stride, out, self.out_features)
            done = job(x)
            if done is not None:
                engine.remember((input,), job, None, _rows)
                return done
            engine.forget()


class AcceleratedLinear(LinearLayer, nn.Linear):
    """torch.nn.Linear on compiled kernels."""
