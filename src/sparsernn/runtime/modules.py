"""The accelerated forms of torch's recurrent modules: same class tree, own forward.

`accelerate` changes the class of a copied module to one of these, so parameters, attributes and isinstance hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

import torch
import torch.nn.modules.module as _module
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..structure.held_weights import held_in
from .calls import settled
from .engine import packing_of
from .held import thaw
from .memory import check, eager
from .stack import Job, Packing, Stack


class Accelerated:
    """Mark of a module that runs on compiled kernels; `_engine` packs and runs it."""

    _engine: Any
    _pair = False  # whether the state is h and c

    def _given(self, x: Any, hx: Any) -> tuple[Sequence[Any], tuple[Any, ...]]:
        """The states as they were given, and all tensors of the call, each once."""
        if not self._pair:
            return (hx,), (x, hx)
        given = hx if type(hx) is tuple else tuple(hx)
        return given, (x, given[0]) if len(given) == 2 and given[0] is given[1] else (x, *given)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is round a layer may set a weight at each call (weight drop): its values go into the parameter.
        own = self.__dict__.get("_parameters", {}).get(name)
        if own is None or not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
            super().__setattr__(name, value)
        elif value.shape != own.shape:
            raise RuntimeError(
                f"{name} of an accelerated {type(self).__name__} is {tuple(own.shape)}, "
                f"got {tuple(value.shape)}: change the original model, and accelerate it again."
            )
        else:
            thaw(self)
            own = self.__dict__["_parameters"][name]
            if not torch.equal(own, value):
                with torch.no_grad():
                    own.copy_(value)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        thaw(self)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        if not keep_vars:
            destination.update({prefix + name: matrix.dense() for name, matrix in held_in(cast(Any, self)).items()})

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        thaw(self)
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError(
            f"{type(self).__name__} runs compiled kernels, which torch.jit.script can't hold: "
            "script the model that accelerate was given."
        )


def check_call(module: Any, x: Any, *states: Any) -> None:
    """A sentence for everything that the kernels can't take."""
    name = type(module).__name__
    if module.training:
        raise RuntimeError(f"{name} is accelerated and only infers: call eval() on the model, or train the original.")
    check(name, x, *states)


def _shape_of(x: Tensor, packing: Packing | None, batch_first: bool, unbatched: bool) -> tuple[int, int, int, int]:
    """Steps and rows of x, and numbers from step to step and from row to row."""
    if packing is not None:
        return len(packing[0]), int(packing[0][0]), 0, x.stride(0)
    if unbatched:
        return x.shape[0], 1, x.stride(0), 0
    time, row = (1, 0) if batch_first else (0, 1)
    return x.shape[time], x.shape[row], x.stride(time), x.stride(row)


def run_stack(
    module: Any,
    x: Tensor,
    given: Sequence[Tensor],
    layers: tuple[int, int],
    packing: Packing | None = None,
    batch_first: bool = False,
    unbatched: bool = False,
    flat: bool = False,
) -> tuple[Tensor, Sequence[Tensor], Job | None]:
    """The layers from `layers[0]` to before `layers[1]` on x: (output, h or [h, c], the call as it can be repeated).

    x: (T, B, I), with `batch_first` (B, T, I), with `unbatched` (T, I), with `packing` (rows, I). given: h, or h and c,
    or nothing for zeros. States are (layers x directions, B, width), with `unbatched` without B, and with `flat`, for
    layers of different widths, one row of numbers.
    """
    x, given = settled(x), [state.resolve_neg().contiguous() for state in given]
    steps, rows, time, row = _shape_of(x, packing, batch_first, unbatched)

    def job(stack: Stack) -> Job:
        width = stack.widths[layers[1] - 1]
        first, last = (n * stack.directions for n in layers)
        states: list[tuple[int, ...]] = []
        for own in (widths[first:last] for widths in stack.state_widths):
            batch = () if unbatched else (rows,)
            states.append((rows * sum(own),) if flat else (len(own), *batch, own[0]))
        out_time = 0 if packing is not None else width if batch_first or unbatched else rows * width
        out_row = steps * width if batch_first else width
        total = x.shape[0] if packing is not None else steps * rows
        out = (*x.shape[:-1], width)
        return Job(stack, steps, rows, total, (time, row), out, (out_time, out_row), states, layers, packing)

    if rows == 0 or steps == 0:
        empty = job(module._engine.stack(module, rows, steps))
        return x.new_empty(empty.out), [x.new_zeros(state) for state in empty.states], None  # type: ignore[arg-type]
    out, states, known = module._engine.run(module, rows, steps, job, x, given)
    return cast(Tensor, out), states, known


@eager
def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """As `nn.Module.__call__`, without its second step; that one runs hooks. Classes derived have their own forward."""
    if (
        self._compiled_call_impl is not None
        or (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks)
        or (_module._global_forward_hooks or _module._global_forward_pre_hooks)
        or (_module._global_backward_hooks or _module._global_backward_pre_hooks)
    ):
        return nn.Module.__call__(self, *args, **kwargs)
    return self.forward(*args, **kwargs)


class _Stack(Accelerated):
    """Forward of torch.nn.LSTM, GRU and RNN."""

    __call__ = _call

    @eager
    def forward(self, input: Any, hx: Any = None) -> Any:
        given, tensors = ((), (input,)) if hx is None else self._given(input, hx)
        known = self._engine.find(self, tensors, cast(Any, self).batch_first)
        done = known.run(input, given) if known is not None else None
        if done is None:
            return self._look(input, hx, given)
        return done if self._pair else (done[0], done[1][0])

    def _look(self, input: Any, hx: Any, given: Sequence[Any]) -> Any:
        """A call that is not known."""
        module = cast(Any, self)
        packed = isinstance(input, PackedSequence)
        x, batch_sizes, order, back = input if packed else (input, None, None, None)
        check_call(self, x, *given)
        if self._engine.on_torch(module):
            return super().forward(input, hx)  # type: ignore[misc]
        unbatched = not packed and x.dim() == 2
        if not packed and x.dim() not in (2, 3):
            raise ValueError(f"{type(self).__name__}: expected an input of 2 or 3 dimensions, got {x.dim()}.")
        batch_first = module.batch_first and not packed
        packing = None if batch_sizes is None else packing_of(type(self).__name__, x, batch_sizes)
        whole = x.unsqueeze(0 if batch_first else 1) if unbatched else x
        if given and order is not None:
            given = tuple(g.index_select(1, order) for g in given)
        if given:
            seen = tuple(g.unsqueeze(1) if unbatched and g.dim() == 2 else g for g in given)
            module.check_forward_args(whole, seen if self._pair else seen[0], batch_sizes)
        else:
            module.check_input(whole, batch_sizes)
        if not packed and whole.shape[1 if batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        layers = (0, module.num_layers)
        out, ends, job = run_stack(self, x, given, layers, packing, batch_first and not unbatched, unbatched)
        if job is not None and not packed:
            self._engine.remember(self._given(input, hx)[1] if given else (input,), job, module.batch_first)
        if back is not None:
            ends = [end.index_select(1, back) for end in ends]
        state = tuple(ends) if self._pair else ends[0]
        return (PackedSequence(out, batch_sizes, order, back) if packed else out), state


class AcceleratedLSTM(_Stack, nn.LSTM):
    """torch.nn.LSTM on compiled kernels."""

    _pair = True


class AcceleratedGRU(_Stack, nn.GRU):
    """torch.nn.GRU on compiled kernels."""


class AcceleratedRNN(_Stack, nn.RNN):
    """torch.nn.RNN on compiled kernels."""


class _Cell(Accelerated):
    """Forward of torch.nn.LSTMCell, GRUCell and RNNCell."""

    __call__ = _call

    @eager
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        given, tensors = ((), (input,)) if hx is None else self._given(input, hx)
        known = self._engine.find(self, tensors, None)
        done = known.run(input, given) if known is not None else None
        states = self._look(input, hx, given) if done is None else done[1]
        return states if self._pair else states[0]

    def _look(self, input: Any, hx: Any, given: Sequence[Any]) -> tuple[Tensor, ...]:
        module, name = cast(Any, self), type(self).__name__
        check_call(self, input, *given)
        if self._engine.on_torch(module):
            result = super().forward(input, hx)  # type: ignore[misc]
            return tuple(result) if self._pair else (result,)
        if input.dim() not in (1, 2) or input.shape[-1] != module.input_size:
            raise RuntimeError(
                f"{name}: expected an input of ({module.input_size},) or (batch, {module.input_size}), "
                f"got {tuple(input.shape)}."
            )
        want = (*input.shape[:-1], module.hidden_size)
        if given and len(given) != 1 + self._pair:
            raise RuntimeError(f"{name}: expected states h and c of {want}, got {len(given)} of them.")
        for state in given:
            if tuple(state.shape) != want:
                raise RuntimeError(f"{name}: expected a state of {want}, got {tuple(state.shape)}.")
        x, given = settled(input), [state.resolve_neg().contiguous() for state in given]
        rows = 1 if input.dim() == 1 else x.shape[0]
        if rows == 0:
            return tuple(x.new_zeros(want) for _ in range(1 + self._pair))

        def job(stack: Stack) -> Job:
            return Job(stack, 1, rows, rows, (0, x.stride(0)), None, (0, 0), [want] * (1 + self._pair), (0, 1))

        _, states, known = self._engine.run(module, rows, 1, job, x, given)
        self._engine.remember(self._given(input, hx)[1] if given else (input,), known, None)
        return states


class AcceleratedLSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell on compiled kernels."""

    _pair = True


class AcceleratedGRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell on compiled kernels."""


class AcceleratedRNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell on compiled kernels."""


STACKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: AcceleratedLSTM,
    nn.GRU: AcceleratedGRU,
    nn.RNN: AcceleratedRNN,
}
CELLS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTMCell: AcceleratedLSTMCell,
    nn.GRUCell: AcceleratedGRUCell,
    nn.RNNCell: AcceleratedRNNCell,
}
