"""The engine of one module: it packs the module's layers for the batches that it meets, and keeps them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .costs import Precision
from .matrices import LayerMatrices
from .packed_layer import PackedLayer
from .weights import layer_weights


def packing_of(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Active rows and first rows of each step of a PackedSequence, as `PackedLayer.run` wants them."""
    sizes = batch_sizes.to(torch.int64).contiguous()
    starts = torch.zeros(len(sizes) + 1, dtype=torch.int64, device="cpu")
    starts[1:] = sizes.cumsum(0)
    return sizes, starts


MANY = 64  # beyond so many inputs a layout's cost grows with their number, so the choice stays


class Engine:
    """Packs the layers of one module and keeps them; packs anew when a weight was changed in place or replaced.

    A copy or a pickle of an engine is an empty one: it packs by itself at its first call.
    """

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision
        self._stamp: tuple[int, ...] = ()
        self._matrices: list[list[LayerMatrices]] = []
        self._layers: dict[tuple[int, int], list[list[PackedLayer]]] = {}

    def __reduce__(self) -> tuple[type[Engine], tuple[Precision]]:
        return Engine, (self.precision,)

    def layers(self, module: nn.Module, rows: int, steps: int) -> list[list[PackedLayer]]:
        """The packed layers, by layer and direction, for a batch of `rows` over `steps` steps."""
        matrices = self.matrices(module)
        key = (rows, min(steps, max(1, MANY // max(rows, 1))))
        if key not in self._layers:
            self._layers[key] = [[m.layer(max(1, rows), key[1]) for m in directions] for directions in matrices]
        return self._layers[key]

    def matrices(self, module: nn.Module) -> list[list[LayerMatrices]]:
        """The module's matrices as they are now, by layer and direction."""
        stamp = tuple(p._version for p in module._parameters.values() if p is not None)
        if stamp != self._stamp:
            found: list[list[LayerMatrices]] = []
            for weights in layer_weights(module):
                if weights.layer == len(found):
                    found.append([])
                found[-1].append(LayerMatrices(weights, self.precision))
            self._matrices, self._layers, self._stamp = found, {}, stamp
        return self._matrices

    def explain(self, path: str, module: nn.Module, rows: int, steps: int) -> list[str]:
        """One line a layer and direction: the layout of each matrix and the predicted microseconds a time step."""
        lines = []
        names = {"ih": "input", "hh": "recurrent", "hr": "projection"}
        for number, directions in enumerate(self.matrices(module)):
            for m in directions:
                parts, total = [], 0.0
                for name, choice in m.choices(rows, steps).items():
                    packed = m.matrices[name].packed(choice.layout)
                    took = choice.nanoseconds / 1e3 / (steps if name == "ih" else 1)
                    total += took
                    what = names.get(name) or f"depth {name[1:]}"
                    parts.append(f"{what} {packed.layout}, {packed.bytes / 1024:.0f} KiB, {took:.2f} us")
                end = "_reverse" if m.weights.reverse else ""
                sorting = "; units re-sorted" if m.order is not None else ""
                place = f"{path or type(module).__name__}.l{number}{end}"
                lines.append(f"{place}: {'; '.join(parts)}{sorting}; together about {total:.2f} us a step")
        return lines
