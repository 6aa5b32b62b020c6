"""LSTM, GRU and RNN layers made of small ones side by side: large, and sparse from the start.

Each layer of `hidden_size` units is `blocks` independent components (Demeester et al., arXiv 1808.08720, section 3):
each reads a segment of the input and owns a segment of the units, so that weight_hh is block diagonal. Only the
components are stored, and each runs through torch's own fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..structure.cells import GRU, LSTM, RNN
from ..tensors import short
from .layers import LayeredRecurrent, States, TanhOrRelu
from .protocol import Kept, Misfit, Sides, check_size, register_layer
from .segments import Segment, blocks_for_reduction, check_pattern, segments
from .split_dense import from_dense, to_dense, width_of


class _Split(LayeredRecurrent):
    components: nn.ModuleList  # by layer: a list of torch's own one-layer modules

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        blocks: int | Sequence[int],
        input_density: float | Sequence[float] = 1.0,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(num_layers, int) or isinstance(num_layers, bool) or num_layers < 1:
            raise ValueError(f"num_layers is {num_layers!r}; expected a whole number, at least 1.")
        super().__init__(
            input_size,
            [[hidden_size] * (2 if bidirectional else 1)] * num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
        )
        self.segments: tuple[tuple[Segment, ...], ...] = ()
        self.components = nn.ModuleList()
        made = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
        made |= {"nonlinearity": self.nonlinearity} if self.cell == RNN else {}
        for layer, (count, density) in enumerate(
            zip(per_layer("blocks", blocks, num_layers), per_layer("input_density", input_density, num_layers))
        ):
            size = self.layer_input_size(layer)
            check_pattern(count, density, size, hidden_size)
            inputs, units = segments(size, count, density), segments(hidden_size, count, 1 / count)
            self.segments += (inputs,)
            self.components.append(
                nn.ModuleList(
                    getattr(nn, self.kind)(e - b, v - u, device=device, dtype=dtype, **made)
                    for (b, e), (u, v) in zip(inputs, units)
                )
            )

    @classmethod
    def from_reduction(
        cls,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reduce_in: float,
        reduce_out: float,
        bidirectional: bool = False,
        **options: Any,
    ) -> Self:
        """A split layer with as many parameters as a smaller dense one.

        That one has reduce_in x input_size inputs and reduce_out x hidden_size units; the smallest number of components
        that allows it is taken. Of several layers, the later ones read reduced units: reduce_out counts for both their
        sides. Raises ValueError where no split layer has that size.
        """
        found = []
        for layer in range(num_layers):
            size = hidden_size * (1 + bidirectional) if layer else input_size
            share = reduce_out if layer else reduce_in
            found.append(
                blocks_for_reduction(size, hidden_size, share, reduce_out, bias=bool(options.get("bias", True)))
            )
        return cls(
            input_size,
            hidden_size,
            num_layers,
            blocks=[blocks for blocks, _ in found],
            input_density=[density for _, density in found],
            bidirectional=bidirectional,
            **options,
        )

    def layer_components(self, layer: int) -> list[Any]:
        """The modules that `layer` is made of, in the order of their units."""
        return list(cast(nn.ModuleList, self.components[layer]))

    def component_widths(self, layer: int, direction: int) -> list[int]:
        """How many units of `layer` and `direction` each component holds."""
        return [width_of(component, direction) for component in self.layer_components(layer)]

    def resize(self, input_size: int, parts: Sequence[Sequence[Segment]]) -> None:
        """Take `parts` (segments by layer) as what the components read, and widths from the components as they are.

        Used after components were narrowed. Raises ValueError, with nothing changed, where the sizes do not fit.
        """
        directions = 2 if self.bidirectional else 1
        widths = [[sum(self.component_widths(n, d)) for d in range(directions)] for n in range(self.num_layers)]
        given = tuple(tuple((int(b), int(e)) for b, e in row) for row in parts)
        if len(given) != self.num_layers:
            raise ValueError(f"segments has {len(given)} layers, expected {self.num_layers}.")
        for layer, row in enumerate(given):
            size = sum(widths[layer - 1]) if layer else input_size
            modules = self.layer_components(layer)
            fits = len(row) == len(modules) and all(
                0 <= b < e <= size and module.input_size == e - b for (b, e), module in zip(row, modules)
            )
            if not fits:
                raise ValueError(f"segments[{layer}] is {list(map(list, row))}, which does not fit {size} inputs.")
        self.input_size, self.segments = input_size, given
        self.hidden_sizes = tuple(map(tuple, widths))

    def sides(self, kept: Kept) -> Sides:
        inputs = torch.ones(self.input_size, dtype=torch.bool)
        for n, (begin, end) in enumerate(self.segments[0]):
            inputs[begin:end] &= kept.columns.get(f"components.0.{n}.weight_ih_l0", inputs.new_ones(()))
        rows = [self._left(kept, layer) for layer in range(self.num_layers)]
        return Sides(inputs, (tuple(row for each in rows for row in each),) * self.cell.states, torch.cat(rows[-1]))

    def _left(self, kept: Kept, layer: int) -> list[Tensor]:
        """bool for each direction of `layer`: which units are left; one that was folded is not cut any more."""
        found = []
        for direction, end in enumerate(("", "_reverse")[: 1 + self.bidirectional]):
            parts = [
                kept.units.get(f"components.{layer}.{n}.l0{end}", torch.ones(width, dtype=torch.bool))
                for n, width in enumerate(self.component_widths(layer, direction))
            ]
            found.append(torch.cat(parts))
        return found

    def narrowed(self, kept: Kept) -> Self:
        """Its components have been narrowed before."""
        inputs, segments = self.sides(kept).inputs, []
        for layer, row in enumerate(self.segments):
            read = torch.cat(self._left(kept, layer - 1)) if layer else inputs
            before = torch.cat([torch.zeros(1, dtype=torch.long), read.long().cumsum(0)]).tolist()
            segments.append([(before[begin], before[end]) for begin, end in row])
        self.resize(int(inputs.sum()), segments)
        return self

    def packing(self) -> None:
        """None: kernels run its components, or what `to_dense` gives."""

    def config(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "segments": self.segments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Self:
        new = cls._own(dense)._copied()
        new.input_size = check_size("input_size", config.get("input_size"), new.input_size)
        rows: Any = config.get("segments")
        counts = [len(row) for row in new.segments]
        is_list = isinstance(rows, list | tuple)
        if not is_list or [len(row) if isinstance(row, list | tuple) else -1 for row in rows] != counts:
            raise Misfit("segments", f"got {short(rows)}, expected lists of {counts} segments.")
        for layer, row in enumerate(rows):
            most = new.layer_input_size(layer)
            for n, pair in enumerate(row):
                whole = isinstance(pair, list | tuple) and [type(part) for part in pair] == [int, int]
                if not whole or not 0 <= pair[0] < pair[1] <= most:
                    expected = f"begin and end within 0 to {most}"
                    raise Misfit(f"segments[{layer}][{n}]", f"got {short(pair)}, expected {expected}.")
        new.segments = tuple(tuple((begin, end) for begin, end in row) for row in rows)
        return new

    def check_tensors(self) -> None:
        self.resize(self.input_size, self.segments)

    def reset_parameters(self) -> None:
        """Each component anew, as torch does: uniform in ±1/sqrt(its width)."""
        for component in self._all():
            component.reset_parameters()

    def flatten_parameters(self) -> None:
        """On CUDA, lay the weights of each component side by side, as cuDNN wants them."""
        for component in self._all():
            component.flatten_parameters()

    def _all(self) -> Iterator[Any]:
        return (component for layer in range(self.num_layers) for component in self.layer_components(layer))

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        directions, lstm = len(states), self.cell.states > 1
        widths = [self.component_widths(layer, d) for d in range(directions)]
        # For each direction and state the rows of each component.
        given = [[state.split(widths[d], -1) for state in states[d]] for d in range(directions)]
        outputs: list[list[Tensor]] = [[] for _ in states]
        finals: list[list[list[Tensor]]] = [[[] for _ in rows] for rows in states]
        for n, (component, (begin, end)) in enumerate(zip(self.layer_components(layer), self.segments[layer])):
            part = x[..., begin:end]
            seen = part if batch_sizes is None else PackedSequence(part, batch_sizes)
            own = [_rows([given[d][s][n] for d in range(directions)]) for s in range(len(states[0]))]
            y, last = component(seen, tuple(own) if lstm else own[0])
            y = y.data if isinstance(y, PackedSequence) else y
            ends = last if lstm else (last,)
            place = 0
            for d in range(directions):
                width = widths[d][n]
                outputs[d].append(y[..., place : place + width] if directions > 1 else y)
                place += width
                for s, end_state in enumerate(ends):
                    finals[d][s].append(end_state[d])
        ordered = [torch.cat(parts, -1) for d in range(directions) for parts in finals[d]]
        each = len(states[0])
        return (
            torch.cat([y for parts in outputs for y in parts], -1),
            [ordered[d * each : (d + 1) * each] for d in range(directions)],
        )

    def to_dense(self) -> nn.Module:
        """The same function as one torch.nn module (`sparsernn.nn.ragged` where widths differ), zeros stored."""
        return to_dense(self)

    @classmethod
    def from_dense(
        cls, layer: nn.Module, *, blocks: int | Sequence[int], input_density: float | Sequence[float] = 1.0
    ) -> Self:
        """The same function as `layer`, a torch.nn module of the same kind, as components.

        Raises ValueError if `layer` has a weight that is not zero where the pattern has none.
        """
        return from_dense(cls, layer, blocks, input_density)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, blocks={[len(row) for row in self.segments]}"


@register_layer
class SplitLSTM(_Split):
    """An LSTM of `blocks` smaller ones side by side, called like torch.nn.LSTM, as many parameters and no zeros.

    Each component owns hidden_size / blocks units and reads about input_density x input_size of the input, evenly
    spaced segments that overlap where they must; input_density is at least 1 / blocks, so that every input is read.
    Of several layers each is split; `blocks` and `input_density` may be lists, one entry a layer. The components are
    torch.nn.LSTMs at `components.LAYER.NUMBER`; final states have the layout of torch.nn.LSTM, component after
    component. Raises ValueError for sizes that can't be split so.

    Source: Demeester et al., arXiv 1808.08720, section 3.
    """

    cell = LSTM


@register_layer
class SplitGRU(_Split):
    """A GRU of `blocks` smaller ones side by side, called like torch.nn.GRU; see `SplitLSTM`."""

    cell = GRU


@register_layer
class SplitRNN(TanhOrRelu, _Split):
    """An RNN (tanh or relu) of `blocks` smaller ones side by side, called like torch.nn.RNN; see `SplitLSTM`."""


def per_layer(name: str, value: Any, layers: int) -> list[Any]:
    """`value` once for each layer; ValueError if it is a list of another length."""
    found = list(value) if isinstance(value, Sequence) else [value] * layers
    if len(found) != layers:
        raise ValueError(f"{name} has {len(found)} entries, expected one for each of {layers} layers.")
    return found


def _rows(parts: list[Tensor]) -> Any:
    """The initial state of one component: one tensor, or a list of rows where directions differ in width."""
    return torch.stack(parts) if len({part.shape[-1] for part in parts}) == 1 else parts
