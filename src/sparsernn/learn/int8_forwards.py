"""Forwards of the modules that `accelerate` runs in int8: their own equations, with products rounded as there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.equations import step
from ..nn.factorised import FACTORISED
from ..nn.layers import LayeredRecurrent, States
from ..nn.packing import mode_of, packing_of
from ..nn.protocol import LAYERS, Layer, Packing
from ..nn.ragged import RAGGED
from ..nn.time_loop import flattened, run_cell
from ..structure.cells import MODES
from .int8 import Rounding
from .stand_in import StandIn
from .swapped import Forward

STACKS = (nn.LSTM, nn.GRU, nn.RNN, *RAGGED.values(), *FACTORISED.values())
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def forwards(model: nn.Module) -> dict[nn.Module, Callable[[Rounding], Forward]]:
    """Each module of `model` whose products can be rounded -> its forward on the products of a `Rounding`."""
    made: dict[nn.Module, Callable[[Rounding], Forward]] = {}
    within = {part for _, module in _others(model) for part in module.modules()}
    for module in model.modules():
        linear = bool(_linear_names(module))
        if module in within or not (linear or type(module) in (*STACKS, *CELLS)) or not _is_plain(module):
            continue
        if linear:
            made[module] = partial(_linear, module)
        else:
            made[module] = RoundedStack(module).drawing if type(module) in STACKS else partial(_cell, module)
    return made


def left_out(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module that `accelerate` may run in int8, and whose products can't be rounded here."""
    plain = [(p, m) for p, m in model.named_modules() if type(m) in (*STACKS, *CELLS) and not _is_plain(m)]
    return dict([*_others(model), *plain])


def _others(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Recurrent modules with a forward of their own: derived classes, and the other layers of this package."""
    own = [m for m in model.named_modules() if isinstance(m[1], LayeredRecurrent) or packing_of(m[1]) is not None]
    return [(path, module) for path, module in own if type(module) not in (*STACKS, *CELLS)]


def _is_plain(module: nn.Module) -> bool:
    """Whether its matrices are parameters, and its forward the class's own."""
    names = _linear_names(module) or list(_packing(module).shapes)
    return all(module._parameters.get(name) is not None for name in names) and "forward" not in module.__dict__


def _packing(module: nn.Module) -> Packing:
    found = packing_of(module)
    assert found is not None
    return found


def _linear_names(module: nn.Module) -> tuple[str, ...]:
    """Of the matrix of a linear layer, or of both its factors; nothing for other modules and derived classes."""
    if type(module) is nn.Linear:
        return ("weight",)
    return module.linear if isinstance(module, Layer) and type(module) in LAYERS.values() else ()


class RoundedStack(StandIn):
    """A stack whose products are those of a `Rounding`."""

    def _run_direction(self, end: str, x: Tensor, batch_sizes: Tensor | None, states: States) -> tuple[Tensor, States]:
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *(["weight_hr"] if self.proj_sizes else [])]
        factors, own = _packing(self._source[0]).factors, self._source[0]._parameters
        names = [name + end for name in names]
        weights = [[own[half] for half in factors[n]] if n in factors else own.get(n) for n in names]
        run = partial(run_cell, self.cell, weights, states=states, product=self._draw.product)
        return flattened(run, x, batch_sizes, len(states[0]), self.batch_first)


def _linear(module: Any, rounding: Rounding) -> Forward:
    weights: list[Any] = [getattr(module, name) for name in _linear_names(module)]
    return lambda input: rounding.product(input, weights if weights[1:] else weights[0], module.bias)


def _cell(module: Any, rounding: Rounding) -> Forward:
    cell = MODES[mode_of(module)]

    def forward(input: Tensor, hx: Any = None) -> Any:
        x = torch.atleast_2d(input)
        given = () if hx is None else hx if cell.states > 1 else (hx,)
        states = [torch.atleast_2d(state) for state in given]
        states = states or [x.new_zeros(len(x), module.hidden_size) for _ in range(cell.states)]
        inputs = rounding.product(x, module.weight_ih, module.bias_ih)
        found = step(cell, inputs, rounding.product(states[0], module.weight_hh, module.bias_hh), states)
        found = [state.view(*input.shape[:-1], module.hidden_size) for state in found]
        return tuple(found) if cell.states > 1 else found[0]

    return forward
