"""LSTM, GRU and RNN stacks that compute only the gates that depend on anything.

A gate (g, k) whose rows in weight_ih and weight_hh are zero is the constant activation(bias) (Lobacheva et al.,
arXiv 1911.05585, section 3). These modules hold the rows of the other gates only, and the constants. A GRU's
n = tanh(b_in + r * b_hn) is constant if b_hn is zero or r is constant as well; otherwise ("scaled") it is computed
from r without a product with x or h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..structure.cells import GRU, LSTM, MODES
from ..tensors import short
from .folding import first_order, fold, is_order, unfold
from .fused import run_fused
from .gated_steps import GatedWeights, is_loop_faster, run_steps
from .layers import LayeredRecurrent, States, TanhOrRelu
from .packing import options_of
from .protocol import Misfit, check_table, register_layer
from .ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from .time_loop import flattened


class _Gated(LayeredRecurrent):
    like_torch = True
    dense_types: ClassVar[tuple[type[nn.Module], ...]] = ()

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int | Sequence[int]],
        living: Sequence[Sequence[Sequence[int]]],
        *,
        scaled: Sequence[Sequence[int]] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_sizes, **options)
        self.living = tuple(tuple(tuple(counts) for counts in row) for row in living)
        self.scaled = tuple(tuple(0 for _ in row) for row in self.hidden_sizes)
        if scaled is not None:
            self.scaled = tuple(tuple(row) for row in scaled)
        self._check_counts()
        for layer, ends in enumerate(self.suffixes()):
            for direction, end in enumerate(ends):
                width, counts = self.hidden_sizes[layer][direction], self.living[layer][direction]
                order = first_order(width, counts, self.scaled[layer][direction])
                self.register_buffer("rows" + end, torch.tensor(order, device=device))
        self._register(device, dtype)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        rows = {end: sum(n) for ends, row in zip(self.suffixes(), self.living) for end, n in zip(ends, row)}
        return {
            name: (rows[name[len("weight_ih") :]], shape[1]) if name.startswith(("weight_ih", "weight_hh")) else shape
            for name, shape in super().shapes().items()
        }

    def packing(self) -> None:
        """None: kernels take what `to_dense` gives, and leave zero rows out by themselves."""

    def config(self) -> dict[str, Any]:
        return super().config() | {"living": self.living, "scaled": self.scaled}

    @classmethod
    def counts(cls, config: Mapping[str, Any], source: Any) -> dict[str, Any]:
        size = source.num_layers, 1 + source.bidirectional
        found = {name: check_table(name, config.get(name), *size) for name in ("living", "scaled")}
        for layer, row in enumerate(found["living"]):
            for direction, counts in enumerate(row):
                if not isinstance(counts, list | tuple):
                    raise Misfit(f"living[{layer}][{direction}]", f"got {short(counts)}, expected a list.")
        return found

    def _check_counts(self) -> None:
        shape = [len(row) for row in self.hidden_sizes]
        if [len(row) for row in self.living] != shape or [len(row) for row in self.scaled] != shape:
            raise ValueError(
                f"living and scaled need one entry for each of the layers and directions {shape}; "
                f"got {[len(row) for row in self.living]} and {[len(row) for row in self.scaled]}."
            )
        for layer, row in enumerate(self.living):
            for direction, counts in enumerate(row):
                width, scaled = self.hidden_sizes[layer][direction], self.scaled[layer][direction]
                if len(counts) != self.gates or not all(type(n) is int and 0 <= n <= width for n in counts):
                    raise ValueError(
                        f"living[{layer}][{direction}] is {list(counts)}; expected the number of living units of each "
                        f"of the gates {', '.join(self.cell.gates)}, 0 to {width}."
                    )
                most = width - counts[-1] if self.cell.apart and self.bias else 0
                if type(scaled) is not int or not 0 <= scaled <= most:
                    raise ValueError(f"scaled[{layer}][{direction}] is {scaled}; expected 0 to {most}.")

    def check_tensors(self) -> None:
        """Raise ValueError unless the buffers `rows_l0`, ... list every row once, each kind in rising order."""
        for layer, ends in enumerate(self.suffixes()):
            for direction, end in enumerate(ends):
                width, living = self.hidden_sizes[layer][direction], self.living[layer][direction]
                if not is_order(getattr(self, "rows" + end).tolist(), width, living, self.scaled[layer][direction]):
                    raise ValueError(f"rows{end} does not list the rows of {width} units' gates with {living} living.")

    def _weights(self, end: str) -> GatedWeights:
        layer, direction = next((n, row.index(end)) for n, row in enumerate(self.suffixes()) if end in row)
        width = self.hidden_sizes[layer][direction]
        weight_ih = getattr(self, "weight_ih" + end)
        zeros = None if self.bias else weight_ih.new_zeros(self.gates * width)
        return GatedWeights(
            MODES[self.mode],
            width,
            self.living[layer][direction],
            self.scaled[layer][direction],
            getattr(self, "rows" + end),
            weight_ih,
            getattr(self, "weight_hh" + end),
            getattr(self, "bias_ih" + end) if zeros is None else zeros,
            getattr(self, "bias_hh" + end) if zeros is None else zeros,
            getattr(self, "weight_hr" + end, None),
        )

    def _run_direction(self, end: str, x: Tensor, batch_sizes: Tensor | None, states: States) -> tuple[Tensor, States]:
        w = self._weights(end)
        batch = len(states[0])
        if not is_loop_faster(w, batch):
            biases = (bias.index_select(0, w.rows.argsort()) for bias in (w.bias_ih, w.bias_hh)) if self.bias else ()
            parts = (w.dense(w.weight_ih), w.dense(w.weight_hh), *biases, w.weight_hr)
            y, finals = run_fused(
                self.mode,
                x,
                batch_sizes,
                [state.unsqueeze(0) for state in states],
                [part for part in parts if part is not None],
                bias=self.bias,
                projected=w.weight_hr is not None,
                training=self.training,
                both=False,
                batch_first=self.batch_first,
            )
            return y, [final.squeeze(0) for final in finals]
        return flattened(partial(run_steps, w, states=states), x, batch_sizes, batch, self.batch_first)

    @classmethod
    def from_dense(cls, layer: nn.Module, constant: Mapping[str, Mapping[str, Tensor]] | None = None) -> Self:
        """The same function as `layer` without its constant gates.

        layer: a torch.nn module or one of `nn.ragged`, of the same kind. constant: "l0" or "l0_reverse" -> gate -> bool
        (width,), True where the gate is constant; its rows of weight_ih and weight_hh must be zero, else ValueError. A
        layer or gate that is not named: every gate whose rows are all zero. For a GRU's n, True means that the product
        goes; whether it is then constant or scaled is found.
        """
        if not isinstance(layer, cls.dense_types):
            raise TypeError(
                f"{cls.__name__}.from_dense: got {type(layer).__name__}, "
                f"expected {' or '.join(t.__name__ for t in cls.dense_types)}."
            )
        source: Any = layer
        ends = [f"_l{n}{end}" for n in range(source.num_layers) for end in ("", "_reverse")[: 1 + source.bidirectional]]
        unknown = set(constant or ()) - {end[1:] for end in ends}
        if unknown:
            raise ValueError(f"constant names {sorted(unknown)}; the layers are {', '.join(end[1:] for end in ends)}.")
        folds = [fold(source, end, cls.cell.gates, (constant or {}).get(end[1:], {})) for end in ends]
        step = 1 + source.bidirectional
        by_layer = [folds[n : n + step] for n in range(0, len(folds), step)]
        sizes = [[f.width for f in row] for row in by_layer]
        projected = hasattr(source, "weight_hr_l0")
        options = options_of(source)
        if projected:
            options["proj_sizes"] = [[len(getattr(source, "weight_hr" + f.end)) for f in row] for row in by_layer]
        if cls.cell.apart:
            options["scaled"] = [[f.scaled for f in row] for row in by_layer]
        small: Any = cls(source.input_size, sizes, [[f.living for f in row] for row in by_layer], **options)
        small.dropout = source.dropout
        with torch.no_grad():
            for folding in folds:
                for name, value in folding.tensors(source).items():
                    getattr(small, name).copy_(value)
        return small.train(source.training)

    def to_dense(self) -> nn.Module:
        """The ragged stack of the same function, with zero rows where gates are constant."""
        options = options_of(self) | {"proj_sizes": self.proj_sizes}
        dense: Any = self.dense_types[1](self.input_size, self.hidden_sizes, **options)
        dense.dropout = self.dropout
        with torch.no_grad():
            for end in [end for ends in self.suffixes() for end in ends]:
                unfold(self, dense, end)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, living={[list(map(list, row)) for row in self.living]}"


@register_layer
class GatedLSTM(_Gated):
    """An LSTM stack without its constant gates, made by `from_dense`; called like torch.nn.LSTM.

    `living`: for each layer and direction how many units of each gate (i, f, g, o) are computed. `weight_ih_l0` and
    `weight_hh_l0` hold the rows of those gates only; `bias_ih_l0` and `bias_hh_l0` the biases of all, which make up
    the constants. The buffer `rows_l0` says which row of a torch.nn.LSTM each one is (gate * width + unit): the living
    in rising order, then the constant ones. Where a loop over the living rows would take longer than torch's kernel
    over all of them (`is_loop_faster`), the kernel runs, on rows of zeros for the others.

    Constant gates are those of Lobacheva et al. (arXiv 1911.05585, section 3). Raises ValueError for numbers of units
    that do not fit `hidden_sizes`.
    """

    cell = LSTM
    dense_types = (nn.LSTM, RaggedLSTM)


@register_layer
class GatedGRU(_Gated):
    """A GRU stack without its constant gates (r, z, n); see `GatedLSTM`.

    `scaled`: for each layer and direction the number of units with n = tanh(b_in + r * b_hn), which need no product;
    they stand between the living and the constant rows.
    """

    cell = GRU
    dense_types = (nn.GRU, RaggedGRU)


@register_layer
class GatedRNN(TanhOrRelu, _Gated):
    """An RNN stack (tanh or relu) without its constant units; see `GatedLSTM`."""

    dense_types = (nn.RNN, RaggedRNN)


GATED: dict[str, type[_Gated]] = {kind.cell.name: kind for kind in (GatedLSTM, GatedGRU, GatedRNN)}
