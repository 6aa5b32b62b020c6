"""From a model and an example to its step program, checked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._modules import copied, set_eval, set_precision
from .calls import NotAProgram
from .capture import capture, kept_tensors
from .check import check_sequence, check_steps
from .examples import Inputs, axes_of, inputs_of
from .made import Made
from .sequences import MULTIPLE, sequence_program
from .simplify import reach
from .steps import States, is_step, step_program

_ALONE = threading.RLock()  # the default dtype and the place of torch's tracers are of the whole process
_STEPS = 40  # of the check, beyond what the program reaches back to twice
_MORE = 480  # or, where that is far, once and so many steps more


def make_program(
    model: nn.Module,
    example: Any,
    time: int | Mapping[str, int | None] | None = None,
    states: States | None = None,
    delay: int = 0,
) -> Made:
    """The step program of `model`, found by runs of copies in float64 and eval mode and checked against the whole call.

    example: a tensor, a tuple of arguments or a dict of keywords, as the model is called, of any length in time, of the
    batch that the program is for. time: the time axis of the inputs, for all or by name (None: the same at each step);
    by default whichever of 1 and 0 fits. states: for a model that takes one step itself, the name of the input that
    holds a state and the place of its next value among the outputs; states in buffers and attributes, and dicts that
    are given back with the same keys, are found. With `time`, for a model of a sequence: the inputs from which its
    states begin. delay: so many steps of look-ahead are allowed.
    Raises NotAProgram with the reason where the model can't run step by step.
    """
    with _ALONE:
        return _make(model, example, time, states, delay)


def _make(model: nn.Module, example: Any, time: Any, states: Any, delay: int) -> Made:
    twin = copied(model)
    set_eval(twin)
    exact = _in_double(twin)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)  # for tensors that the model makes without saying of what
        return _made(exact, _cast(inputs_of(exact, example), torch.float64), time, states, delay)
    except _DTYPE as error:
        cause = error.__cause__ if isinstance(error, NotAProgram) else error
        if cause is None or "type" not in str(cause):
            raise
    finally:
        torch.set_default_dtype(before)
    return _made(twin, inputs_of(twin, example), time, states, delay)  # the model makes float32 tensors itself


def check_options(what: str, time: Any, states: Any, delay: Any) -> None:
    """ValueError or TypeError where an option of `make_program` is none. what: who asks, for the sentence."""
    if not isinstance(delay, int) or isinstance(delay, bool) or delay < 0:
        raise ValueError(f"{what}: delay is {delay!r}, expected a whole number of steps from 0 on.")
    axes = time.values() if isinstance(time, Mapping) else (time,)
    if not all(axis is None or (isinstance(axis, int) and not isinstance(axis, bool)) for axis in axes):
        raise TypeError(f"{what}: time is {time!r}, expected an axis, or a dict: an input's name -> its axis or None.")
    if states is not None and not isinstance(states, Mapping):
        raise TypeError(
            f"{what}: states is {states!r}, expected a dict: the name of an input that holds a state -> the place of "
            "its next value among the outputs."
        )


_ONE_STEP = "if the example is one step, name its states, or pass states={} where it keeps none."
_DTYPE = (RuntimeError, TypeError)


def _made(model: nn.Module, inputs: Inputs, time: Any, states: States | None, delay: int) -> Made:
    if states is not None and time is not None:
        inputs = inputs.keeping(states)
    elif states is not None or (time is None and _remembers(model, inputs)):
        made = step_program(model, inputs, states or {})
        check_steps(model, made, 20)
        return made
    failure: Exception | None = None
    found: Made | None = None
    for default in (1, 0) if time is None else (1,):
        axes = [None if own else axis for own, axis in zip(inputs.states, axes_of(inputs, time, default))]
        if not any(axis is not None for axis in axes):
            continue
        try:
            made = sequence_program(model, inputs, axes, delay)
            back = reach(made.program.operations)
            steps = _STEPS + back + min(back, _MORE)
            check_sequence(model, made, -(-steps // MULTIPLE) * MULTIPLE)
            # Rows of a batch know nothing of each other: along them any model "streams", without a state.
            if made.program.states or time is not None:
                return made
            if default == 0 and failure is not None and max(t.dim() for t in inputs.tensors) <= 2:
                failure = NotAProgram(f"{str(failure).rstrip('.')}; {_ONE_STEP}")
            found = found or (made if default == 1 else None)
        except (NotAProgram, RuntimeError, ValueError, IndexError, TypeError) as error:
            # What the likelier axis meets is what is told, if the model could be run at all.
            if failure is None or (isinstance(error, NotAProgram) and not isinstance(failure, NotAProgram)):
                failure = error
    if found is not None:
        return found
    raise failure or NotAProgram("no input has a time axis: say which with time=.")


def _remembers(model: nn.Module, inputs: Inputs) -> bool:
    """Whether it keeps a state in buffers or attributes, also one that its first call makes."""
    own = copied(model)
    before = {path: (value, value._version) for path, value in kept_tensors(own).items()}
    args, kwargs = inputs.arguments([t.clone() for t in inputs.tensors])
    with torch.no_grad():
        own(*args, **kwargs)
    after = {path: (value, value._version) for path, value in kept_tensors(own).items()}
    if all(path in before and before[path][0] is v and before[path][1] == n for path, (v, n) in after.items()):
        return False
    again = copied(own if after.keys() - before.keys() else model)
    return is_step(capture(again, [t.clone() for t in inputs.tensors], inputs.arguments))


def _in_double(model: nn.Module) -> nn.Module:
    twin = copied(model)
    set_precision(twin, torch.float64)
    return twin


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    tensors = tuple(t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t for t in inputs.tensors)
    return replace(inputs, tensors=tensors)
