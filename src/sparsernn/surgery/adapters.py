"""Dense-width adapters: parameters shrink, and the user's code never sees another shape.

Every module with narrowed weights takes its inputs in the dense width (and picks the units that are left) and hands
out its outputs in the dense width (with zeros for the units that are gone). Used where plain narrowing fails: widths
kept in a dict or a config object, sums with tensors of a fixed width.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..nn.protocol import Sides
from ..nn.state import RaggedState, pack_rows
from ..structure.classes import Plane
from .attachments import attachments, register_attachment, remember
from .narrow import kept_index, parts
from .torch_modules import leaf_axes
from .widths import WIDEST, output_width, rising, state_widths, whole

Axis = tuple[int, int, list[int]]  # (dimension of the activation, dense width, the indices that are left)


@register_attachment
class DenseWidths:
    """Pre-hook and hook of one module. `inputs[n]` is the axis of positional argument n, `output` that of the result,
    `states` those of the final states of a recurrent module (for each state and row the units that are left)."""

    tag: ClassVar[str] = "dense_widths"

    def __init__(self, inputs: Mapping[int, Axis], output: Axis | None, states: list[list[Axis]] | None = None) -> None:
        self.inputs = {int(n): _axis(a) for n, a in inputs.items()}
        self.output = None if output is None else _axis(output)
        self.states = None if states is None else [[_axis(a) for a in rows] for rows in states]

    def to_json(self) -> dict[str, Any]:
        def plain(axis: _Placed) -> list[Any]:
            return [axis[0], axis[1], axis[2].tolist()]

        return {
            "inputs": {str(n): plain(a) for n, a in self.inputs.items()},
            "output": None if self.output is None else plain(self.output),
            "states": None if self.states is None else [[plain(a) for a in rows] for rows in self.states],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        def axis(value: Any) -> Axis:
            dim, dense, kept = value
            whole("dense widths: a dimension", dim, -5, 5)
            return (
                dim,
                dense,
                rising("dense widths: the kept indices", kept, whole("dense widths: a width", dense, 1, WIDEST)),
            )

        inputs = {int(n): axis(a) for n, a in data["inputs"].items()}
        output, states = data["output"], data["states"]
        rows = None if states is None else [[axis(a) for a in part] for part in states]
        return cls(inputs, None if output is None else axis(output), rows)

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None:
        inputs, output, states = _limits(dense, small)
        pairs = [(a, inputs.get(n)) for n, a in self.inputs.items()]
        pairs += [(self.output, output)] if self.output is not None else []
        if self.states is not None:
            if [len(rows) for rows in self.states] != [len(rows) for rows in states] or not states:
                raise ValueError(f"dense widths: a {type(dense).__name__} has other states.")
            pairs += [pair for rows, limits in zip(self.states, states) for pair in zip(rows, limits)]
        for (dim, width, kept, _), limit in pairs:
            if limit is None or (dim, len(kept)) != (limit.dim, limit.small) or width > limit.dense:
                expected = (
                    "none there"
                    if limit is None
                    else f"at most {limit.dense}, {limit.small} kept, of dimension {limit.dim}"
                )
                raise ValueError(f"dense widths: {width}, {len(kept)} kept, of dimension {dim}; expected {expected}.")

    def attach(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self.gather)
        module.register_forward_hook(self.scatter)
        remember(module, self)

    def gather(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_pick(a, self.inputs[n]) if n in self.inputs else a for n, a in enumerate(args))

    def scatter(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        if self.states is None:
            return result if self.output is None else _spread(result, self.output)
        if isinstance(result, Tensor):  # GRUCell, RNNCell
            return _spread(result, self.states[0][0])
        if not isinstance(module, nn.RNNCellBase):
            y, finals = result
            y = y if self.output is None else _spread(y, self.output)
            if isinstance(finals, tuple):
                return y, tuple(_spread_rows(f, rows) for f, rows in zip(finals, self.states))
            return y, _spread_rows(finals, self.states[0])
        return tuple(_spread(s, rows[0]) for s, rows in zip(result, self.states))  # LSTMCell


class _Limit(NamedTuple):
    """One dimension of an activation, its width in the dense module and in the small one."""

    dim: int
    dense: int
    small: int


def _limits(dense: Any, small: Any) -> tuple[dict[int, _Limit], _Limit | None, list[list[_Limit]]]:
    """What adapters of `small` may have in the place of `dense`: by argument, for the result, for the states."""
    axes = leaf_axes(dense)
    if axes is not None:
        wide, narrow = dense.weight.shape, small.weight.shape
        inputs = {n: _Limit(dim, wide[axis], narrow[axis]) for n, (axis, dim) in axes.inputs.items()}
        axis, dim = axes.output
        return inputs, _Limit(dim, wide[axis], narrow[axis]), []
    wide, narrow = state_widths(dense), state_widths(small)
    if not wide or list(map(len, wide)) != list(map(len, narrow)):
        return {}, None, []
    states = [[_Limit(-1, a, b) for a, b in zip(*rows)] for rows in zip(wide, narrow)]
    inputs = {0: _Limit(-1, dense.input_size, small.input_size)}
    return inputs, _Limit(-1, output_width(dense), output_width(small)), states


# An axis as the hooks have it: dimension, dense width, the units that are left, and for each dense unit its place among
# those, or one behind them.
_Placed = tuple[int, int, Tensor, Tensor]


def _axis(axis: Any) -> _Placed:
    dim, dense, kept = axis
    index = torch.as_tensor(kept, dtype=torch.long)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < dense:
        raise ValueError(f"dense widths: an index lies outside 0..{dense - 1}.")
    places = torch.full((dense,), len(index), dtype=torch.long)
    places[index] = torch.arange(len(index))
    return int(dim), int(dense), index, places


def _pick(value: Any, axis: _Placed) -> Any:
    dim, dense, kept, _ = axis
    if isinstance(value, PackedSequence):
        return value._replace(data=_pick(value.data, axis))
    if isinstance(value, Tensor) and -value.dim() <= dim < value.dim() and value.shape[dim] == dense:
        return value.index_select(dim, kept.to(value.device))
    return value


def _spread(value: Any, axis: _Placed) -> Any:
    dim, _, _, places = axis
    if isinstance(value, PackedSequence):
        return value._replace(data=_spread(value.data, axis))
    # A column of zeros, read for every unit that is gone: no other size is asked for, of which the data of a packed
    # sequence has more in ONNX.
    zeros = torch.zeros_like(value.narrow(dim, 0, 1))
    return torch.cat([value, zeros], dim).index_select(dim, places.to(value.device))


def _spread_rows(state: Any, rows: list[_Placed]) -> Tensor | RaggedState:
    parts = list(state) if isinstance(state, RaggedState) else state.unbind(0)
    return pack_rows([_spread(part, axis) for part, axis in zip(parts, rows)])


def adapt(model: nn.Module, names: Mapping[int, str], gone: Mapping[Plane, Tensor], sides: Mapping[str, Sides]) -> None:
    """Attach `DenseWidths` to every module whose weights were narrowed. `names[id(parameter)]` is its name."""
    inside = parts(model)  # which the layer around them adapts
    for path, module in model.named_modules():
        if id(module) in inside:
            continue
        if any(isinstance(a, DenseWidths) for a in attachments(module)):
            raise TypeError(f"{path} has dense-width adapters of an earlier compaction.")
        found = _recurrent(sides[path]) if path in sides else _leaf(module, names, gone)
        if found is not None and (found.inputs or found.output or found.states):
            found.attach(module)


def _cut(plane: Plane | None, gone: Mapping[Plane, Tensor], dim: int) -> Axis | None:
    mask = None if plane is None else gone.get(plane)
    return None if mask is None else (dim, len(mask), kept_index(mask).tolist())


def _leaf(module: nn.Module, names: Mapping[int, str], gone: Mapping[Plane, Tensor]) -> DenseWidths | None:
    weight = module._parameters.get("weight")
    name = None if weight is None else names.get(id(weight))
    if name is None:
        return None
    axes = leaf_axes(module)
    if axes is None:
        return None
    taken = {n: _cut((name, axis), gone, dim) for n, (axis, dim) in axes.inputs.items()}
    axis, dim = axes.output
    return DenseWidths({n: a for n, a in taken.items() if a is not None}, _cut((name, axis), gone, dim))


def _recurrent(sides: Sides) -> DenseWidths:
    source, output = _axis_of(sides.inputs), _axis_of(sides.output)
    states = [[_axis_of(row) for row in rows] for rows in sides.states]
    cut = any(len(left) < dense for rows in states for _, dense, left in rows)
    return DenseWidths(
        {0: source} if len(source[2]) < source[1] else {},
        output if len(output[2]) < output[1] else None,
        states if cut else None,
    )


def _axis_of(left: Tensor) -> Axis:
    return -1, len(left), left.nonzero()[:, 0].tolist()
