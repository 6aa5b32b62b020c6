"""A model's whole call beside its steps, for the tests that compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsernn.runtime.program.made import Made

Outputs = Sequence[Tensor | None]


def inputs_of(made: Made, steps: int, seed: int = 3) -> list[Tensor]:
    """Inputs of `steps` steps like those of the example, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def one(x: Tensor, axis: int | None) -> Tensor:
        if axis is None:
            return x.double() if x.is_floating_point() else x
        shape = [steps if n == axis else size for n, size in enumerate(x.shape)]
        if x.dtype == torch.bool:
            return torch.rand(shape, generator=generator) > 0.5
        if not x.is_floating_point():
            return torch.randint(int(x.max()) + 1, shape, generator=generator)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [one(x, axis) for x, axis in zip(made.inputs.tensors, made.axes)]


def whole_call(model: nn.Module, made: Made, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The outputs of the program's ports over the whole sequence, in `dtype`."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        args, kwargs = made.inputs.arguments([x.to(dtype) if x.is_floating_point() else x for x in inputs])
        with torch.no_grad():
            leaves = tree_leaves(model.to(dtype)(*args, **kwargs))
    finally:
        torch.set_default_dtype(before)
    return [leaf for leaf, port in zip(leaves, made.leaves) if isinstance(port, int)]


def stepped(made: Made, step: Callable[..., Outputs], inputs: Sequence[Tensor], single: bool = False) -> list[Any]:
    """What came of each output, and at which step."""
    steps = next(x.shape[a] for x, a in zip(inputs, made.axes) if a is not None)
    found: list[list[tuple[int, Tensor]]] = [[] for _ in made.program.outputs]
    kinds = [x.float() if single and x.is_floating_point() else x for x in inputs]
    given = zip(kinds, made.axes, made.inputs.states)
    frames = [[x] * steps if a is None else x.unbind(a) for x, a, own in given if not own]
    for t, given in enumerate(zip(*frames)):
        for place, y in enumerate(step(*given)):
            if y is not None:
                found[place].append((t, y.clone()))
    return found


def furthest(made: Made, found: Sequence[Any], whole: Sequence[Tensor]) -> list[float]:
    """For each output the largest difference of its steps from the whole call, where that has them."""
    worst = []
    for port, axis, got, want in zip(made.program.outputs, made.output_axes, found, whole):
        assert [t for t, _ in got] == [t for t in range(got[-1][0] + 1) if port.clock.due(t)], port.name
        if axis is None:
            worst.append(apart(got[-1][1], want))
            continue
        y = got[0][1]
        if y.dim() == want.dim():  # rows and steps folded into one axis
            rows = y.shape[axis]
            want = want.unflatten(axis, (rows, want.shape[axis] // rows)).movedim(axis + 1, 0)
        else:
            want = want.movedim(axis, 0)
        count = min(len(got), len(want))
        assert count >= len(want) - 1, f"{port.name}: {count} of {len(want)} elements"
        worst.append(apart(torch.stack([y for _, y in got[:count]]), want[:count]))
    return worst


def apart(got: Tensor, want: Tensor) -> float:
    """The largest difference, in the size of what is wanted where that is above 1."""
    assert got.shape == want.shape, (got.shape, want.shape)
    if not want.is_floating_point():
        return float((got != want).sum())
    both = (got == want) | (got.isnan() & want.isnan())
    scale = max(1.0, float(want[want.isfinite()].abs().max()))
    return float(torch.where(both, 0.0, (got.double() - want.double()).abs() / scale).nan_to_num(torch.inf).max())


def equal(model: nn.Module, made: Made, run: Any, steps: int, seed: int = 3) -> None:
    """`run`, twice with a reset, gives the whole call: of contract 4, as near as 1e-5 or four times torch's float32."""
    inputs = inputs_of(made, steps, seed)
    single, whole = (whole_call(model, made, inputs, dtype) for dtype in (torch.float32, torch.float64))
    nearest = [max(1e-5, 4 * apart(a, b)) for a, b in zip(single, whole)]
    for _ in range(2):
        run.reset()
        worst = furthest(made, stepped(made, run.step, inputs, single=True), whole)
        assert all(a <= b for a, b in zip(worst, nearest)), (worst, nearest)
