"""Delta streams: columns of weights whose input hardly moved since it was last propagated are not read.

Delta networks (Neil et al., arXiv 1612.05571; on blocks of weights as in EdgeDRNN, Gao et al., arXiv 1912.12193): each
product keeps a running sum W x', of the inputs x' as they were last propagated. An input that moved by more than its
threshold adds its column times its change, and is the last propagated one then. All else of a step is as in any stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..structure.coded import dense
from .costs import Matrix
from .held import precision_of
from .pack import WIDTH, Packed, blocks_of, living, starts_of
from .precision import Unit, units
from .thin import AnyMatrix, thin_product
from .weights import layer_weights, linear_names

Threshold = float | Tensor
Wanted = float | Mapping[str, Threshold | tuple[Threshold, Threshold]]

# Steps after which a running sum is made anew, by reading all its columns. Rounding adds up in it like a random walk:
# `python -m benchmarks.delta` says how far it goes in 100,000 steps with this and without.
REFRESH = 256


class Read(NamedTuple):
    """What the steps of a stream read of its matrices, on the mean.

    steps: how many there were (counted where a matrix has thresholds); columns: share of the columns of such matrices
    that were multiplied; bytes: of weights and their indices in a step; plain: the same without thresholds.
    """

    steps: int
    columns: float
    bytes: float
    plain: int


class DeltaProduct:
    """One matrix in columns of WIDTH x 1 blocks, those with a weight alone, with the memory of its product.

    memory: (1, n) float32: the running sum, the inputs as last propagated, and the steps since the sum was made anew.
    """

    def __init__(self, matrix: Matrix, thresholds: Tensor) -> None:
        weight, arrangement = dense(matrix.source).float(), matrix.arrangement
        alive = living(weight, arrangement)
        tall = blocks_of(weight, arrangement, alive).permute(2, 0, 1)  # (columns, blocks, WIDTH)
        full = (tall != 0).any(2)
        values, where = tall[full].contiguous(), arrangement.where[alive].to(torch.int32)
        places = where[full.nonzero(as_tuple=True)[1]].contiguous()
        starts = starts_of(full.sum(1)).to(torch.int32)
        self.columns, width, bias = weight.shape[1], arrangement.width, arrangement.bias
        self._bias = torch.zeros(width, dtype=torch.float32, device="cpu") if bias is None else bias
        self.memory = torch.zeros(1, width + self.columns + 1, dtype=torch.float32, device="cpu")
        self.last = self.memory[:, width:-1]
        numbers = torch.zeros(self.columns, dtype=torch.int64, device="cpu")
        changes = torch.zeros(self.columns, dtype=torch.float32, device="cpu")
        total, last = self.memory.data_ptr(), self.last.data_ptr()
        plan = [values.data_ptr(), starts.data_ptr(), places.data_ptr(), self.columns, width // WIDTH]
        plan += [0 if bias is None else bias.data_ptr(), total, last, thresholds.data_ptr(), REFRESH]
        self._tall = len(alive) if bool(full.all()) else 0  # whether each column has all blocks
        plan += [numbers.data_ptr(), changes.data_ptr(), self._tall, 0, 0, 0]
        self._plan = torch.tensor(plan, dtype=torch.int64, device="cpu")
        kept = (values, starts, places, self._bias, thresholds, numbers, changes, self.memory, self._plan)
        size = sum(t.numel() * t.element_size() for t in kept[:3])
        self.packed = Packed("columns", "kernels.delta.product", self._plan.data_ptr(), size, 0, kept)
        self.clear()

    def clear(self) -> None:
        """Nothing was propagated yet."""
        self.memory.zero_()
        self.memory[0, : len(self._bias)] = self._bias

    def counts(self) -> tuple[int, int, int]:
        """Steps so far, and columns and bytes that they read: blocks, where each stands, where each column begins; of
        columns that have all blocks where they stand once a step."""
        steps, columns, blocks = self._plan[-3:].tolist()
        indices = 4 * self._tall * steps if self._tall else 4 * blocks + 8 * columns
        return steps, columns, blocks * 4 * WIDTH + indices


# By module and layer: its name in the model, and thresholds of inputs (and state).
Found = dict[tuple[int, str], tuple[str, tuple[Tensor, ...]]]


class Matrices:
    """The matrices of one stream: with thresholds or without, and what was read of them."""

    def __init__(self, thresholds: Found | None = None) -> None:
        self._thresholds = thresholds or {}
        self.products: list[DeltaProduct] = []
        self.places: list[tuple[str, int]] = []  # whose they are: name of the layer, 0 of its inputs, 1 of its state
        self._whole = self._plain = 0

    def packed(self, module: nn.Module, layer: str, place: int, matrix: AnyMatrix, plain: Packed) -> Packed:
        """What multiplies with `matrix`, which a plain stream has as `plain`: place 0 with inputs, 1 with the state.

        Of two factors the inner one, which multiplies them, skips columns; the outer one is read whole.
        """
        found = self._thresholds.get((id(module), layer))
        if found is None:
            return self.whole(plain)
        self._plain += plain.bytes
        name, thresholds = found
        self.places.append((name, place))
        *outer, inner = matrix.parts
        own = DeltaProduct(inner, thresholds[place])
        self.products.append(own)
        for matrix in outer:
            rest = matrix.packed(matrix.choose(1).layout)
            self._whole += rest.bytes
            return thin_product(own.packed, rest, inner.arrangement.width)
        return own.packed

    def whole(self, packed: Packed, size: int | None = None) -> Packed:
        """Of a matrix that is read in each step, `size` bytes of it (by default all)."""
        size = packed.bytes if size is None else size
        self._whole, self._plain = self._whole + size, self._plain + size
        return packed

    def read(self) -> Read:
        """The mean over the steps so far."""
        counts = [product.counts() for product in self.products]
        steps = max((n for n, _, _ in counts), default=0)
        every = sum(product.columns for product in self.products) * steps
        share = sum(columns for _, columns, _ in counts) / every if every else 1.0
        return Read(steps, share, self._whole + sum(size for _, _, size in counts) / max(1, steps), self._plain)


def thresholds_of(model: nn.Module, wanted: Wanted) -> Found:
    """What `stream(delta=)` was given, for each layer.

    Raises ValueError for a name that no layer has, a layer in low precision, and for what is no threshold.
    """
    names = {unit.names[0]: unit for unit in units(model)}
    if not isinstance(wanted, Mapping):
        wanted = dict.fromkeys(names, wanted)
    found: Found = {}
    for name, value in wanted.items():
        if name not in names:
            raise ValueError(
                f"stream: delta names {name!r}, which is no layer on kernels; these are {', '.join(names)}."
            )
        unit = names[name]
        if precision_of(unit.module._engine.precision, unit.end) != "float32":
            raise ValueError(
                f"stream: {name or 'the model'} is accelerated in low precision, and columns are skipped of float32 "
                "weights alone: take accelerate(model), or name no delta for it."
            )
        sizes = _columns(unit)
        values = value if isinstance(value, tuple) else (value,) * len(sizes)
        if len(values) != len(sizes):
            expected = "one threshold" if len(sizes) == 1 else "(input, state)"
            raise ValueError(f"stream: delta of {name!r} is {len(values)} thresholds, expected {expected}.")
        checked = tuple(_checked(name, v, size) for v, size in zip(values, sizes))
        found[id(unit.module), unit.end or "l0"] = name, checked
    return found


def _columns(unit: Unit) -> tuple[int, ...]:
    """Of the matrices of a layer: of its inputs, and of its state."""
    if linear_names(unit.module):
        return (unit.module.in_features,)
    weights = next(w for w in layer_weights(unit.module) if not unit.end or w.name == unit.end)
    return weights.input_size, weights.hh.shape[1]


def _checked(name: str, value: object, columns: int) -> Tensor:
    try:
        found = torch.as_tensor(value, dtype=torch.float32, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError):
        found = torch.tensor(torch.nan, dtype=torch.float32, device="cpu")
    if tuple(found.shape) not in ((), (columns,)) or not bool((found >= 0).all()):
        got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"stream: delta of {name!r} is {got}; expected a number from 0 on, or one for each of {columns} columns."
        )
    return found.expand(columns).contiguous()
