"""Weights that a model holds once: as the kernels read them. Their parameters have no memory of their own.

Whoever reads such a parameter gets its numbers, made for that moment; nobody can write to it.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .coded import CodedMatrix


class Held:
    """A matrix in few bytes, and once it is packed for kernels the packed one, which gives it back to the bit (zeros
    without a sign).

    precision: that of the layer whose kernels read it.
    """

    def __init__(self, matrix: CodedMatrix | Callable[[], CodedMatrix], shape: tuple[int, int], precision: str) -> None:
        self.shape, self.precision = shape, precision
        self._matrix = matrix
        self._owner: weakref.ref[Any] | None = None

    def matrix(self) -> CodedMatrix:
        found = self._matrix
        return found if isinstance(found, CodedMatrix) else found()

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.matrix().dense(dtype)

    def finite(self) -> bool:
        return self.matrix().finite()

    def give_to(self, owner: object, precision: str, matrix: Callable[[], CodedMatrix]) -> None:
        """From now on `matrix` gives it: `owner` has packed it. Of several owners (copies that share a parameter) the
        first one keeps it for as long as that is there; one in another precision than the layer's does not get it."""
        before = None if self._owner is None else self._owner()
        if precision == self.precision and before in (None, owner):
            self._matrix, self._owner = matrix, weakref.ref(owner)

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)(self._matrix, self.shape, self.precision)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.matrix(), self.shape, self.precision)


_FIXED = (
    "This weight is held once, as the kernels read it, and can't be written to.\n"
    "Change the original model and accelerate it again, or call load_state_dict on this one."
)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


class _Made(Tensor):
    """A tensor without memory, whose numbers are made for whoever reads it; so are views of it."""

    make: Callable[[], Tensor]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, make: Callable[[], Tensor], like: Tensor) -> Any:
        form: dict[str, Any] = {"strides": like.stride(), "dtype": like.dtype, "device": "cpu"}
        new = cast(Any, torch.Tensor)._make_wrapper_subclass(cls, like.shape, **form)
        new.make = make
        return new

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default and isinstance(args[0], HeldWeight):
            return HeldWeight(args[0].held)
        kwargs = kwargs or {}

        def run() -> Any:
            return func(*tree_map(_plain, args), **tree_map(_plain, kwargs))

        if func._schema.is_mutable:  # `other.copy_(weight)` only reads it
            given = {**dict(zip((each.name for each in func._schema.arguments), args)), **kwargs}
            written = [given.get(each.name) for each in func._schema.arguments if _is_written(each)]
            if any(isinstance(leaf, _Made) for leaf in tree_leaves(written)):
                raise RuntimeError(_FIXED)
            return run()
        found = run()
        if all(part.alias_info is None for part in func._schema.returns):
            return found
        if isinstance(found, Tensor):
            return _Made(run, found)
        return [_Made(lambda n=n: run()[n], part) for n, part in enumerate(found)]

    @property
    def data(self) -> Any:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: object) -> None:
        raise RuntimeError(_FIXED)

    def numpy(self, *, force: bool = False) -> Any:
        found = self.make().numpy()
        found.setflags(write=False)
        return found

    def tolist(self) -> Any:
        return self.make().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.make()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.make().__reduce_ex__(protocol)


class HeldWeight(_Made):
    """The parameter of a `Held`: float32 on the CPU to whoever reads it."""

    held: Held

    @staticmethod
    def __new__(cls, held: Held) -> HeldWeight:
        new = _Made.__new__(cls, held.dense, torch.empty(held.shape, dtype=torch.float32, device="meta"))
        new.held = held
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        held = copy.deepcopy(self.held, memo)
        return parameter(held) if isinstance(self, nn.Parameter) else HeldWeight(held)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (parameter if isinstance(self, nn.Parameter) else HeldWeight), (self.held,)


def parameter(held: Held) -> nn.Parameter:
    # What nn.Parameter does, without a call of torch's, at whose first dispatch to Python it imports 40 MB of sympy.
    new: Any = HeldWeight(held)
    new._is_param = True
    return new


def held_in(module: nn.Module) -> dict[str, Held]:
    """The matrices that a module holds once, by the names of their parameters."""
    return {name: p.held for name, p in module._parameters.items() if isinstance(p, HeldWeight)}


def _plain(value: Any) -> Any:
    return value.make() if isinstance(value, _Made) else value
