"""How an architecture declares what `trace` has to find: which slices read unit k, or why the units are kept.

The declarations are written from the model's code by hand, never from what `trace` returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

HAND = "*"  # the one unit set of a hand-written cell, whatever name trace gives it
SIZES = ((3, 6), (1, 4), (5, 9), (2, 1))  # (batch, length): the example first, then the others

Slice = tuple[str, int, int]  # parameter, axis, index


@dataclass(frozen=True)
class Read:
    """Unit k is read (or owned) by `parameter` along `axis` at the indices `at(k)`."""

    parameter: str
    axis: int
    at: Callable[[int], Sequence[int]]

    def slices(self, unit: int) -> set[Slice]:
        return {(self.parameter, self.axis, index) for index in self.at(unit)}


def reads(parameter: str, axis: int = 1, *offsets: int, stride: int = 1, units: range | None = None) -> Read:
    """Unit k at k*stride + offset for each offset (default 0), for the units in `units` (default all), from 0 there."""

    def at(unit: int) -> list[int]:
        if units is not None and unit not in units:
            return []
        place = unit if units is None else units.index(unit)
        return [place * stride + offset for offset in offsets or (0,)]

    return Read(parameter, axis, at)


def gate_rows(parameter: str, hidden: int, gates: int, axis: int = 0) -> Read:
    """Unit k at its row of each gate."""
    return reads(parameter, axis, *(hidden * gate for gate in range(gates)))


Readers = Mapping[str, Sequence[Read]]


@dataclass(frozen=True)
class Architecture:
    """A model as a user writes it, with what has to be found in it.

    `inputs(batch, length)` gives example inputs (a list is several examples). `readers` maps each unit set that may
    shrink to every slice that reads its unit k; units whose slices are the same are tied. `kept` maps unit sets to a
    pattern that has to occur in the reason or the operation, with the units if not all are kept. For unit sets in
    `either`, being kept is right as well.
    `owns` lists what a unit computes its value from beside the rows of a declared cell: in a hand-written cell, or
    through a tie.
    `silent` names readers whose influence no output of the example shows (a reverse direction read at its first step).
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Any]
    readers: Readers = field(default_factory=dict)
    kept: Mapping[str, str | tuple[str, range]] = field(default_factory=dict)
    either: frozenset[str] = frozenset()
    owns: Readers = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    carried: Readers = field(default_factory=dict)  # with carried_states=True these may go as well
    sizes: tuple[tuple[int, int], ...] = SIZES
    literal: bool = False  # it slices bare parameters at widths written as numbers: dead units may stay, with a warning

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A seeded model in eval mode whose weights are large enough for every path to matter."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.name))
            model = self.build()
            renew(model)
        return model.to(dtype).eval()

    def examples(self, dtype: torch.dtype = torch.float64) -> list[Any]:
        """Example inputs first, then other batch sizes and lengths."""
        return [cast(self.example_at(size), dtype) for size in self.sizes]

    def example_at(self, size: tuple[int, int]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 * size[0] + size[1])
            return self.inputs(*size)

    def kept_units(self, unit_set: str, size: int) -> tuple[str, set[int]]:
        """The pattern of the reason and the units of `unit_set` that have to stay."""
        entry = self.kept.get(unit_set, ("", range(0)))
        return (entry, set(range(size))) if isinstance(entry, str) else (entry[0], set(entry[1]))

    def slices(self, unit_set: str, unit: int) -> frozenset[Slice]:
        """Every slice that has to be zero for `unit` to be dead."""
        return frozenset().union(*(read.slices(unit) for read in self.readers[unit_set]))


def renew(model: nn.Module) -> None:
    """Random weights and BatchNorm statistics, biases included: nothing is zero by accident."""
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                fan = p.shape[-1] if p.dim() > 1 else 4
                p.copy_(torch.randn(p.shape) * max(0.35, fan**-0.5))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape) * 0.3)
            elif name.endswith("running_var"):
                b.copy_(torch.rand(b.shape) + 0.5)


def inside(
    path: str, hidden: int, layers: int = 1, bidirectional: bool = False, proj: int = 0
) -> dict[str, tuple[Read, ...]]:
    """The readers within one torch.nn.LSTM, GRU or RNN: hidden-to-hidden, projection, and the next layer's inputs."""
    dot = f"{path}." if path else ""
    width = proj or hidden
    ends = ("", "_reverse") if bidirectional else ("",)
    found: dict[str, tuple[Read, ...]] = {}
    for layer in range(layers):
        for side, end in enumerate(ends):
            name = f"{dot}l{layer}{end}"
            own = [reads(f"{dot}weight_hh_l{layer}{end}")]
            if layer + 1 < layers:
                own += [reads(f"{dot}weight_ih_l{layer + 1}{other}", 1, side * width) for other in ends]
            if proj:
                found[name] = (reads(f"{dot}weight_hr_l{layer}{end}"),)
                found[f"{name}.projected"] = tuple(own)
            else:
                found[name] = tuple(own)
    return found


def inside_rhn(
    path: str, hidden: int, depth: int, layers: int = 1, bidirectional: bool = False
) -> dict[str, tuple[Read, ...]]:
    """The readers within one RHN: the matrices of all depths, and the next layer's inputs."""
    ends = ("", "_reverse") if bidirectional else ("",)
    found: dict[str, tuple[Read, ...]] = {}
    for layer in range(layers):
        for side, end in enumerate(ends):
            own = [reads(f"{path}.weight_hh_d{d}_l{layer}{end}") for d in range(depth)]
            if layer + 1 < layers:
                own += [reads(f"{path}.weight_ih_l{layer + 1}{other}", 1, side * hidden) for other in ends]
            found[f"{path}.l{layer}{end}"] = tuple(own)
    return found


def cell(path: str) -> dict[str, tuple[Read, ...]]:
    """The reader within one LSTMCell, GRUCell or RNNCell."""
    return {path: (reads(f"{path}.weight_hh"),)}


def merge(*parts: Readers) -> dict[str, tuple[Read, ...]]:
    """Readers of several parts together."""
    found: dict[str, tuple[Read, ...]] = {}
    for part in parts:
        for name, own in part.items():
            found[name] = found.get(name, ()) + tuple(own)
    return found


def tie(readers: Readers, *names: str) -> dict[str, tuple[Read, ...]]:
    """Units with the same number in the unit sets `names` go together: each has the readers of all."""
    every = tuple(read for name in names for read in readers[name])
    return {name: every if name in names else tuple(own) for name, own in readers.items()}


def cast(example: Any, dtype: torch.dtype) -> Any:
    """`example` with its floating-point tensors in `dtype`; a fresh copy."""
    if isinstance(example, Tensor):
        return example.to(dtype, copy=True) if example.is_floating_point() else example.clone()
    if isinstance(example, PackedSequence):
        return example.to(dtype) if example.data.is_floating_point() else example
    if isinstance(example, dict):
        return {key: cast(value, dtype) for key, value in example.items()}
    if isinstance(example, tuple) and hasattr(example, "_fields"):
        return type(example)(*(cast(value, dtype) for value in example))
    if isinstance(example, list | tuple):
        return type(example)(cast(value, dtype) for value in example)
    if dataclasses.is_dataclass(example) and not isinstance(example, type):
        return dataclasses.replace(example, **{k: cast(v, dtype) for k, v in vars(example).items()})
    return example


def leaves(output: Any) -> Iterator[Tensor]:
    """Every tensor of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, PackedSequence):
        yield output.data
    elif isinstance(output, dict):
        for value in output.values():
            yield from leaves(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from leaves(value)
    elif dataclasses.is_dataclass(output):
        yield from leaves(list(vars(output).values()))


def run(model: nn.Module, example: Any) -> list[Tensor]:
    """The outputs of `model` on `example` (a list: on each), without gradients, as tensors."""
    if isinstance(example, list):
        return [tensor for one in example for tensor in run(model, one)]
    example = cast(example, next(model.parameters()).dtype)
    with torch.no_grad():
        if isinstance(example, dict):
            output = model(**example)
        elif isinstance(example, tuple) and not hasattr(example, "_fields"):
            output = model(*example)
        else:
            output = model(example)
    return [tensor.clone() for tensor in leaves(output)]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, scaled by the largest output."""
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    worst = 0.0
    for a, b in zip(ours, theirs):
        assert torch.isfinite(a).all() and torch.isfinite(b).all()
        scale = max(1.0, float(b.detach().double().abs().max())) if b.numel() else 1.0
        worst = max(worst, float((a.detach().double() - b.detach().double()).abs().max()) / scale if b.numel() else 0.0)
    return worst


def tokens(batch: int, length: int, words: int = 11) -> Tensor:
    return torch.randint(0, words, (batch, length))


def features(batch: int, length: int, size: int = 5) -> Tensor:
    return torch.randn(batch, length, size)


def lengths_of(batch: int, length: int) -> Tensor:
    """Lengths from 1 to `length`, one of them the whole."""
    lengths = torch.randint(1, length + 1, (batch,))
    lengths[batch // 2] = length
    return lengths


def set_slices(parameters: Mapping[str, Tensor], slices: Sequence[Slice] | frozenset[Slice], value: float) -> None:
    """Set `slices` of the parameters to `value` in place."""
    with torch.no_grad():
        for name, axis, index in slices:
            parameters[name].select(axis, index).fill_(value)
