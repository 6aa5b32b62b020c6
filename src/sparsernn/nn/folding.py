"""Which rows of a dense layer a gated stack keeps, and what it keeps instead of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..structure.cells import GRU


@dataclass(frozen=True)
class Folding:
    """Of one layer and direction. `order`: its rows (gate * width + unit), living ones first, then the scaled ones
    (a GRU's n without a product), then the constant ones; each kind in rising order."""

    end: str
    width: int
    living: tuple[int, ...]  # how many units of each gate
    scaled: int
    order: Tensor

    def tensors(self, source: Any) -> dict[str, Tensor]:
        """The parameters and the buffer of the gated layer, by name, from the dense module `source`."""
        rows = sum(self.living)
        found = {"rows" + self.end: self.order}
        for name in ("weight_ih", "weight_hh"):
            found[name + self.end] = getattr(source, name + self.end)[self.order[:rows]]
        if source.bias:
            found |= {n + self.end: getattr(source, n + self.end)[self.order] for n in ("bias_ih", "bias_hh")}
        if hasattr(source, "weight_hr" + self.end):
            found["weight_hr" + self.end] = getattr(source, "weight_hr" + self.end)
        return found


def first_order(width: int, living: tuple[int, ...], scaled: int) -> list[int]:
    """The `order` in which the first units of each gate live and the next ones of the last gate are scaled."""
    first = [g * width + k for g, n in enumerate(living) for k in range(n)]
    first += [(len(living) - 1) * width + living[-1] + k for k in range(scaled)]
    return first + sorted(set(range(len(living) * width)) - set(first))


def is_order(rows: list[int], width: int, living: tuple[int, ...], scaled: int) -> bool:
    """Whether `rows` can be the `order` of a `Folding` with these counts."""
    count = sum(living)
    kinds = (rows[:count], rows[count : count + scaled], rows[count + scaled :])
    return (
        sorted(rows) == list(range(len(living) * width))
        and all(kind == sorted(kind) for kind in kinds)
        and [sum(row // width == g for row in kinds[0]) for g in range(len(living))] == list(living)
        and all(row >= (len(living) - 1) * width for row in kinds[1])
    )


def fold(source: Any, end: str, gates: tuple[str, ...], constant: Mapping[str, Tensor]) -> Folding:
    """Which rows of the layer named by `end` ("_l0_reverse") of a dense module can go; see `GatedLSTM.from_dense`."""
    unknown = set(constant) - set(gates)
    if unknown:
        raise ValueError(f"{end[1:]} has the gates {', '.join(gates)}; constant names {sorted(unknown)}.")
    weight_ih, weight_hh = getattr(source, "weight_ih" + end).detach(), getattr(source, "weight_hh" + end).detach()
    width = len(weight_ih) // len(gates)
    empty = ~(weight_ih.ne(0).any(1) | weight_hh.ne(0).any(1))
    gone = empty.clone()
    for g, gate in enumerate(gates):
        if gate in constant:
            mask = constant[gate]
            if mask.shape != (width,) or mask.dtype != torch.bool:
                raise ValueError(
                    f"constant gate {gate} of {end[1:]} is {mask.dtype} {tuple(mask.shape)}; expected bool ({width},)."
                )
            place = slice(g * width, (g + 1) * width)
            wrong = mask.to(empty.device) & ~empty[place]
            if wrong.any():
                raise ValueError(
                    f"Gate {gate} of unit {int(wrong.nonzero()[0])} in {end[1:]} was given as constant, "
                    f"but its rows of weight_ih{end} and weight_hh{end} are not all zero."
                )
            gone[place] = mask.to(gone.device)
    scaled = torch.zeros_like(gone)
    if gates == GRU.gates and source.bias:
        bias_hn = getattr(source, "bias_hh" + end).detach()[-width:]
        scaled[-width:] = gone[-width:] & ~gone[:width] & bias_hn.ne(0)
    kinds = (~gone, scaled, gone & ~scaled)
    return Folding(
        end,
        width,
        tuple((~gone).view(len(gates), width).sum(1).tolist()),
        int(scaled.sum()),
        torch.cat([kind.nonzero().squeeze(1) for kind in kinds]),
    )


def unfold(gated: Any, dense: Any, end: str) -> None:
    """Write the layer named by `end` of a gated stack into the dense one, with zero rows where gates are constant."""
    rows, living = getattr(gated, "rows" + end), len(getattr(gated, "weight_ih" + end))
    for name in ("weight_ih", "weight_hh"):
        getattr(dense, name + end).zero_()[rows[:living]] = getattr(gated, name + end)
    if gated.bias:
        for name in ("bias_ih", "bias_hh"):
            getattr(dense, name + end)[rows] = getattr(gated, name + end)
    if gated.proj_sizes is not None:
        getattr(dense, "weight_hr" + end).copy_(getattr(gated, "weight_hr" + end))
