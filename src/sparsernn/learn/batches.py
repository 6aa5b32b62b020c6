"""Inputs out of whatever a user has at hand: tensors, tuples, dicts, the batches of a DataLoader with their labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from ..structure import examples


def inputs_of(
    batches: Iterable[Any], model: nn.Module, choose: Callable[[Any], Any] | None, name: str
) -> Iterator[examples.Call]:
    """The call of each batch, on the model's device. Of a list (a DataLoader's batch) only as many items as `forward`
    requires are inputs, of a tuple only as many as it takes, and of a dict those that it has names for; the rest are
    labels. `choose` takes the inputs out of a batch by itself.

    Raises TypeError if `batches` is no iterable of batches.
    """
    if isinstance(batches, (str, bytes, dict, nn.Module, Tensor)) or not isinstance(batches, Iterable):
        raise TypeError(
            f"{name}: batches is {type(batches).__name__}, expected an iterable of batches: a DataLoader, or a list of "
            "inputs as the model takes them."
        )
    if choose is not None and not callable(choose):
        raise TypeError(f"{name}: inputs is {choose!r}, expected a function that takes the inputs out of a batch.")
    required, most, known = _places(model)
    devices = {p.device for p in model.parameters()}
    for batch in batches:
        if choose is not None:
            batch = choose(batch)
        elif isinstance(batch, list):
            batch = tuple(batch[: max(1, required)])
        elif type(batch) is tuple:
            batch = batch[:most]
        elif isinstance(batch, Mapping) and known is not None and (type(batch) is dict or known & set(batch)):
            batch = {key: value for key, value in batch.items() if key in known}
        call = examples.calls([batch])[0]
        yield _moved(call, next(iter(devices))) if len(devices) == 1 else call


def _moved(call: examples.Call, device: torch.device) -> examples.Call:
    def one(leaf: Any) -> Any:
        return cast(Any, leaf).to(device) if isinstance(leaf, (Tensor, PackedSequence)) else leaf

    return tree_map(one, call, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))


def _places(model: nn.Module) -> tuple[int, int | None, set[str] | None]:
    """How many positional arguments `forward` requires, how many it takes and by what names (None: any)."""
    kinds = inspect.Parameter
    try:
        found = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # a scripted model tells no signature
        return 1, None, None
    placed = [p for p in found if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    several = any(p.kind is kinds.VAR_POSITIONAL for p in found)
    names = None if any(p.kind is kinds.VAR_KEYWORD for p in found) else {p.name for p in found}
    return sum(p.default is kinds.empty for p in placed), None if several else len(placed), names


FEW = 4  # what is left of an axis that is cut; an example of that many positions or fewer squared is not


@torch.no_grad()
def shortened(model: nn.Module, call: examples.Call) -> examples.Call:
    """The first sequences or steps of `call` alone, where `model` gives the same for them alone; to be traced quickly.

    `model` is in evaluation mode. An axis is cut only if all tensors have it and the outputs, cut, are those of the
    cut inputs.
    """
    for axis in (0, 1):
        tensors = list(examples.tensors_in(call))
        sizes = {tensor.shape[axis] if tensor.dim() > axis else 0 for tensor in tensors}
        size = sizes.pop() if len(sizes) == 1 else 0
        if positions_in(call) <= FEW**2 or size <= FEW or _packed(call):
            continue

        def cut(leaf: Any, axis: int = axis) -> Any:
            return leaf.narrow(axis, 0, FEW) if isinstance(leaf, Tensor) else leaf

        short: examples.Call = tree_map(cut, call)
        try:
            whole, part = (
                list(examples.tensors_in(model(*args, **kwargs)))
                for args, kwargs in (examples.fresh(call), examples.fresh(short))
            )
        except Exception:  # it takes no fewer
            continue
        if len(whole) == len(part) > 0 and all(_begins(a, b, size) for a, b in zip(whole, part)):
            call = short
    return call


def _packed(call: examples.Call) -> bool:
    return any(isinstance(leaf, PackedSequence) for leaf in (*call[0], *call[1].values()))


def _begins(whole: Tensor, part: Tensor, size: int) -> bool:
    """Whether `part` is what `whole` begins with, along an axis of this size."""
    axes = [axis for axis, (a, b) in enumerate(zip(whole.shape, part.shape)) if (a, b) == (size, FEW)]
    if whole.dim() != part.dim() or not axes:
        return False
    first = whole.narrow(axes[0], 0, FEW)
    if not part.is_floating_point():
        return first.shape == part.shape and torch.equal(first, part)
    return first.shape == part.shape and torch.allclose(first, part, rtol=1e-3, atol=1e-4)


def positions_in(call: examples.Call) -> int:
    """Batch times steps, as near as the first tensor of the call tells."""
    for tensor in examples.tensors_in(call):
        if isinstance(tensor, Tensor) and tensor.dim():
            return int(torch.Size(tensor.shape[:2]).numel())
    return 1
