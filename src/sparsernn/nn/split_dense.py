"""Split layers beside their dense form: where in the large matrices the weights of each component stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .layers import LayeredRecurrent
from .packing import options_of
from .ragged import RAGGED


def width_of(component: Any, direction: int) -> int:
    """Units of one direction of a one-layer module, torch's own or, after surgery, ragged or gated."""
    if isinstance(component, LayeredRecurrent):
        return component.hidden_sizes[0][direction]
    return getattr(component, "weight_hh_l0_reverse" if direction else "weight_hh_l0").shape[1]


def places(split: Any, dense: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows of one gate in a parameter of a component, view of the same weights in `dense`)."""
    for layer, ends in enumerate(split.suffixes()):
        for direction, end in enumerate(ends):
            widths, own = split.component_widths(layer, direction), "_l0" + end.partition(f"_l{layer}")[2]
            total, start = sum(widths), 0
            for component, width, (b, e) in zip(split.layer_components(layer), widths, split.segments[layer]):
                if hasattr(component, "living"):  # constant gates were folded
                    component = component.to_dense()
                columns = {"weight_ih": slice(b, e), "weight_hh": slice(start, start + width)}
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if split.bias else 2]:
                    whole, part = getattr(dense, name + end), getattr(component, name + own)
                    for g in range(split.gates):
                        rows = whole[g * total + start : g * total + start + width]
                        rows = rows[:, columns[name]] if name in columns else rows
                        yield part[g * width : (g + 1) * width], rows
                start += width


def to_dense(split: Any) -> nn.Module:
    """The same function as one torch.nn module (`sparsernn.nn.ragged` where widths differ), zeros stored."""
    options = options_of(split)
    widths = {width for row in split.hidden_sizes for width in row}
    if len(widths) == 1:
        dense: Any = getattr(nn, split.kind)(split.input_size, widths.pop(), split.num_layers, **options)
    else:
        dense = RAGGED[split.kind](split.input_size, split.hidden_sizes, **options)
    dense.dropout = split.dropout
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.zero_()
        for part, whole in places(split, dense):
            whole.copy_(part)
    return dense.train(split.training)


def from_dense(cls: type[Any], layer: nn.Module, blocks: Any, input_density: Any) -> Any:
    """`layer` as a split layer of class `cls`; see `SplitLSTM.from_dense`."""
    if not isinstance(layer, getattr(nn, cls.cell.name)) or getattr(layer, "proj_size", 0):
        raise TypeError(f"{cls.__name__}.from_dense: got {layer}, expected a torch.nn.{cls.cell.name} (no projection).")
    dense: Any = layer
    made = cls(
        dense.input_size,
        dense.hidden_size,
        dense.num_layers,
        blocks=blocks,
        input_density=input_density,
        **options_of(dense),
    )
    made.dropout = dense.dropout
    with torch.no_grad():
        for part, whole in places(made, dense):
            part.copy_(whole)
        again = made.to_dense()
        for (name, ours), theirs in zip(again.named_parameters(), dense.parameters()):
            outside = int((ours != theirs).sum())
            if outside:
                raise ValueError(
                    f"{name} has {outside} weights that are not zero where {blocks} blocks of input density "
                    f"{input_density} have none.\nPrune them first, or choose fewer blocks or a larger density."
                )
    return made.train(dense.training)
