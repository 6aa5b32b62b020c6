"""The inputs of a model as a list of tensors with names, and more of the same kind at any length."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten_with_path, tree_unflatten

from .capture import Arguments


@dataclass(frozen=True)
class Inputs:
    """`names`, `tensors`: of every tensor among the arguments, "x" or "memory.0". fixed: all leaves of the arguments,
    None where a tensor stands; structure: how they belong together."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    fixed: tuple[Any, ...]
    structure: TreeSpec
    is_state: tuple[bool, ...] = ()  # which tensors a stream keeps itself

    @property
    def states(self) -> tuple[bool, ...]:
        """`is_state` of each tensor."""
        return self.is_state or (False,) * len(self.names)

    def keeping(self, states: Iterable[str]) -> Inputs:
        """With the arguments of these names as states."""
        own = [n in states or n.split(".")[0] in states for n in self.names]
        if missing := set(states) - {n for name in self.names for n in (name, name.split(".")[0])}:
            unknown = ", ".join(sorted(missing))
            raise ValueError(f"stream: states names {unknown}, the model's inputs are {', '.join(self.names)}.")
        return replace(self, is_state=tuple(own))

    def arguments(self, tensors: Sequence[Any]) -> Arguments:
        """(args, kwargs) with these tensors."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.fixed]
        return tree_unflatten(leaves, self.structure)


def inputs_of(model: nn.Module, example: Any) -> Inputs:
    """example: a tensor, a tuple of arguments or a dict of keywords."""
    args: tuple[Any, ...] = example if type(example) is tuple else () if type(example) is dict else (example,)
    kwargs: dict[str, Any] = example if type(example) is dict else {}
    flat, structure = tree_flatten_with_path((args, kwargs))
    names = _argument_names(model, len(args))
    found: dict[str, Tensor] = {}
    for path, leaf in flat:
        if isinstance(leaf, Tensor):
            where, key, *rest = map(_key, path)
            name = names[int(key)] if where == 0 else str(key)  # type: ignore[arg-type]
            found[".".join([name, *map(str, rest)])] = leaf.detach()
    if not found:
        raise TypeError("stream: example holds no tensor: give the model's inputs, as it is called.")
    return Inputs(tuple(found), tuple(found.values()), tuple(leaf for _, leaf in flat), structure)


def _key(step: Any) -> Any:
    """Of a place in a tuple, a dict or a named tuple."""
    return next(getattr(step, name) for name in ("idx", "key", "name") if hasattr(step, name))


def _argument_names(model: nn.Module, count: int) -> list[str]:
    try:
        names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind <= p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        names = []
    return [names[n] if n < len(names) else f"input{n}" for n in range(count)]


def axes_of(inputs: Inputs, time: int | Mapping[str, int | None] | None, default: int) -> list[int | None]:
    """The time axis of each input: as `time` says by name, of the whole argument or of one tensor in it."""
    axes: list[int | None] = []
    known, steps = set(), None
    for name, tensor in zip(inputs.names, inputs.tensors):
        keys = [name, name.split(".")[0]]
        said = next((k for k in keys if isinstance(time, Mapping) and k in time), None)
        known |= {said}
        axis: int | None = default
        if isinstance(time, Mapping) and said is not None:
            axis = time[said]
        elif isinstance(time, int):
            axis = time
        elif steps is None and tensor.dim() > default:
            steps = tensor.shape[default]  # all sequences are as long as the first
        elif tensor.dim() > default and tensor.shape[default] != steps:
            axis = None
        if axis is not None and not -tensor.dim() <= axis < tensor.dim():
            if said is not None or isinstance(time, int):
                raise ValueError(f"stream: time of {name} is axis {axis}, but it has shape {tuple(tensor.shape)}.")
            axis = None
        axes.append(None if axis is None else axis % tensor.dim())
    if isinstance(time, Mapping) and set(time) - known:
        raise ValueError(
            f"stream: time names {', '.join(map(str, sorted(set(time) - known)))}, "
            f"the model's inputs are {', '.join(inputs.names)}."
        )
    return axes


def of_length(inputs: Inputs, axes: Sequence[int | None], steps: int, seed: int) -> list[Tensor]:
    """Inputs of `steps` time steps: frames of the example in random order, numbers with some noise; numbers from 0 to 1
    where it has zeros or ones alone."""
    generator = torch.Generator("cpu").manual_seed(seed)
    found = []
    for tensor, axis in zip(inputs.tensors, axes):
        if axis is None:
            found.append(tensor.clone())
            continue
        order = torch.randint(tensor.shape[axis], (steps,), generator=generator, device="cpu")
        frames = tensor.index_select(axis, order)
        if frames.is_floating_point() and (bool((tensor == 0).all()) or bool((tensor == 1).all())):
            # It shows nothing: numbers as well as marks of which some are 0, some 1.
            frames = (2 * torch.rand(frames.shape, generator=generator, device="cpu") - 0.5).clamp(0, 1).to(frames)
        elif frames.is_floating_point() and not bool(((frames == 0) | (frames == 1)).all()):
            noise = torch.randn(frames.shape, generator=generator, dtype=torch.float64, device="cpu").to(frames.dtype)
            frames = frames + 0.5 * frames.std(correction=0).clamp(min=1e-3) * noise
        found.append(frames)
    return found


def of_kind(inputs: Inputs, seed: int) -> list[Tensor]:
    """Inputs of one step like those of the example, in random order with some noise."""
    generator = torch.Generator("cpu").manual_seed(seed)
    found = []
    for tensor in inputs.tensors:
        order = torch.randperm(tensor.numel(), generator=generator, device="cpu")
        other = tensor.reshape(-1)[order].view(tensor.shape)
        if other.is_floating_point():
            noise = torch.randn(other.shape, generator=generator, dtype=torch.float64, device="cpu").to(other.dtype)
            other = other + 0.5 * noise
        found.append(other)
    return found
