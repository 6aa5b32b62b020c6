"""The arguments of a call, taken apart into tensors with names and put together again from others."""

from __future__ import annotations

import copy
import gc
import inspect
import re
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...nn.state import RaggedState

Call = tuple[tuple[Any, ...], dict[str, Any]]
_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, nn.Module, type)
_PLAIN += (np.generic, types.ModuleType)


@dataclass
class Nest:
    """A value and, where it is a container, its parts by name and what makes it again from such parts."""

    name: str
    value: Any
    parts: list[Nest] | None = None
    build: Callable[[list[Any]], Any] = lambda parts: parts

    def leaves(self) -> Iterator[Nest]:
        """What is no container, in order."""
        if self.parts is None:
            yield self
        else:
            for part in self.parts:
                yield from part.leaves()

    def tensors(self) -> list[Nest]:
        return [leaf for leaf in self.leaves() if isinstance(leaf.value, Tensor)]

    def filled(self, values: Iterator[Any]) -> Any:
        """The value with its tensors exchanged for `values`; containers are new ones, other leaves copies."""
        if self.parts is not None:
            return self.build([part.filled(values) for part in self.parts])
        return next(values) if isinstance(self.value, Tensor) else _copy(self.value)


def nest(name: str, value: Any, inside: tuple[int, ...] = ()) -> Nest:
    """Take `value` apart: everything that torch's pytree knows, states of unequal widths, dataclasses and other objects
    with attributes, and subclasses of dict, list and tuple."""
    found = None if isinstance(value, Tensor) or id(value) in inside else _apart(value)
    if found is None:
        return Nest(name, value)
    names, children, build = found
    inside = (*inside, id(value))
    parts = [nest(f"{name}_{own}" if own else name, child, inside) for own, child in zip(names, children)]
    return Nest(name, value, parts, build)


def call_nest(model: nn.Module, call: Call) -> Nest:
    """The arguments of a call, as a nest that makes (args, kwargs), named after the parameters of `forward`.

    Every tensor has a name of its own. Raises ValueError for an argument that hides tensors where nothing can be put
    in their place.
    """
    args, kwargs = call
    own = list(inspect.signature(model.forward).parameters.values())
    order = {p.name: n for n, p in enumerate(own)}
    names = [p.name for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(args)]
    rest = next((p.name for p in own if p.kind == p.VAR_POSITIONAL), "input")
    more = len(args) - len(names)
    names += [rest] if more == 1 else [f"{rest}_{n}" for n in range(more)]
    keys = sorted(kwargs, key=lambda key: order.get(key, len(order)))
    parts = [nest(name, value) for name, value in zip([*names, *keys], [*args, *(kwargs[key] for key in keys)])]
    taken: set[str] = set()
    for part in parts:
        tensors = part.tensors()
        for leaf in tensors:
            name = part.name if len(tensors) == 1 else re.sub(r"\W", "_", leaf.name)
            while name in taken:
                name += "_"
            taken.add(name)
            leaf.name = name
        for leaf in part.leaves():
            _refuse_hidden(leaf)
    return Nest(
        "", call, parts, lambda values: (tuple(values[: len(args)]), dict(zip(keys, values[len(args) :], strict=True)))
    )


def _apart(value: Any) -> tuple[Sequence[str], Sequence[Any], Callable[[list[Any]], Any]] | None:
    """Names and values of the parts of a container, and what makes it again of other parts; None for a leaf."""
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, RaggedState):
        return [str(n) for n in range(len(value))], value.rows, RaggedState
    children, spec = tree_flatten(value, is_leaf=lambda inner: inner is not value)
    if not (len(children) == 1 and children[0] is value):
        return _names(value, len(children)), children, lambda parts: tree_unflatten(parts, spec)
    if isinstance(value, (*_PLAIN, np.ndarray, types.FunctionType, types.MethodType)) or not hides_tensor(value):
        return None
    keys: list[Any] = []
    if isinstance(value, (dict, list, tuple)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    slots = [name for base in type(value).__mro__ for name in _slots(base) if hasattr(value, name)]
    attributes = [*getattr(value, "__dict__", {}), *slots]
    if not keys and not attributes:
        return None

    def again(parts: list[Any]) -> Any:
        items, own = parts[: len(keys)], parts[len(keys) :]
        # Not copy.copy, which containers may define to share what they hold.
        kind: Any = type(value)
        new = tuple.__new__(kind, items) if isinstance(value, tuple) else kind.__new__(kind)
        if isinstance(value, dict):
            put = OrderedDict.__setitem__ if isinstance(value, OrderedDict) else dict.__setitem__
            for key, item in zip(keys, items):
                put(new, key, item)
        elif isinstance(value, list):
            list.extend(new, items)
        for name, part in zip(attributes, own):
            object.__setattr__(new, name, part)
        return new

    # A mapping keeps its items in an attribute, whose name says nothing.
    hidden = isinstance(value, Mapping) and not isinstance(value, dict)
    names = [str(key) for key in keys]
    names += ["" if hidden and isinstance(getattr(value, a), Mapping) else a.strip("_") for a in attributes]
    return names, [*(value[key] for key in keys), *(getattr(value, name) for name in attributes)], again


def _names(value: Any, count: int) -> list[str]:
    names = list(value) if isinstance(value, Mapping) else getattr(value, "_fields", ())
    return [str(name) for name in names] if len(names) == count else [str(n) for n in range(count)]


def _slots(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # a file, a lock: the model gets it as it is
        return value


def _refuse_hidden(leaf: Nest) -> None:
    if isinstance(leaf.value, PackedSequence):
        raise ValueError(
            f"export_onnx: {leaf.name} holds a PackedSequence; ONNX inputs are tensors.\n"
            "Export a module that takes the padded tensor and the lengths, and packs them itself."
        )
    once = isinstance(leaf.value, Iterator) and not hasattr(leaf.value, "read")
    if not isinstance(leaf.value, Tensor) and (once or hides_tensor(leaf.value)):
        raise ValueError(
            f"export_onnx: {leaf.name} is a {type(leaf.value).__name__}, and what it holds would become a constant of "
            "the file.\nPass tensors: alone, in lists, tuples and dicts, or as attributes of an object."
        )


def hides_tensor(value: Any) -> bool:
    """Whether a tensor or an array can be reached from an object, whatever it is made of."""
    stack, seen = [value], set()
    while stack and len(seen) < 10_000:
        one = stack.pop()
        if isinstance(one, (Tensor, np.ndarray)):
            return True
        if id(one) in seen or isinstance(one, _PLAIN):
            continue
        seen.add(id(one))
        if isinstance(one, types.FunctionType):  # its globals are everybody's
            stack += [cell.cell_contents for cell in one.__closure__ or () if _full(cell)]
            stack += one.__defaults__ or ()
        else:
            stack += gc.get_referents(one)
    return False


def _full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
