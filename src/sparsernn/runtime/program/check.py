"""Every program is run beside the whole call before it is handed out: a capture can't see coincidences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..._modules import copied
from .calls import NotAProgram
from .examples import Inputs, of_kind, of_length
from .interpreter import Interpreter
from .lengths import numbers
from .made import Made

NEAR = 1e-9  # of the largest output, in float64
BEYOND = 24  # steps behind those that are compared
FAR = 240  # steps of the second run: what a model does each hundred steps in Python shows in no capture
FURTHEST = 4096  # steps of that run at most, where numbers in the model's code ask for more


def check_sequence(model: nn.Module, made: Made, steps: int) -> None:
    """Raises NotAProgram where the steps' outputs are not those of the whole call over `steps` steps and over FAR, and
    over the prefixes that values so far are compared with."""
    inputs, axes = made.inputs, made.axes
    run = Interpreter(made.program)
    dtype = next((t.dtype for t in inputs.tensors if t.is_floating_point()), torch.float64)
    near = NEAR if dtype == torch.float64 else 1e-4
    sizes: list[tuple[int, list[int]]] = []
    for seed, count in ((1, steps), (2, _far(model))):
        leaves = of_length(inputs, axes, count + BEYOND, seed)
        run.reset()
        given: list[list[Tensor | None]] = []
        for t in range(count):
            frames = [x if a is None else x.select(a, t) for x, a, own in zip(leaves, axes, inputs.states) if not own]
            given.append(list(run.step(*frames)))
        sizes.append((count, _compare(model, made, inputs, axes, leaves, given, near)))
    ports = [made.program.outputs[leaf] for leaf in made.leaves if isinstance(leaf, int)]
    more = sizes[1][0] - sizes[0][0]  # steps, of which the whole call has so many more elements
    for port, one, two in zip(ports, sizes[0][1], sizes[1][1]):
        if one >= 0 and abs(more - (two - one) * port.clock.every) > 2 * port.clock.every:
            raise NotAProgram(
                f"{port.name} of the whole call over {sizes[1][0] + BEYOND} steps has {two} elements: it ends at a "
                "fixed number of steps, and a stream has no end. Leave that out of forward."
            )


def _far(model: nn.Module) -> int:
    """Beyond all numbers in the model's code that a length may be compared with, up to FURTHEST."""
    found = [number for number in numbers(model, FAR) if number + BEYOND <= FURTHEST]
    return found[-1] + BEYOND if found else FAR


def check_steps(model: nn.Module, made: Made, steps: int) -> None:
    """The same for a model that takes one step itself, called over and over."""
    run = Interpreter(made.program)
    inputs = made.inputs
    near = NEAR if any(t.dtype == torch.float64 for t in inputs.tensors) else 1e-4
    for seed in (1, 2):
        own = copied(model)
        run.reset()
        kept: list[Tensor] = [t.clone() for t in inputs.tensors]
        for t in range(steps):
            frames = of_kind(inputs, seed * steps + t)
            leaves = [k if state else f for k, f, state in zip(kept, frames, inputs.is_state)]
            args, kwargs = inputs.arguments([x.clone() for x in leaves])
            with torch.no_grad():
                want = tree_flatten(own(*args, **kwargs))[0]
            got = run.step(*(f for f, state in zip(frames, inputs.is_state) if not state))
            for place, leaf in enumerate(made.leaves):
                if isinstance(leaf, int):
                    y = got[leaf]
                    assert y is not None
                    _same(made.program.outputs[leaf].name, y, want[place], near, t, one=True)
            for n, place in made.becomes.items():
                kept[n] = want[place]


def _compare(
    model: nn.Module,
    made: Made,
    inputs: Inputs,
    axes: Sequence[int | None],
    leaves: Sequence[Tensor],
    given: Sequence[Sequence[Tensor | None]],
    near: float,
) -> list[int]:
    """How many elements each output of the whole call has; -1 for values so far."""
    steps, lengths = len(given), []
    # Over more steps, so that no element that a step gives reads padding behind the last one.
    whole = _outputs(model, inputs, leaves)
    prefixes = sorted({steps // 2, steps // 2 + 1, steps - 1, steps})
    so_far: dict[int, list[Any]] = {}
    for place, leaf in enumerate(made.leaves):
        if not isinstance(leaf, int):
            continue
        port, axis = made.program.outputs[leaf], made.output_axes[leaf]
        lengths.append(-1)
        if axis is not None:
            pairs = []
            for t in range(steps):
                y = given[t][leaf]
                if y is None:
                    continue
                lengths[-1] = whole[place].shape[axis] // _size(whole[place], axis, y)
                i = (t - port.clock.first) // port.clock.every
                if i * _size(whole[place], axis, y) >= whole[place].shape[axis]:
                    break
                pairs.append((t, y, _element(whole[place], axis, i, y)))
            _all_same(port.name, pairs, near)
            continue
        for t in prefixes:
            y = given[t - 1][leaf]
            latest = _last_due(port.clock, t - 1)
            if y is None and latest is not None:
                y = given[latest][leaf]
            if y is not None:
                if t not in so_far:
                    part = [x if a is None else x.narrow(a, 0, t) for x, a in zip(leaves, axes)]
                    try:
                        so_far[t] = _outputs(model, inputs, part)
                    except RuntimeError:  # some models take some lengths alone
                        continue
                _same(port.name, y, so_far[t][place], near, t - 1)
    return lengths


def _last_due(clock: Any, step: int) -> int | None:
    return next((t for t in range(step, -1, -1) if clock.due(t)), None)


def _size(whole: Tensor, axis: int, y: Tensor) -> int:
    return 1 if y.dim() < whole.dim() else y.shape[axis]


def _element(whole: Tensor, axis: int, i: int, y: Tensor) -> Tensor:
    """Element i of a sequence; where another axis is folded into time, all of the step."""
    if y.dim() < whole.dim():
        return whole.select(axis, i)
    size = y.shape[axis]
    # The other axis is outermost or innermost: torch's reshapes of (rows, steps) and (steps, rows).
    steps = whole.shape[axis] // size
    return whole.unflatten(axis, (size, steps)).select(axis + 1, i)


def _outputs(model: nn.Module, inputs: Inputs, leaves: Sequence[Tensor]) -> list[Any]:
    args, kwargs = inputs.arguments([x.clone() for x in leaves])
    with torch.no_grad():
        return tree_flatten(copied(model)(*args, **kwargs))[0]


def _all_same(name: str, pairs: Sequence[tuple[int, Tensor, Tensor]], near: float) -> None:
    """`_same` of each step, all at once where nothing is wrong."""
    if len({y.shape for _, *both in pairs for y in both}) == 1:
        got, want = (torch.stack(list(rows)).unsqueeze(-1).flatten(1) for rows in list(zip(*pairs))[1:])
        if not _differs(got, want, near):
            return
    for step, got, want in pairs:
        _same(name, got, want, near, step)


def _differs(got: Tensor, want: Tensor, near: float) -> bool:
    """Whether any number differs by more than `near` of its row's largest, or of 1; of tensors (rows, numbers)."""
    if not got.numel() or not got.is_floating_point():
        return bool((got != want).any())
    scale = want.nan_to_num(0.0, 0.0, 0.0).abs().amax(1, keepdim=True).clamp(min=1.0)
    close = ((got - want).abs() <= near * scale).logical_or(got == want)
    return not bool(close.all()) and not bool(close.logical_or(got.isnan() & want.isnan()).all())


def _same(name: str, got: Tensor, want: Tensor, near: float, step: int, one: bool = False) -> None:
    if got.shape != want.shape:
        raise NotAProgram(f"{name} has shape {tuple(got.shape)} in a step and {tuple(want.shape)} in the whole call.")
    wrong = _differs(got.reshape(1, -1), want.reshape(1, -1), near)
    if wrong and one:
        raise NotAProgram(
            f"step {step} gives another {name} than the model, called step by step: it does something that its "
            "operations do not show (random numbers, a list or a number in Python that it keeps)."
        )
    if wrong:
        raise NotAProgram(
            f"step {step} gives another {name} than the whole call: the model does something that its operations "
            "do not show (random numbers, a length in Python, a tensor changed through an earlier view), or reads the "
            "end of the sequence: count steps by arange."
        )
