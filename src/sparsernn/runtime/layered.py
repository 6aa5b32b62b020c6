"""The accelerated forms of this package's own layers: as a whole, or one layer after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .engine import packing_of
from .memory import check, eager
from .modules import Accelerated, check_call, run_stack


class WholeLayer(Accelerated):
    """Forward of a layer whose layers all run in one call (`Packing.whole`)."""

    @eager
    def forward(self, input: Any, hx: Any = None) -> Any:
        known = self._engine.find(self, (input,), cast(Any, self).batch_first) if hx is None else None
        done = known.run(input, ()) if known is not None else None
        return self._look(input, hx) if done is None else self._handed(done[0], done[1], input.dim() == 2)

    def _look(self, input: Any, hx: Any) -> Any:
        """A call that is not known."""
        module, name = cast(Any, self), type(self).__name__
        packed = isinstance(input, PackedSequence)
        x, batch_sizes, order, back = input if packed else (input, None, None, None)
        check_call(self, x)
        if self._engine.on_torch(module) or (not packed and x.dim() not in (2, 3)):
            return super().forward(input, hx)  # type: ignore[misc]
        unbatched = not packed and x.dim() == 2
        batch_first = module.batch_first and not packed
        packing = None if batch_sizes is None else packing_of(name, x, batch_sizes)
        whole = x.unsqueeze(0 if batch_first else 1) if unbatched else x
        module._check_input(whole, packed)
        if not packed and whole.shape[1 if batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        batch = int(packing[0][0]) if packing is not None else whole.shape[0 if batch_first else 1]
        given: list[Tensor] = []
        if hx is not None:
            rows = module._initial_states(hx, whole, batch, unbatched, order)
            given = [torch.cat([state.reshape(-1) for state in states]) for states in zip(*rows)]
            check(name, *given)
        layers = (0, module.num_layers)
        out, ends, job = run_stack(self, x, given, layers, packing, batch_first and not unbatched, unbatched, True)
        if job is not None and not packed and not given:
            self._engine.remember((input,), job, module.batch_first)
        if packed:
            out, state = self._handed(out, ends, False, batch, back)
            return PackedSequence(out, batch_sizes, order, back), state
        return self._handed(out, ends, unbatched, batch)

    def _handed(
        self, out: Tensor, ends: Sequence[Tensor], unbatched: bool, batch: int = -1, back: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Output and state as the module hands them out; ends: h, or h and c, each all layers in one row."""
        module = cast(Any, self)
        outputs = [w for layer in range(module.num_layers) for w in module.output_widths(layer)]
        cells = [w for row in module.hidden_sizes for w in row]
        finals = []
        for end, widths in zip(ends, (outputs, cells)):
            batch = end.numel() // sum(widths) if batch < 0 else batch
            pieces = end.split([batch * width for width in widths])
            rows = [piece if unbatched else piece.view(batch, width) for piece, width in zip(pieces, widths)]
            finals.append(module._final_state(rows, False, back))
        return out, tuple(finals) if module.cell.states > 1 else finals[0]


class LayerByLayer(Accelerated):
    """How one layer runs; the rest of the forward is the module's own."""

    @eager
    def forward(self, input: Any, hx: Any = None) -> Any:
        check_call(self, input[0] if isinstance(input, PackedSequence) else input)
        if not isinstance(input, PackedSequence) and 0 in input.shape[: 1 if input.dim() < 3 else 2]:
            _no_time(self, input)
        return super().forward(input, hx)  # type: ignore[misc]

    def _initial_states(self, hx: Any, x: Tensor, batch: int, unbatched: bool, order: Tensor | None) -> Any:
        module = cast(Any, self)
        if hx is None and not self._engine.on_torch(module):  # the kernels know zeros: none are made and copied
            return [None for layer in range(module.num_layers) for _ in module.output_widths(layer)]
        found = super()._initial_states(hx, x, batch, unbatched, order)  # type: ignore[misc]
        check(type(self).__name__, *(state for states in found for state in states))
        return found

    def _run_layer(
        self, layer: int, x: Tensor, batch_sizes: Tensor | None, states: list[Any], backwards: Tensor | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        module = cast(Any, self)
        if self._engine.on_torch(module):
            return super()._run_layer(layer, x, batch_sizes, states, backwards)  # type: ignore[misc]
        packing = None if batch_sizes is None else packing_of(type(self).__name__, x, batch_sizes)
        given, layers = states[0] or (), (layer, layer + 1)
        out, ends, _ = run_stack(self, x, given, layers, packing, module.batch_first and packing is None)
        return out, [[end[0] for end in ends]]


def _no_time(module: Any, x: Tensor) -> None:
    time = 0 if x.dim() == 2 or not module.batch_first else 1
    if x.shape[time] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
