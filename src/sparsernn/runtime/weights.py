"""The weights of one recurrent layer and direction, as plain tensors, and the order of their rows in compiled code.

Compiled code works on blocks of WIDTH units. A row of pre-activations has, for each block of units, one vector a slot
side by side: i, f, g, o for an LSTM; r, z, n_x, n_h for a GRU, whose n needs its two products apart; one for an RNN;
h, t of one depth for an RHN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.layers import LayeredRecurrent
from ..nn.packing import packing_of
from ..nn.protocol import Layer, Packing
from ..structure.cells import MODES, Cell
from ..structure.coded import CodedMatrix
from ..structure.held_weights import Held, HeldWeight

Weight = Tensor | CodedMatrix | Held


class Factors(NamedTuple):
    """A matrix (rows, columns) that is there as two, (rows, r) and (r, columns)."""

    outer: Weight
    inner: Weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.outer.shape[0], self.inner.shape[1]


def parts_of(weight: Weight | Factors) -> tuple[Weight, ...]:
    """A plain matrix alone, or the outer and the inner factor."""
    return tuple(weight) if isinstance(weight, Factors) else (weight,)


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


SLOTS = {mode: _slots(mode, cell) for mode, cell in MODES.items()}


@dataclass(frozen=True)
class LayerWeights:
    """weight_ih (G H, I), weight_hh (G H, P or H), biases (G H,) or None, weight_hr (P, H) or None, all float32 or held
    in few bytes; weight_ih and weight_hh may be two factors.

    `deeper`: weight_hh and bias of the further depths of a time step (RHN).
    """

    kind: str  # a key of SLOTS
    layer: int
    reverse: bool
    ih: Weight | Factors
    hh: Weight | Factors
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hr: Weight | None
    deeper: tuple[tuple[Weight, Tensor | None], ...] = ()

    @property
    def name(self) -> str:
        """ "l0", "l0_reverse", ..."""
        return f"l{self.layer}" + ("_reverse" if self.reverse else "")

    @property
    def matrices(self) -> dict[str, Weight | Factors]:
        """By the names that the runtime has for them: "ih", "hh", "d1", ..., "hr"."""
        deeper: dict[str, Weight | Factors] = {f"d{depth}": weight for depth, (weight, _) in enumerate(self.deeper, 1)}
        return {"ih": self.ih, "hh": self.hh} | deeper | ({} if self.hr is None else {"hr": self.hr})

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
        total = torch.zeros(self.slots.count, self.hidden_size, dtype=torch.float32, device="cpu")
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


def linear_names(module: object) -> tuple[str, ...]:
    """The names of a linear layer's matrix, or of both its factors; of any other module none."""
    return ("weight",) if isinstance(module, nn.Linear) else module.linear if isinstance(module, Layer) else ()


def linear_weight(module: Any) -> Weight | Factors:
    """The matrix of a linear layer."""
    parts = [weight_of(module, name) for name in linear_names(module)]
    return Factors(*parts) if parts[1:] else parts[0]


def weight_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a recurrent (also a gated) or linear module of its sizes has."""
    if isinstance(module, nn.Linear):
        biased = module._parameters.get("bias", module) is not None
        shapes: dict[str, tuple[int, ...]] = {"weight": (module.out_features, module.in_features)}
        return shapes | ({"bias": (module.out_features,)} if biased else {})
    own = isinstance(module, LayeredRecurrent) or linear_names(module)
    return module.shapes() if own else dict(_packing(module).shapes)


def _packing(module: nn.Module) -> Packing:
    found = packing_of(module)
    assert found is not None
    return found


def weight_of(module: nn.Module, name: str) -> Weight:
    """The weight `name` of a module, wherever it is held."""
    own = module._parameters[name]
    assert own is not None
    return own.held if isinstance(own, HeldWeight) else own.detach()


def matrix_layers(module: nn.Module) -> dict[str, str]:
    """Name of each matrix of a module on kernels -> name of its layer and direction ("l0_reverse"; "" of a Linear).

    A matrix of two factors is two.
    """
    if linear := linear_names(module):
        return dict.fromkeys(linear, "")
    packing, found = _packing(module), dict[str, str]()
    for d in packing.directions:
        layer = f"l{d.layer}" + ("_reverse" if d.reverse else "")
        for name in (d.ih, *d.hh, d.hr):
            found |= {} if name is None else dict.fromkeys(packing.factors.get(name, (name,)), layer)
    return found


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
    packing, found = _packing(module), []
    own: dict[str, Any] = {name: weight_of(module, name) for name in packing.shapes}
    own |= {name: Factors(own[outer], own[inner]) for name, (outer, inner) in packing.factors.items()}
    for d in packing.directions:
        first, *further = [None if name is None else own[name] for name in d.bias]
        hh, *more = [own[name] for name in d.hh]
        bias_hh, hr = (None if name is None else own[name] for name in (d.bias_hh, d.hr))
        deeper = tuple(zip(more, further))
        found.append(LayerWeights(packing.mode, d.layer, d.reverse, own[d.ih], hh, first, bias_hh, hr, deeper))
    return found
