"""The example that a model is captured with, and the inputs of its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..runtime.program.examples import of_kind, of_length
from ..runtime.program.made import Made

STEPS = 16  # of an example of our own


def first_example(model: nn.Module, batch: int) -> Tensor:
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
        f"export_c: {type(model).__name__} does not begin with an Embedding, a Linear or a recurrent layer: "
        "give an example of its inputs, as it is called."
    )


def with_batch(example: Any, made: Made, batch: int) -> Any:
    """`example` with `batch` rows, where all its tensors have one number of rows, on the axis that is not time.

    A model that takes one step itself keeps the rows of its example: where its states have them nothing tells.
    """
    if all(axis is None for axis in made.axes):
        return example
    sizes = set()
    places: list[int | None] = []
    for tensor, axis in zip(made.inputs.tensors, made.axes):
        rows = 1 if axis == 0 else 0
        known = tensor.dim() > rows
        places.append(rows if known else None)
        sizes |= {tensor.shape[rows]} if known else set()
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


def step_inputs(made: Made, steps: int) -> list[list[np.ndarray]]:
    """Inputs of so many steps like those of the example, an array for each input of the program."""
    states = made.inputs.is_state or (False,) * len(made.inputs.tensors)
    if all(axis is None for axis in made.axes):
        frames: Callable[[int], list[Tensor]] = lambda t: of_kind(made.inputs, t)  # noqa: E731
    else:
        whole = of_length(made.inputs, made.axes, steps, 0)
        frames = lambda t: [x if a is None else x.select(a, t) for x, a in zip(whole, made.axes)]  # noqa: E731
    return [[_array(x) for x, state in zip(frames(t), states) if not state] for t in range(steps)]


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy().copy()
