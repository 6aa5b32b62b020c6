"""Split layers in surgery: their components are cut like any layer; what the components read and own follows here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.split import SplitGRU, SplitLSTM, SplitRNN
from ..structure.cells import RecurrentLayer
from ..structure.classes import Plane
from .states import keep_states

SPLITS: tuple[type[Any], ...] = (SplitLSTM, SplitGRU, SplitRNN)


@dataclass(frozen=True)
class SplitCut:
    """What goes from one split layer, bool: `inputs` (input_size,), `rows` the units of each layer and direction."""

    inputs: Tensor
    rows: tuple[Tensor, ...]

    def columns(self, split: Any, layer: int) -> Tensor:
        """The inputs of `layer` that go."""
        directions = 2 if split.bidirectional else 1
        return torch.cat(self.rows[(layer - 1) * directions : layer * directions]) if layer else self.inputs


def parts_of_splits(model: nn.Module) -> set[int]:
    """ids of all modules inside split layers."""
    splits: list[Any] = [module for module in model.modules() if isinstance(module, SPLITS)]
    return {id(part) for split in splits for part in split.components.modules()}


def split_cuts(
    model: nn.Module,
    layers: Sequence[RecurrentLayer],
    dead: Mapping[str, Tensor],
    gone: Mapping[Plane, Tensor],
) -> dict[str, SplitCut]:
    """Path of each split layer of the model, as it is before surgery -> what goes from it."""
    return {path: _cut(module, mine, dead, gone) for path, module, mine in _splits(model, layers)}


def _splits(
    model: nn.Module, layers: Sequence[RecurrentLayer]
) -> Iterator[tuple[str, Any, dict[tuple[str, bool], RecurrentLayer]]]:
    by_module = {(layer.module, layer.reverse): layer for layer in layers}
    for path, module in model.named_modules():
        if isinstance(module, SPLITS):
            start = f"{path}.components." if path else "components."
            yield path, module, {(p[len(start) :], r): y for (p, r), y in by_module.items() if p.startswith(start)}


def _cut(
    split: Any,
    layers: Mapping[tuple[str, bool], RecurrentLayer],
    dead: Mapping[str, Tensor],
    gone: Mapping[Plane, Tensor],
) -> SplitCut:
    rows: list[Tensor] = []
    inputs = torch.zeros(split.input_size, dtype=torch.bool)
    for layer, segments in enumerate(split.segments):
        for direction, widths in enumerate(split.hidden_sizes[layer]):
            # A component that was folded or replaced is no registered layer: nothing of it goes.
            found = [layers.get((f"{layer}.{n}", bool(direction))) for n in range(len(segments))]
            own = split.component_widths(layer, direction)
            parts = [torch.zeros(w, dtype=torch.bool) if y is None else dead[y.name] for y, w in zip(found, own)]
            assert sum(own) == widths
            rows.append(torch.cat(parts))
            for part, (begin, end) in zip(found, segments) if layer == 0 else ():
                mask = None if part is None else gone.get((part.parameters("ih")[0], 1))
                if mask is not None:
                    inputs[begin:end] |= mask
    return SplitCut(inputs, tuple(rows))


def fit_splits(model: nn.Module, cuts: Mapping[str, SplitCut], states: bool) -> None:
    """Bring split layers in line with their narrowed components; `states`: those of the dense width fit as well."""
    for path, cut in cuts.items():
        split: Any = model.get_submodule(path)
        dense = {len(row) for row in cut.rows}
        segments = []
        for layer, row in enumerate(split.segments):
            before = torch.cat([torch.zeros(1, dtype=torch.long), cut.columns(split, layer).long().cumsum(0)])
            segments.append([(b - int(before[b]), e - int(before[e])) for b, e in row])
        split.resize(split.input_size - int(cut.inputs.sum()), segments)
        if len(dense) == 1:  # else it was ragged before
            kept = [torch.nonzero(~row)[:, 0].tolist() for row in cut.rows]
            count = split.cell.states
            keep_states(split, [dense.pop()] * count, [kept] * count, states)
