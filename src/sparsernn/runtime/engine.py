"""The engine of one recurrent module: it packs the layers for the batches that it meets, and keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from .calls import Calls
from .costs import current
from .held import Precision
from .matrices import LayerMatrices
from .pack import WIDTH
from .packed_layer import PackedLayer
from .stack import Job, Space, Stack
from .stamp import Stamp
from .weights import layer_weights


def packing_of(name: str, x: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Active rows of each step of a PackedSequence, and the first row of each step and behind them their number.

    Raises RuntimeError where they don't fit the data `x`.
    """
    sizes = batch_sizes.tolist() if batch_sizes.dim() == 1 and not batch_sizes.is_floating_point() else []
    falls = all(a >= b for a, b in pairwise(sizes)) and bool(sizes) and sizes[-1] > 0
    if x.dim() != 2 or not falls or sum(sizes) != x.shape[0]:
        some = f"{str(sizes[:6])[:-1]}, ...]" if len(sizes) > 6 else str(sizes)
        raise RuntimeError(
            f"{name}: got a PackedSequence of data {tuple(x.shape)} with batch sizes {some}, "
            "expected sizes from 1 on that never rise and add up to the rows: use pack_padded_sequence."
        )
    starts = [0, *accumulate(sizes)]
    return (
        torch.tensor(sizes, dtype=torch.int64, device="cpu"),
        torch.tensor(starts, dtype=torch.int64, device="cpu"),
    )


MANY = 64  # beyond so many inputs a layout's cost grows with their number, so the choice stays


class Engine(Calls):
    """Packs the layers of one module and keeps them; packs anew when a weight was changed or replaced."""

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        self._packed_for: Stamp | None = None
        self._matrices: list[list[LayerMatrices]] = []
        self._layers: dict[tuple[int, int], Stack] = {}
        self._spaces: dict[tuple[int, ...], list[Space]] = {}

    def forget(self) -> None:
        super().forget()
        self._packed_for, self._matrices, self._layers, self._spaces = None, [], {}, {}

    def layers(self, module: nn.Module, rows: int, steps: int) -> list[list[PackedLayer]]:
        """The packed layers, by layer and direction, for a batch of `rows` over `steps` steps."""
        self.sure(module)
        return self.stack(module, rows, steps).layers

    def stack(self, module: nn.Module, rows: int, steps: int) -> Stack:
        """The same, ready to run."""
        stamp = self.stamp(module)
        key = (rows, min(steps, max(1, MANY // max(rows, 1))))
        found = self._layers.get(key)
        if found is None:
            layers = [[m.layer(max(1, rows), key[1]) for m in directions] for directions in self._packed(module, stamp)]
            same = tuple(id(p) for row in layers for layer in row for p in layer.products)
            found = self._layers[key] = Stack(layers, stamp.sample, self._spaces.setdefault(same, []))
        return found

    def run(
        self, module: nn.Module, rows: int, steps: int, job: Callable[[Stack], Job], x: Tensor, given: Sequence[Tensor]
    ) -> tuple[Tensor | None, tuple[Tensor, ...], Job]:
        """Output and states of the job that `job` makes of the stack for such a call, and the job."""
        while True:
            made = job(self.stack(module, rows, steps))
            done = made(x, given)
            if done is not None:
                return *done, made
            self.forget()  # the weights changed unseen by torch

    def matrices(self, module: nn.Module) -> list[list[LayerMatrices]]:
        """The module's matrices as they are now, by layer and direction."""
        return self._packed(module, self.sure(module))

    def _packed(self, module: nn.Module, stamp: Stamp) -> list[list[LayerMatrices]]:
        with self._lock:
            if self._packed_for is not stamp:
                found: list[list[LayerMatrices]] = []
                with torch.inference_mode(False), torch.no_grad():
                    for weights in layer_weights(module):
                        if weights.layer == len(found):
                            found.append([])
                        found[-1].append(LayerMatrices(weights, self.precision))
                        found[-1][-1].take(self)
                self._matrices, self._layers, self._spaces, self._packed_for = found, {}, {}, stamp
            return self._matrices

    def explain(self, path: str, module: nn.Module, rows: int, steps: int) -> list[str]:
        """One line a layer and direction: the layout of each matrix and the predicted microseconds of its products in
        a time step. And one line with the time of a whole call."""
        lines, products, gates, costs = [], 0.0, 0.0, current()
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
                products += total * steps
                gates += costs.gates * -(-m.weights.hidden_size // WIDTH) * rows * steps / 1e3
                end = "_reverse" if m.weights.reverse else ""
                sorting = "; units re-sorted" if m.order is not None else ""
                place = f"{path or type(module).__name__}.l{number}{end}"
                lines.append(f"{place}: {'; '.join(parts)}{sorting}; together about {total:.2f} us a step")
        calls = steps if isinstance(module, nn.RNNCellBase) else 1  # a cell is called once a step
        parts = [f"{products:.1f} us products", f"{gates:.1f} gates and states"]
        parts.append(f"{calls * costs.call / 1e3:.1f} round the kernels")
        what = f"{steps} calls take" if calls > 1 else "a call takes"
        whole = products + gates + calls * costs.call / 1e3
        return [*lines, f"{path or type(module).__name__}: {what} about {whole:.1f} us: {', '.join(parts)}"]
