"""What all stacks of recurrent layers share: the call of torch.nn.LSTM, GRU and RNN, layer by layer.

A subclass says how one layer runs (`_run_layer`), or one direction of it (`_run_direction`; by default the equations of
its cell); this base takes care of padded, unbatched and packed inputs, initial and final states, reversal in time and
dropout between layers.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init
from torch.nn.utils.rnn import PackedSequence

from ..structure.cells import MODES, RNN, Cell
from .fused import backward_order, reverse
from .packing import Widths, check_widths, stacked, stand_in
from .protocol import Kept, Layer, Packing, check_size, fitting_widths
from .state import RaggedState, pack_rows, state_rows
from .time_loop import flattened, run_cell

States = list[Tensor]  # of one layer and direction: [h] or [h, c], each (batch, width)


class LayeredRecurrent(Layer):
    """Base of the stacks in this package. Shapes and arguments of `forward` are those of torch.nn.LSTM."""

    cell: Cell
    like_torch: ClassVar[bool] = False  # stands for torch's module of its cell: layers, units and states are the same
    input_size: int
    hidden_sizes: Widths
    proj_sizes: Widths | None

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int | Sequence[int]],
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_sizes: Sequence[int | Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(input_size, int) or isinstance(input_size, bool) or input_size <= 0:
            raise ValueError(f"input_size is {input_size!r}; expected a positive whole number.")
        if not isinstance(dropout, numbers.Real) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout!r}; expected a probability, 0 to 1.")
        if proj_sizes is not None and self.cell.states == 1:
            raise ValueError(f"{type(self).__name__} got proj_sizes; only an LSTM has projections.")
        directions = 2 if bidirectional else 1
        self.input_size = input_size
        self.hidden_sizes = check_widths("hidden_sizes", hidden_sizes, directions)
        self.proj_sizes = None if proj_sizes is None else check_widths("proj_sizes", proj_sizes, directions)
        if self.proj_sizes is not None and len(self.proj_sizes) != len(self.hidden_sizes):
            raise ValueError(
                f"proj_sizes has {len(self.proj_sizes)} layers and hidden_sizes {len(self.hidden_sizes)}; "
                "expected as many in both."
            )
        self.num_layers = len(self.hidden_sizes)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, so with one layer it does nothing.", UserWarning, stacklevel=3
            )

    @property
    def kind(self) -> str:
        """ "LSTM", "GRU", "RNN" or "RHN"."""
        return self.cell.name

    @property
    def gates(self) -> int:
        return len(self.cell.gates)

    @property
    def mode(self) -> str:
        """ "LSTM", "GRU", "RNN_TANH" or "RNN_RELU", as in torch."""
        return f"RNN_{self.nonlinearity.upper()}" if self.cell == RNN else self.kind

    def __getattr__(self, name: str) -> Any:
        # hidden_size and proj_size are no properties: nn.Module would hide their AttributeError behind its own.
        if name in ("hidden_size", "proj_size") and "hidden_sizes" in self.__dict__:
            sizes = self.hidden_sizes if name == "hidden_size" else self.proj_sizes
            if sizes is None:
                return 0
            widths = {width for row in sizes for width in row}
            if len(widths) == 1:
                return widths.pop()
            raise AttributeError(
                f"{type(self).__name__} has no one {name}: its layers have widths {[list(row) for row in sizes]}.\n"
                f"Read {name}s, or take the width from the tensor that the module returns."
            )
        return super().__getattr__(name)

    def output_widths(self, layer: int) -> tuple[int, ...]:
        """Width of each direction of what `layer` hands on: projected where there is a projection."""
        return (self.proj_sizes or self.hidden_sizes)[layer]

    def layer_input_size(self, layer: int) -> int:
        return self.input_size if layer == 0 else sum(self.output_widths(layer - 1))

    def suffixes(self) -> list[list[str]]:
        """Endings of the parameter names, by layer and direction: [["_l0", "_l0_reverse"], ...]."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [[f"_l{layer}{end}" for end in ends] for layer in range(self.num_layers)]

    def packing(self) -> Packing | None:
        return self._stacked()

    def _stacked(self) -> Packing:
        inputs = [self.layer_input_size(layer) for layer in range(self.num_layers)]
        outputs, projected = self.proj_sizes or self.hidden_sizes, self.proj_sizes is not None
        return stacked(self.mode, inputs, self.hidden_sizes, outputs, bias=self.bias, projected=projected)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter at the present sizes."""
        return dict(self._stacked().shapes)

    def _register(self, device: Any, dtype: torch.dtype | None) -> None:
        """Make the parameters, and reset them."""
        for name, shape in self.shapes().items():
            self.register_parameter(name, nn.Parameter(torch.empty(*shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(width) of the own layer and direction, as torch does."""
        widths = {end: w for row, ends in zip(self.hidden_sizes, self.suffixes()) for w, end in zip(row, ends)}
        for name, weight in self.named_parameters():
            bound = 1 / math.sqrt(widths[name[name.rindex("_l") :]])
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing, unless there is a fused kernel whose memory the weights share."""

    def config(self) -> dict[str, Any]:
        found = {"input_size": self.input_size, "hidden_sizes": self.hidden_sizes}
        return found | ({"proj_sizes": self.proj_sizes} if self.like_torch else {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Layer:
        if not cls.like_torch:
            new = cls._own(dense)._copied()
            new.input_size = check_size("input_size", config.get("input_size"), new.input_size)
            rows = fitting_widths("hidden_sizes", config.get("hidden_sizes"), new.hidden_sizes)
            new.hidden_sizes = tuple(map(tuple, rows))
            return new._empty(new.shapes())
        return stand_in(cls, config, dense)

    @classmethod
    def counts(cls, config: Mapping[str, Any], source: Any) -> dict[str, Any]:
        """What else the constructor takes from a config."""
        return {}

    def narrowed(self, kept: Kept) -> nn.Module:
        if self.packing() is not None:  # its rows are those of the gates
            rows = [[getattr(self, "weight_ih" + end).shape for end in row] for row in self.suffixes()]
            self.input_size = rows[0][0][1]
            self.hidden_sizes = tuple(tuple(shape[0] // self.gates for shape in row) for row in rows)
        return self

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {_short(self.hidden_sizes)}"
        if self.proj_sizes is not None:
            text += f", proj_sizes={_short(self.proj_sizes)}"
        for name, default in (("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + (", nonlinearity=relu" if self.mode == "RNN_RELU" else "")

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        """Output of one layer, all directions side by side, and each direction's final states.

        x: (time, batch, features), or (batch, time, features) with batch_first; with `batch_sizes` the data of a
        PackedSequence, and `backwards` the order of its rows in which every sequence runs from its end.
        """
        outputs: list[Tensor] = []
        finals: list[States] = []
        for direction, end in enumerate(self.suffixes()[layer]):
            seen = reverse(x, backwards, self.batch_first) if direction else x
            y, last = self._run_direction(end, seen, batch_sizes, states[direction])
            outputs.append(reverse(y, backwards, self.batch_first) if direction else y)
            finals.append(last)
        return torch.cat(outputs, -1) if self.bidirectional else outputs[0], finals

    def _run_direction(self, end: str, x: Tensor, batch_sizes: Tensor | None, states: States) -> tuple[Tensor, States]:
        """One layer and direction by the equations of its cell; `end` is that of its parameters' names."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights: list[Tensor | None] = [self._parameters.get(name + end) for name in names]
        run = partial(run_cell, MODES[self.mode], weights, states=states)
        return flattened(run, x, batch_sizes, len(states[0]), self.batch_first)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch.nn.LSTM (GRU, RNN); states of unequal widths are `RaggedState`s, also accepted as `hx`."""
        packed = isinstance(input, PackedSequence)
        batch_sizes = sorted_indices = unsorted_indices = backwards = None
        unbatched = False
        if packed:
            x, batch_sizes, sorted_indices, unsorted_indices = input
            batch = int(batch_sizes[0])
        else:
            x = input
            if x.dim() not in (2, 3):
                raise ValueError(f"{self.kind}: Expected input to be 2D or 3D, got {x.dim()}D instead")
            unbatched = x.dim() == 2
            if unbatched:
                x = x.unsqueeze(0 if self.batch_first else 1)
            batch = x.size(0) if self.batch_first else x.size(1)
        self._check_input(x, packed)
        states = self._initial_states(hx, x, batch, unbatched, sorted_indices)
        if batch_sizes is not None and self.bidirectional:
            backwards = backward_order(batch_sizes).to(x.device)
        x, ends = self._run_layers(x, batch_sizes, states, backwards)
        finals = tuple(self._final_state(list(rows), unbatched, unsorted_indices) for rows in zip(*ends))
        state = finals if self.cell.states > 1 else finals[0]
        if packed:
            return PackedSequence(x, batch_sizes, sorted_indices, unsorted_indices), state
        return (x.squeeze(0 if self.batch_first else 1) if unbatched else x), state

    def _run_layers(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        """Output of the stack and the final states of each layer and direction, in torch's order."""
        ends: list[States] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            own = states[layer * directions : (layer + 1) * directions]
            x, last = self._run_layer(layer, x, batch_sizes, own, backwards)
            ends += last
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, ends

    def _check_input(self, x: Tensor, packed: bool) -> None:
        dtype = next(self.parameters()).dtype
        if x.dtype != dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(
                f"{type(self).__name__} got an input of {x.dtype}, its weights are {dtype}.\n"
                f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
            )
        if x.dim() != (2 if packed else 3):
            raise RuntimeError(f"input must have {2 if packed else 3} dimensions, got {x.dim()}")
        if x.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.size(-1)}"
            )

    def _initial_states(self, hx: Any, x: Tensor, batch: int, unbatched: bool, order: Tensor | None) -> list[States]:
        """[h] or [h, c] for each layer and direction, each (batch, width), in the order of the packed batch."""
        outputs = [w for layer in range(self.num_layers) for w in self.output_widths(layer)]
        cells = [w for row in self.hidden_sizes for w in row]
        kinds = [("h_0", outputs), ("c_0", cells)][: self.cell.states]
        if hx is None:
            zeros = [[torch.zeros(batch, w, dtype=x.dtype, device=x.device) for w in widths] for _, widths in kinds]
            return [list(rows) for rows in zip(*zeros)]
        if self.cell.states > 1:
            if not isinstance(hx, (tuple, list)) or len(hx) != 2:
                raise RuntimeError(f"{self.kind}: expected the states as a pair (h_0, c_0), got {type(hx).__name__}.")
            given = hx
        else:
            given = (hx,)
        found = [state_rows(name, value, widths, batch, unbatched) for (name, widths), value in zip(kinds, given)]
        if order is not None:
            found = [[row.index_select(0, order) for row in rows] for rows in found]
        return [list(rows) for rows in zip(*found)]

    def _final_state(self, rows: list[Tensor], unbatched: bool, order: Tensor | None) -> Tensor | RaggedState:
        if order is not None:
            rows = [row.index_select(0, order) for row in rows]
        return pack_rows([row.squeeze(0) for row in rows] if unbatched else rows)


class TanhOrRelu:
    """What an RNN takes besides what its next base does: `nonlinearity`, "tanh" or "relu"."""

    cell = RNN

    def __init__(self, *sizes: Any, nonlinearity: str = "tanh", **options: Any) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'.")
        self.nonlinearity = nonlinearity
        super().__init__(*sizes, **options)


def _short(widths: Widths) -> list[int | list[int]]:
    return [list(row) if row[1:] else row[0] for row in widths]
