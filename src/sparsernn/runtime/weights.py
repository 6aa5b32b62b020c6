"""The weights of one recurrent layer and direction, as plain tensors, and the order of their rows in compiled code.

Compiled code works on blocks of WIDTH units. A row of pre-activations has, for each block of units, one vector a slot
side by side: i, f, g, o for an LSTM; r, z, n_x, n_h for a GRU, whose n needs its two products apart; one for an RNN;
h, t of one depth for an RHN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.layers import LayeredRecurrent
from ..nn.rhn import RHN
from ..structure.cells import MODES, Cell
from ..structure.cells import RHN as HIGHWAY


@dataclass(frozen=True)
class Slots:
    """Where the gates of weight_ih and weight_hh go: slot numbers in torch's order of the gates."""

    kernel: str
    count: int
    states: int
    ih: tuple[int, ...]
    hh: tuple[int, ...]


def _slots(mode: str, cell: Cell) -> Slots:
    """A slot for each gate, and one more behind them for the product with the state of each that keeps it apart."""
    ih = tuple(range(len(cell.gates)))
    more = [len(ih) + n for n in range(len(cell.apart))]
    hh = tuple(more[cell.apart.index(gate)] if gate in cell.apart else n for n, gate in enumerate(cell.gates))
    return Slots(f"cells.{mode.lower()}", len(ih) + len(more), cell.states, ih, hh)


SLOTS = {mode: _slots(mode, cell) for mode, cell in {**MODES, HIGHWAY.name: HIGHWAY}.items()}


@dataclass(frozen=True)
class LayerWeights:
    """weight_ih (G H, I), weight_hh (G H, P or H), biases (G H,) or None, weight_hr (P, H) or None, all float32.

    `deeper`: weight_hh and bias of the further depths of a time step (RHN).
    """

    kind: str  # a key of SLOTS
    layer: int
    reverse: bool
    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hr: Tensor | None
    deeper: tuple[tuple[Tensor, Tensor | None], ...] = ()

    @property
    def name(self) -> str:
        """ "l0", "l0_reverse", ..."""
        return f"l{self.layer}" + ("_reverse" if self.reverse else "")

    @property
    def slots(self) -> Slots:
        return SLOTS[self.kind]

    @property
    def hidden_size(self) -> int:
        return self.ih.shape[0] // len(self.slots.ih)

    @property
    def input_size(self) -> int:
        return self.ih.shape[1]

    @property
    def output_size(self) -> int:
        return self.hidden_size if self.hr is None else self.hr.shape[0]

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Widths of [h] or [h, c]."""
        return (self.output_size, self.hidden_size)[: self.slots.states]

    def bias_slots(self) -> Tensor:
        """The bias of every slot, of the first depth, (slots, H)."""
        total = self.ih.new_zeros(self.slots.count, self.hidden_size)
        for bias, places in ((self.bias_ih, self.slots.ih), (self.bias_hh, self.slots.hh)):
            if bias is not None:
                total.index_add_(0, torch.tensor(places, dtype=torch.int64, device="cpu"), bias.view(len(places), -1))
        return total


def ends(module: Any) -> list[tuple[int, bool, str]]:
    """(layer, reverse, ending of the weights' names) of every layer and direction, in torch's order."""
    if not hasattr(module, "num_layers"):
        return [(0, False, "")]
    directions = (False, True) if module.bidirectional else (False,)
    return [(n, back, f"_l{n}" + ("_reverse" if back else "")) for n in range(module.num_layers) for back in directions]


def kind_of(module: Any) -> str:
    """The key of SLOTS for a stack, a cell or one of `sparsernn.nn`."""
    if isinstance(module, RHN):
        return "RHN"
    if isinstance(module, nn.RNNCellBase):
        kinds = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}
        known = [kind for cell, kind in kinds.items() if isinstance(module, cell)]
        return known[0] if known else f"RNN_{module.nonlinearity.upper()}"  # type: ignore[union-attr]
    return module.mode


def weight_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a recurrent (also a gated) or linear module of its sizes has."""
    if isinstance(module, nn.Linear):
        biased = module._parameters.get("bias", module) is not None
        shapes: dict[str, tuple[int, ...]] = {"weight": (module.out_features, module.in_features)}
        return shapes | ({"bias": (module.out_features,)} if biased else {})
    if isinstance(module, RHN):
        return module.shapes(module.input_size, module.hidden_sizes)
    gates, shapes = len(SLOTS[kind_of(module)].ih), {}
    for layer, reverse, end in ends(module):
        if isinstance(module, LayeredRecurrent):
            inputs, width = module.layer_input_size(layer), module.hidden_sizes[layer][reverse]
            output, projected = module.output_widths(layer)[reverse], module.proj_sizes is not None
            rows = sum(module.living[layer][reverse]) if hasattr(module, "living") else gates * width
        else:
            width, projected = module.hidden_size, bool(getattr(module, "proj_size", 0))
            output = module.proj_size if projected else width
            inputs = (1 + module.bidirectional) * output if layer else module.input_size
            rows = gates * width
        shapes |= {"weight_ih" + end: (rows, inputs), "weight_hh" + end: (rows, output)}
        if module.bias:
            shapes |= {"bias_ih" + end: (gates * width,), "bias_hh" + end: (gates * width,)}
        if projected:
            shapes["weight_hr" + end] = (output, width)
    return shapes


def lacking(module: nn.Module) -> str:
    """What is wrong with the first weight that is not there as a plain float32 parameter of its shape; "" for none."""
    for name, shape in weight_shapes(module).items():
        weight = module._parameters.get(name)
        if weight is None:
            return f"{name} is no parameter of its own"
        if tuple(weight.shape) != shape:
            return f"{name} is {tuple(weight.shape)} where its sizes ask for {shape}"
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            return f"{name} is {weight.dtype} on {weight.device}"
    return ""


def layer_weights(module: Any) -> list[LayerWeights]:
    """Every layer and direction of a recurrent module, in torch's order.

    Raises RuntimeError where a weight is missing or has another shape than the module's sizes say.
    """
    wrong = lacking(module)
    if wrong:
        raise RuntimeError(
            f"{type(module).__name__} is accelerated, but its {wrong}.\n"
            "Masks, norms and other sizes belong on the original model: change that, and accelerate it again."
        )
    own = {name: module._parameters[name].detach() for name in weight_shapes(module)}
    kind, found = kind_of(module), []
    for layer, reverse, end in ends(module):
        ih, hr = own["weight_ih" + end], own.get("weight_hr" + end)
        if kind == "RHN":
            hh, *more = [own[f"weight_hh_d{d}{end}"] for d in range(module.depth)]
            first, *further = [own.get(f"bias_d{d}{end}") for d in range(module.depth)]
            found.append(LayerWeights(kind, layer, reverse, ih, hh, first, None, None, tuple(zip(more, further))))
        else:
            biases = own.get("bias_ih" + end), own.get("bias_hh" + end)
            found.append(LayerWeights(kind, layer, reverse, ih, own["weight_hh" + end], *biases, hr))
    return found
