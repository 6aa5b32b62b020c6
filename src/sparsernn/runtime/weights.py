"""The weights of one recurrent layer and direction, as plain tensors, and the order of their rows in compiled code.

Compiled code works on blocks of WIDTH units. A row of pre-activations has, for each block of units, one vector a slot
side by side: i, f, g, o for an LSTM; r, z, n_x, n_h for a GRU, whose n needs its two products apart; one for an RNN;
h, t of one depth for an RHN.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from ..structure.cells import recurrent_layers


@dataclass(frozen=True)
class Slots:
    """Where the gates of weight_ih and weight_hh go: slot numbers in torch's order of the gates."""

    kernel: str
    count: int
    ih: tuple[int, ...]
    hh: tuple[int, ...]


SLOTS = {
    "LSTM": Slots("cells.lstm", 4, (0, 1, 2, 3), (0, 1, 2, 3)),
    "GRU": Slots("cells.gru", 4, (0, 1, 2), (0, 1, 3)),
    "RNN_TANH": Slots("cells.rnn_tanh", 1, (0,), (0,)),
    "RNN_RELU": Slots("cells.rnn_relu", 1, (0,), (0,)),
    "RHN": Slots("cells.rhn", 2, (0, 1), (0, 1)),
}


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
        return (self.output_size, self.hidden_size) if self.kind == "LSTM" else (self.output_size,)

    def bias_slots(self) -> Tensor:
        """The bias of every slot, of the first depth, (slots, H)."""
        total = self.ih.new_zeros(self.slots.count, self.hidden_size)
        for bias, places in ((self.bias_ih, self.slots.ih), (self.bias_hh, self.slots.hh)):
            if bias is not None:
                total.index_add_(0, torch.tensor(places, dtype=torch.int64, device="cpu"), bias.view(len(places), -1))
        return total


def layer_weights(module: nn.Module) -> list[LayerWeights]:
    """Every layer and direction of a recurrent module, in torch's order; empty for any other module."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found = []
    for layer in recurrent_layers(module):
        kind = layer.cell.name
        if kind == "RNN":
            kind = f"RNN_{layer.cell.activations[0].upper()}"
        if kind not in SLOTS:
            return []
        (ih,), (hh, *more) = layer.parameters("ih"), layer.parameters("hh")
        # By name: layers of unequal widths have no one proj_size to ask.
        hr = parameters.get(ih.replace("weight_ih", "weight_hr"))
        biases = [parameters[name].detach() for name in layer.parameters("bias")]
        further = biases[1:] if kind == "RHN" else []  # one for each depth
        first, second, *_ = [*biases[: len(biases) - len(further)], None, None]
        deeper = zip_longest([parameters[name].detach() for name in more], further)
        found.append(
            LayerWeights(
                kind,
                layer.layer,
                layer.reverse,
                parameters[ih].detach(),
                parameters[hh].detach(),
                first,
                second,
                None if hr is None else hr.detach(),
                tuple(deeper),
            )
        )
    return found
