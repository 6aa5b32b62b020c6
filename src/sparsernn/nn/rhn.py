"""The Recurrent Highway Network (Zilly et al., arXiv 1607.03474, section 4): several layers deep within a time step."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from ..structure.cells import RHN as HIGHWAY
from ..structure.cells import Cell, register_cell
from .layers import LayeredRecurrent, States
from .protocol import Direction, Packing, register_layer
from .rhn_steps import RHNWeights, run_steps
from .time_loop import flattened


@register_layer
class RHN(LayeredRecurrent):
    """A recurrent highway network with coupled gates; call and results are those of torch.nn.GRU.

    At every time step the state s of `hidden_size` units passes `depth` highway layers (Zilly et al., arXiv 1607.03474,
    equations 6 to 9, carry gate 1 - t):

        h_l = tanh([l = 1] W_h x + R_hl s + b_hl)
        t_l = sigmoid([l = 1] W_t x + R_tl s + b_tl)
        s <- s + t_l (h_l - s)

    - `transform_bias`: first value of the biases of t; below zero, a new network mostly carries its state on.
    - `input_dropout`, `state_dropout`: shares of the input, and of the state where the matrices read it, that are zero
      in training, with one mask for all time steps and depths (variational dropout, arXiv 1512.05287).
    - `num_layers`, `bias`, `batch_first`, `bidirectional`, `device`, `dtype`: as in torch.

    Parameters, H = hidden_size, the rows of h before those of t: `weight_ih_l0` (2 H, input_size), for each depth
    `weight_hh_d0_l0`, `weight_hh_d1_l0`, ... (2 H, H) and `bias_d0_l0`, ... (2 H). A unit is one of all depths, of the
    state and of the output. `hidden_size` may be a list with the width of each layer, or of each layer's directions;
    where widths differ h_n is a `RaggedState`. Raises ValueError for sizes and shares that are none.
    """

    cell = HIGHWAY

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int | Sequence[int]],
        depth: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        bidirectional: bool = False,
        transform_bias: float = -2.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, number in (("depth", depth), ("num_layers", num_layers)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name} is {number!r}; expected a whole number, at least 1.")
        for name, share in (("input_dropout", input_dropout), ("state_dropout", state_dropout)):
            if not isinstance(share, numbers.Real) or isinstance(share, bool) or not 0 <= share < 1:
                raise ValueError(f"{name} is {share!r}; expected a share from 0 to below 1.")
        one = isinstance(hidden_size, int)
        sizes: Sequence[Any] = [[hidden_size] * (1 + bool(bidirectional))] * num_layers if one else hidden_size  # type: ignore[assignment]
        if not one and num_layers not in (1, len(sizes)):
            raise ValueError(f"hidden_size has {len(sizes)} entries, expected one for each of {num_layers} layers.")
        super().__init__(input_size, sizes, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        self.depth = depth
        self.input_dropout, self.state_dropout = float(input_dropout), float(state_dropout)
        self.transform_bias = float(transform_bias)
        self._register(device, dtype)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter."""
        found: dict[str, tuple[int, ...]] = {}
        for layer, ends in enumerate(self.suffixes()):
            for width, end in zip(self.hidden_sizes[layer], ends):
                found["weight_ih" + end] = (self.gates * width, self.layer_input_size(layer))
                for d in range(self.depth):
                    found[f"weight_hh_d{d}{end}"] = (self.gates * width, width)
                    if self.bias:
                        found[f"bias_d{d}{end}"] = (self.gates * width,)
        return found

    def reset_parameters(self) -> None:
        """Weights uniform in ±1/sqrt(width); biases of h zero, those of t `transform_bias`."""
        for name, p in self.named_parameters():
            if p.dim() == 2:
                bound = (p.shape[0] // self.gates) ** -0.5
                init.uniform_(p, -bound, bound)
            elif name.startswith("bias"):
                with torch.no_grad():
                    for gate, first in zip(p.chunk(self.gates), (0.0, self.transform_bias)):
                        gate.fill_(first)

    def weights(self, end: str) -> RHNWeights:
        """The parameters of the layer and direction named by `end`."""
        depths = range(self.depth)
        return RHNWeights(
            getattr(self, "weight_ih" + end),
            [getattr(self, f"weight_hh_d{d}{end}") for d in depths],
            [getattr(self, f"bias_d{d}{end}") if self.bias else None for d in depths],
        )

    def packing(self) -> Packing:
        """What kernels need: the parameters of each layer and direction, by depth."""
        depths, found = range(self.depth), []
        for layer, ends in enumerate(self.suffixes()):
            for direction, end in enumerate(ends):
                hh = tuple(f"weight_hh_d{d}{end}" for d in depths)
                bias = tuple(f"bias_d{d}{end}" if self.bias else None for d in depths)
                found.append(Direction(layer, bool(direction), "weight_ih" + end, hh, bias))
        return Packing(self.mode, self.shapes(), tuple(found))

    def _run_direction(self, end: str, x: Tensor, batch_sizes: Tensor | None, states: States) -> tuple[Tensor, States]:
        keep = keep_h = None
        if self.training and self.input_dropout:
            keep = F.dropout(x.new_ones(len(states[0]), x.shape[-1]), self.input_dropout)
        if self.training and self.state_dropout:
            keep_h = F.dropout(torch.ones_like(states[0]), self.state_dropout)

        def run(flat: Tensor, sizes: list[int]) -> tuple[Tensor, States]:
            flat = flat if keep is None else flat * torch.cat([keep[:size] for size in sizes])
            y, last = run_steps(self.weights(end), flat, sizes, states[0], keep_h)
            return y, [last]

        return flattened(run, x, batch_sizes, len(states[0]), self.batch_first)

    def extra_repr(self) -> str:
        """Sizes, depth, and the shares of dropout that are not zero."""
        text = f"{super().extra_repr()}, depth={self.depth}"
        for name in ("input_dropout", "state_dropout"):
            text += f", {name}={getattr(self, name)}" if getattr(self, name) else ""
        return text


def _cell(module: nn.Module) -> Cell:
    """The gates of each depth: h0, t0, h1, t1, ..."""
    depths = range(module.depth)  # type: ignore[arg-type]
    gates = [tuple(f"{gate}{d}" for gate in HIGHWAY.gates) for d in depths]
    every = tuple(gate for pair in gates for gate in pair)
    hh, bias = tuple(f"weight_hh_d{d}" for d in depths), tuple(f"bias_d{d}" for d in depths)
    return replace(
        HIGHWAY,
        gates=every,
        hh=hh,
        bias=bias,
        activations=HIGHWAY.activations * len(gates),
        constant=every,
        holds={"weight_ih": gates[0], **dict(zip(hh, gates)), **dict(zip(bias, gates))},
    )


register_cell(RHN, _cell)
