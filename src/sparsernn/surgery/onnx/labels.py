"""Names of the axes that change, after what they are to the first recurrent layer; and a word on those that can't."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...structure.cells import cell_of
from .call import Flat
from .sizes import Together, resized
from .stack import is_stack
from .translate import first_line

Seen = tuple[int | None, int | None]  # batch and time of the first recurrent layer, None where it has none


def labelled(flat: Flat, sets: Sequence[Together]) -> dict[str, Together]:
    """ "batch" and "time" for the sets of axes that change those of the first recurrent layer; "size_n" for others."""
    before = _first_layer(flat, flat.examples)
    found: dict[str, Together] = {}
    for n, one in enumerate(sets):
        after = _first_layer(flat, resized(flat.examples, [(one.axes, one.size + one.step)]))
        moved = [name for name, a, b in zip(("batch", "time"), before, after) if a != b]
        label = moved[0] if moved else f"size_{n}"
        found[f"{label}_{n}" if label in found else label] = one
    for name, size in zip(("batch", "time"), before):
        if name not in found and size is not None:
            _warn_of_fixed(flat, name, size, sets)
    return found


def _warn_of_fixed(flat: Flat, label: str, size: int, sets: Sequence[Together]) -> None:
    """Say which axis of the first input stays at the size of the example, if there is one of that size."""
    first = flat.examples[0] if flat.examples else None
    taken = {axis for one in sets for axis in one.axes}
    features = 1 if first is not None and first.is_floating_point() else 0
    axes = [] if first is None else [(0, axis) for axis in range(first.dim() - features) if first.shape[axis] == size]
    for axis in (axis for axis in axes if axis not in taken):
        result = flat.attempt(resized(flat.examples, [((axis,), size + 1)]))
        why = (
            f"with {size + 1} torch fails itself: {type(result).__name__}: {first_line(result)[:200]}"
            if isinstance(result, Exception)
            else "the outputs don't change with it, or other inputs would have to change as well"
        )
        warnings.warn(
            f"export_onnx: {label} (axis {axis[1]} of {flat.names[0]}) is fixed at {size} in the file.\n{why}.",
            stacklevel=4,
        )
        return


def _first_layer(flat: Flat, values: Sequence[Tensor]) -> Seen:
    twin = flat.fresh()
    first = next((m for m in twin.model.modules() if cell_of(m) or is_stack(m)), None)
    seen: list[Seen] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if isinstance(x, PackedSequence):
            seen.append((int(x.batch_sizes[0]), len(x.batch_sizes)))
        elif isinstance(x, Tensor) and x.dim() == 3:
            seen.append((x.shape[0], x.shape[1]) if getattr(module, "batch_first", False) else (x.shape[1], x.shape[0]))
        elif isinstance(x, Tensor):  # a cell, or a sequence without a batch
            sequence = hasattr(module, "batch_first")
            seen.append((None, x.shape[0]) if sequence else (x.shape[0] if x.dim() > 1 else None, None))

    if isinstance(first, nn.Module):
        first.register_forward_pre_hook(look, with_kwargs=True)
    twin(*(value.clone() for value in values))
    return seen[0] if seen else (None, None)
