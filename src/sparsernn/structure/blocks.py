"""Groups that need no trace: single weights, 16x1 blocks, rows, columns and gates, from the registry of cells.

A block is `height` rows of `width` columns: 16x1, or 16x4, the word that int8 kernels read at once. Blocks are tiled
within each gate from its row 0, so that the same rows of all gates of an LSTM make one panel for a vector unit. The
last block of a gate is short where `height` does not divide the hidden size, the last of a row of blocks is narrow
where `width` does not divide the columns. A block of 1x1 is a single weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .cells import RecurrentLayer
from .groups import Member, SliceGroups

BLOCK_HEIGHT, WORD_WIDTH = 16, 4


@dataclass(frozen=True)
class Tiles:
    """The blocks of one matrix, shape (rows, columns), numbered row of blocks after row of blocks.

    `spans` are the row ranges [start, stop) that blocks never cross: the gates.
    """

    parameter: str
    rows: int
    columns: int
    spans: tuple[tuple[int, int], ...]
    height: int
    width: int = 1

    @property
    def block_rows(self) -> int:
        """Number of rows of blocks."""
        return sum(-(-(stop - start) // self.height) for start, stop in self.spans)

    @property
    def block_columns(self) -> int:
        return -(-self.columns // self.width)

    @property
    def count(self) -> int:
        return self.block_rows * self.block_columns

    def row_of_blocks(self) -> Tensor:
        """Which row of blocks each row of the matrix lies in, int64 (rows,)."""
        if self.height == 1:
            return torch.arange(self.rows)
        pieces, first = [], 0
        for start, stop in self.spans:
            pieces.append(first + torch.arange(stop - start) // self.height)
            first += -(-(stop - start) // self.height)
        return torch.cat(pieces)

    def sums(self, values: Tensor) -> Tensor:
        """Sum of `values` (rows, columns) over each block, (count,)."""
        sums = values
        if self.height > 1:
            sums = values.new_zeros(self.block_rows, self.columns)
            sums.index_add_(0, self.row_of_blocks().to(values.device), values)
        if self.width > 1:
            more = self.block_columns * self.width - self.columns
            sums = torch.nn.functional.pad(sums, (0, more)).unflatten(1, (-1, self.width)).sum(2)
        return sums.reshape(-1)

    def expand(self, flags: Tensor) -> Tensor:
        """What each block has in `flags` (count,), for each of its elements: (rows, columns)."""
        flags = flags.view(self.block_rows, self.block_columns)
        if self.width > 1:
            flags = flags.repeat_interleave(self.width, 1)[:, : self.columns]
        return flags if self.height == 1 else flags.index_select(0, self.row_of_blocks().to(flags.device))


def tiles(
    names: Iterable[str],
    parameters: Mapping[str, Tensor],
    layers: Sequence[RecurrentLayer],
    height: int = 1,
    width: int = 1,
) -> tuple[Tiles, ...]:
    """The blocks of the matrices `names`; matrices that hold gates are tiled gate by gate, others from row 0."""
    starts: dict[str, set[int]] = {}
    for layer in layers:
        for row in layer.rows:
            starts.setdefault(row.parameter, set()).add(row.start)
    found = []
    for name in names:
        rows, columns = parameters[name].shape
        edges = [*sorted(starts.get(name, set()) | {0}), rows]
        found.append(Tiles(name, rows, columns, tuple(pairwise(edges)), height, width))
    return tuple(found)


def line_groups(
    names: Iterable[str], parameters: Mapping[str, Tensor], layers: Sequence[RecurrentLayer], axis: int
) -> SliceGroups:
    """Every row (axis 0) or column (axis 1) of the matrices `names`, each for itself, in that order.

    Structures within a matrix, as other structured pruning has them (arXiv 1608.03665): a unit has rows and columns
    in several matrices, which go independently of each other here.
    """
    layer_of = {name: layer.name for layer in reversed(layers) for name in layer.matrices()}
    members, scopes, count = [], [], 0
    for name in names:
        size = parameters[name].shape[axis]
        members.append(Member(name, axis, count + torch.arange(size), "incoming"))
        scopes += [layer_of.get(name, name.rpartition(".")[0])] * size
        count += size
    return SliceGroups("row" if axis == 0 else "column", count, tuple(members), tuple(scopes), {})


def gate_groups(layers: Sequence[RecurrentLayer], parameters: Mapping[str, Tensor]) -> SliceGroups:
    """Gate rows (g, k) of all `layers`: row k of gate g in weight_ih and weight_hh; biases belong to no group.

    A gate whose rows are zero is a constant, activation(bias). Groups are numbered layer after layer, gate after
    gate. Layers that share their weights share their groups.
    """
    group_of: dict[str, Tensor] = {}
    scopes: list[str] = []
    units: dict[str, Tensor] = {}
    for layer in layers:
        weights = [row for row in layer.rows if row.kind != "bias"]
        first = {gate: len(scopes) + n * layer.hidden_size for n, gate in enumerate(layer.gates)}
        new = all(row.parameter not in group_of for row in weights)
        if new:
            scopes += [layer.name] * (len(layer.gates) * layer.hidden_size)
        else:
            shared = next(row.parameter for row in weights if row.parameter in group_of)
            for row in weights:
                if row.parameter == shared:
                    first[row.gate] = int(group_of[shared][row.start])
        for row in weights:
            size = parameters[row.parameter].shape[0]
            group = group_of.setdefault(row.parameter, torch.full((size,), -1))
            group[row.start : row.start + layer.hidden_size] = first[row.gate] + torch.arange(layer.hidden_size)
        for gate in layer.gates:
            units[f"{layer.name} {gate}"] = first[gate] + torch.arange(layer.hidden_size)
    members = tuple(Member(name, 0, group, "incoming") for name, group in group_of.items())
    return SliceGroups("gate", len(scopes), members, tuple(scopes), units)
