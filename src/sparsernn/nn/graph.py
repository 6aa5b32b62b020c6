"""Recurrent networks whose connections are the edges of a graph: each node is one unit.

After Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917): edges lead from the earlier node to the
later one, nodes are layered by the longest path from a source, and each layer is one recurrent call, whatever edges
there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from ..structure.cells import GRU, LSTM, register_cell
from ..tensors import short
from .layering import INPUT, Inputs, Layering, Outputs, Skips, input_masks, lay_out, recurrent_masks
from .layers import States, TanhOrRelu
from .protocol import Kept, Misfit, Packing, Sides, check_size, register_layer
from .ragged import _Ragged


class _Graph(_Ragged):
    like_torch = False
    layering: Layering

    def __init__(
        self,
        input_size: int,
        graph: Any,
        *,
        inputs: Inputs = "sources",
        skips: Skips = "input",
        recurrent: Any = "dense",
        outputs: Outputs = "sinks",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_options(inputs, skips, recurrent, outputs)
        layering = lay_out(graph, inputs, skips, outputs)
        # Before the base makes the parameters, since their sizes follow from it.
        object.__setattr__(self, "layering", layering)
        super().__init__(
            input_size,
            layering.hidden_sizes,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            device=device,
            dtype=dtype,
        )
        masks_ih, masks_hh = input_masks(graph, layering, input_size), recurrent_masks(layering, recurrent)
        for layer, masks in enumerate(zip(masks_ih, masks_hh)):
            for name, mask in zip(("mask_ih", "mask_hh"), masks):
                # One block of rows for each gate: a unit's gates all have its edges.
                rows = None if mask is None else mask.repeat(self.gates, 1).to(device)
                self.register_buffer(f"{name}_l{layer}", rows)
        self.clear_absent()

    @property
    def nodes(self) -> tuple[tuple[Any, ...], ...]:
        """The graph's nodes by layer: unit k of a layer is nodes[layer][k]."""
        return self.layering.nodes

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return sum(len(units) for units in self.layering.readout)

    def layer_input_size(self, layer: int) -> int:
        return self.layering.input_size(layer, self.input_size)

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(nodes of the layer), as torch does; no weight where the graph has no edge."""
        for layer, width in enumerate(self.layering.widths):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                weight = getattr(self, f"{name}_l{layer}", None)
                if weight is not None:
                    init.uniform_(weight, -1 / math.sqrt(width), 1 / math.sqrt(width))
        self.clear_absent()

    def clear_absent(self) -> None:
        """Set the weights of absent edges to zero. They never take part; this makes them zero to look at, too."""
        for name, mask in self._buffers.items():
            if mask is not None and name.startswith("mask_"):
                weight = getattr(self, name.replace("mask", "weight"))
                if not weight.is_meta:
                    weight.data.masked_fill_(~mask, 0)

    def edge_weights(self) -> int:
        """How many weights of the matrices belong to an edge (or to the input, or feed back)."""
        return sum(
            weight.numel() if (mask := self._mask(name)) is None else int(mask.sum())
            for name, weight in self._parameters.items()
            if weight is not None and weight.dim() == 2
        )

    def narrowed(self, kept: Kept) -> Self:
        self.input_size = getattr(self, "weight_ih_l0").shape[1]  # noqa: B009
        units = []
        for layer, (size,) in enumerate(self.hidden_sizes):
            # Another form of surgery may have left the weights of this module alone.
            cut = getattr(self, f"weight_hh_l{layer}").shape[1] < size
            units.append(kept.units[f"l{layer}"].nonzero()[:, 0].tolist() if cut else range(size))
        return self._keep(units)

    def sides(self, kept: Kept) -> Sides:
        rows = [
            kept.units.get(f"l{n}", torch.ones(size, dtype=torch.bool)) for n, (size,) in enumerate(self.hidden_sizes)
        ]
        whole = torch.ones(self.input_size, dtype=torch.bool)
        output = torch.cat([row[list(units)] for row, units in zip(rows, self.layering.readout)])
        return Sides(kept.columns.get("weight_ih_l0", whole), (tuple(rows),) * self.cell.states, output)

    def _keep(self, units: Sequence[Sequence[int]]) -> Self:
        """Bring sizes, readout and node names in line with the hidden units that are left of each layer.

        Raises ValueError where the parts of a layer lost different units.
        """
        self.layering = self.layering.narrowed(units)
        self.hidden_sizes = tuple((size,) for size in self.layering.hidden_sizes)
        return self

    def config(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "kept": self.layering.kept}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Self:
        new = cls._own(dense)._copied()
        new.input_size = check_size("input_size", config.get("input_size"), new.input_size)
        kept: Any = config.get("kept")
        if not isinstance(kept, list | tuple) or len(kept) != new.num_layers:
            raise Misfit("kept", f"got {short(kept)}, expected {new.num_layers} lists of units.")
        for layer, (units, (most,)) in enumerate(zip(kept, new.hidden_sizes)):
            whole = isinstance(units, list | tuple) and all(type(k) is int and 0 <= k < most for k in units)
            if not whole or list(units) != sorted(set(units)):
                expected = f"expected rising numbers from 0 to {most - 1}"
                raise Misfit(f"kept[{layer}]", f"got {short(units)}, {expected}.")
        try:
            new._keep(kept)
        except ValueError as error:
            raise Misfit("kept", str(error)) from None
        shapes = new.shapes()
        return new._empty(shapes | {name.replace("weight", "mask"): shape for name, shape in shapes.items()})

    def check_tensors(self) -> None:
        self.clear_absent()

    def packing(self) -> Packing:
        return replace(self._stacked(), whole=False)

    def flatten_parameters(self) -> None:
        """Nothing: masked weights are made anew in every call."""

    def weights(self, end: str) -> list[Tensor]:
        """Weights and biases of the layer named by `end`, without those of absent edges."""
        names = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if self.bias else [])
        found = [(getattr(self, name + end), self._mask(name + end)) for name in names]
        return [weight if mask is None else weight * mask for weight, mask in found]

    def _mask(self, weight: str) -> Tensor | None:
        return self._buffers.get(weight.replace("weight", "mask")) if weight.startswith("weight") else None

    def _run_layers(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[States], backwards: Tensor | None
    ) -> tuple[Tensor, list[States]]:
        plan = self.layering
        heard = {INPUT: x}  # and what each layer hands on to others
        out: list[Tensor] = []
        ends: list[States] = []
        for layer, sources in enumerate(plan.sources):
            seen = _joined([heard[source] for source in sources])
            y, last = self._run_layer(layer, seen, batch_sizes, [states[layer]], None)
            if plan.parts[layer] > 1:
                y = y.unflatten(-1, (plan.parts[layer], -1)).sum(-2)
            ends += last
            units = plan.readout[layer]
            if units:
                out.append(y if len(units) == y.size(-1) else y[..., list(units)])
            heard[layer] = F.dropout(y, self.dropout, self.training) if self.dropout else y
        return _joined(out), ends

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.clear_absent()

    def extra_repr(self) -> str:
        edges = self.edge_weights()
        return f"{super().extra_repr()}, weights={edges}, output_size={self.output_size}"


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _check_options(inputs: object, skips: object, recurrent: object, outputs: object) -> None:
    import networkx as nx

    words = (("inputs", inputs, Inputs), ("skips", skips, Skips), ("outputs", outputs, Outputs))
    for name, value, known in ((name, value, get_args(kind)) for name, value, kind in words):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}.")
    if not (isinstance(recurrent, str) and recurrent == "dense") and not isinstance(recurrent, nx.Graph):
        raise ValueError(f"recurrent is {recurrent!r}; expected 'dense' or a networkx graph of what feeds back.")


@register_layer
class GraphLSTM(_Graph):
    """An LSTM with the connections of a graph; call and results are those of torch.nn.LSTM.

    - `graph`: a networkx graph. Undirected edges lead from the earlier node (in the graph's own order) to the later
      one; a directed graph has no cycles. A node's layer is the longest path to it from a source.
    - `inputs`: which nodes read the input, "sources" (nodes without a predecessor) or "all".
    - `skips`: how an edge over several layers acts. "input": as any other edge, a unit reads all its predecessors.
      "added": for each layer that it reads, and for the input if it reads that too, a layer has recurrent units of its
      own, whose outputs are added (Darji, arXiv 2407.20601).
    - `recurrent`: "dense", all units of a layer feed back into each other, or a networkx graph with an edge (u, v)
      for each unit u that feeds back into unit v of its layer; (u, u) is u itself.
    - `outputs`: the units whose values the module returns, layer by layer: "sinks" (nodes without a successor), the
      "last" layer's, or "all".
    - `bias`, `batch_first`, `dropout` (on what a layer hands on), `device`, `dtype`: as in torch.

    Parameters are named as in torch, `weight_ih_l2` for the third layer, and hold zeros where there is no edge, which
    stay whatever is done to the weights: the masks (`mask_ih_l2`, one block of rows for each gate) act in every call.
    h_n and c_n have a row for each layer, a `RaggedState` where widths differ. A graph without edges is a
    torch.nn.LSTM of one layer. Raises TypeError and ValueError for anything that is no such graph.
    """

    cell = LSTM


@register_layer
class GraphGRU(_Graph):
    """A GRU with the connections of a graph; see `GraphLSTM`."""

    cell = GRU


@register_layer
class GraphRNN(TanhOrRelu, _Graph):
    """A tanh or relu (`nonlinearity`) network with the connections of a graph; see `GraphLSTM`."""


GRAPHS: tuple[type[_Graph], ...] = (GraphLSTM, GraphGRU, GraphRNN)

for _kind in GRAPHS:
    register_cell(_kind, _kind.cell)
