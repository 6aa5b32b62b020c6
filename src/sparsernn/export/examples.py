"""The example that a model is captured with, and the inputs of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..runtime.program.calls import NotAProgram
from ..runtime.program.examples import inputs_of, of_kind, of_length
from ..runtime.program.made import Made
from ..runtime.program.make import check_options, make_program

STEPS = 16  # of an example of our own


def made_of(
    what: str, model: nn.Module, example: Any, batch: int, time: Any = None, states: Any = None, delay: int = 0
) -> Made:
    """The program of `model` with so many rows, by its example or, for None, one of our own. what: who asks, for the
    sentences. Raises NotAProgram for a model that can't run step by step, ValueError where an example has to be given.
    """
    check_options(what, time, states, delay)
    given = first_example(what, model, batch) if example is None else example
    try:
        made = make_program(model, given, time, states, delay)
        rows = _with_batch(what, given, made, batch)
        try:
            return made if rows is given else make_program(model, rows, time, states, delay)
        except (NotAProgram, RuntimeError, ValueError, IndexError, TypeError):
            if batch > 1:
                raise
            return made  # that axis has no rows, or the model is made for so many
    except NotAProgram as reason:
        raise NotAProgram(f"{what}: {type(model).__name__} can't run step by step: {reason}") from None
    except (RuntimeError, ValueError, IndexError, TypeError) as reason:
        if example is not None or time is not None or states is not None:
            raise
        why = (str(reason).splitlines() or [type(reason).__name__])[0]
        raise ValueError(
            f"{what}: {type(model).__name__} does not take inputs of shape {tuple(given.shape)}, which one of its "
            f"layers suggests: {why}\nGive an example of its inputs, as it is called."
        ) from reason


def first_example(what: str, model: nn.Module, batch: int) -> Tensor:
    """Inputs for a model that begins with an Embedding, a Linear or a recurrent layer, by that layer's size.

    Raises ValueError for another model.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return torch.randint(module.num_embeddings, (batch, STEPS), generator=generator, device="cpu")
        size = getattr(module, "input_size", getattr(module, "in_features", None))
        if isinstance(size, int):
            shape = (batch, STEPS, size)
            if isinstance(module, nn.RNNBase) and not module.batch_first:
                shape = (STEPS, batch, size)
            return torch.randn(shape, generator=generator, device="cpu")
    raise ValueError(
        f"{what}: {type(model).__name__} does not begin with an Embedding, a Linear or a recurrent layer: "
        "give an example of its inputs, as it is called."
    )


def _with_batch(what: str, example: Any, made: Made, batch: int) -> Any:
    """`example` with `batch` rows, where all its tensors have one number of rows, on the axis that is not time.

    A model that takes one step itself keeps the rows of its example: where its states have them nothing tells. So does
    one of sequences without a batch.
    """
    if all(axis is None for axis in made.axes):
        return example
    sizes = set()
    places: list[int | None] = []
    for tensor, rows in zip(made.inputs.tensors, _rows(made)):
        places.append(rows)
        sizes |= set() if rows is None else {tensor.shape[rows]}
    if 0 in sizes:
        raise ValueError(f"{what}: the example has no rows: give one of at least one sequence.")
    if len(sizes) != 1 or sizes == {batch}:
        return example
    left = iter(places)

    def rows_of(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        axis = next(left)
        if axis is None:
            return leaf
        return leaf.index_select(axis, torch.arange(batch, device=leaf.device) % leaf.shape[axis])

    return tree_map(rows_of, example)


def _rows(made: Made) -> list[int | None]:
    """For each input of a model of sequences the axis of the rows of its batch; None for one that has none.

    Beside a time axis that is the first, floats are features unless an input with a third axis tells of rows.
    """
    first = [x for x, axis in zip(made.inputs.tensors, made.axes) if axis == 0]
    features = any(x.is_floating_point() for x in first) and all(x.dim() < 3 for x in first)
    found: list[int | None] = []
    for x, axis in zip(made.inputs.tensors, made.axes):
        row = int(axis == 0)
        found.append(None if x.dim() <= row or (row and features) else row)
    return found


def step_inputs(made: Made, steps: int) -> list[list[np.ndarray]]:
    """Inputs of so many steps like those of the example, an array for each input of the program."""
    states = made.inputs.is_state or (False,) * len(made.inputs.tensors)
    if all(axis is None for axis in made.axes):
        frames: Callable[[int], list[Tensor]] = lambda t: of_kind(made.inputs, t)  # noqa: E731
    else:
        whole = of_length(made.inputs, made.axes, steps, 0)
        frames = lambda t: [x if a is None else x.select(a, t) for x, a in zip(whole, made.axes)]  # noqa: E731
    return [[_array(x) for x, state in zip(frames(t), states) if not state] for t in range(steps)]


def runs_of(model: nn.Module, made: Made, batches: Any, batch: int) -> Iterator[list[list[np.ndarray]]]:
    """Each sequence of the batches as steps, `batch` of them side by side; of a model that takes one step itself all
    batches are one sequence.

    batches: inputs as the model takes them, each of any number of rows and length; of a list (a DataLoader's batch)
    only as many items as the example has arguments. Raises TypeError and ValueError, which number the batch.
    """
    if isinstance(batches, (str, bytes, dict, nn.Module, Tensor)) or not isinstance(batches, Iterable):
        raise TypeError(
            f"export_c: calibrate is {type(batches).__name__}, expected an iterable of batches: a DataLoader, or a "
            "list of inputs as the model takes them."
        )
    given = (_batch(model, made, one, n) for n, one in enumerate(batches, 1))
    whole = [axis for axis, own in zip(made.axes, made.inputs.states) if not own]
    if all(axis is None for axis in whole):
        yield [[_array(x) for x in tensors] for tensors in given]
        return
    rows = [row for row, own in zip(_rows(made), made.inputs.states) if not own]
    for tensors in given:
        count = max((x.shape[row] for x, row in zip(tensors, rows) if row is not None), default=1)
        for begin in range(0, count, batch):
            numbers = torch.arange(begin, begin + batch)
            own = [x if row is None else x.index_select(row, numbers % x.shape[row]) for x, row in zip(tensors, rows)]
            steps = min(x.shape[axis] for x, axis in zip(own, whole) if axis is not None)
            yield [
                [_array(x if axis is None else x.select(axis, t)) for x, axis in zip(own, whole)] for t in range(steps)
            ]


def _batch(model: nn.Module, made: Made, batch: Any, number: int) -> list[Tensor]:
    """Its tensors but those of states, on the CPU; what does not fit to the example is refused."""
    if isinstance(batch, list):
        batch = tuple(batch[: len(made.inputs.arguments(made.inputs.tensors)[0])])
    what = f"export_c: batch {number} of calibrate="
    try:
        given = inputs_of(model, batch)
    except (TypeError, IndexError):
        raise TypeError(f"{what} is {type(batch).__name__}, expected inputs as the model takes them.") from None
    if given.names != made.inputs.names:
        raise ValueError(f"{what} has the inputs {', '.join(given.names)}, expected {', '.join(made.inputs.names)}.")
    found = []
    sequences = any(axis is not None for axis in made.axes)
    ports = zip(given.names, given.tensors, made.inputs.tensors, made.axes, _rows(made), made.inputs.states)
    for name, x, like, axis, row, own in ports:
        free = {row, axis} if sequences else set()
        sizes = ((k, a, b) for k, (a, b) in enumerate(zip(x.shape, like.shape)) if k not in free)
        if x.dim() != like.dim() or any(a != b for _, a, b in sizes):
            raise ValueError(f"{what} has {name} of shape {tuple(x.shape)}, expected one like {tuple(like.shape)}.")
        if x.is_floating_point() != like.is_floating_point():
            expected = "floats" if like.is_floating_point() else "whole numbers"
            raise TypeError(f"{what} has {name} of {x.dtype}, expected {expected}.")
        if not own:
            found.append(x.cpu())
    return found


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy().copy()
