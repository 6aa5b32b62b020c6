"""One operation of a run of a model: what torch was given, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch


class NotAProgram(RuntimeError):
    """The model does something that one time step can't do; the message says what, where, and what helps."""


@dataclass(frozen=True)
class Ref:
    """The result of call `call`, its part `part` where it gives several; the input of number `call` where `input`."""

    call: int
    part: int | None = None
    input: bool = False


@dataclass
class Call:
    """One operation of a run. args: what torch was given, by the names of its schema; `Ref` for other calls' results.

    result: the tensor or tuple of tensors that it gave in this run. source: "net.py:14" of the model's code.
    """

    target: torch._ops.OpOverload
    args: dict[str, Any]
    result: Any
    source: str

    @property
    def name(self) -> str:
        """ "aten.add", without the overload."""
        return f"{self.target.namespace}.{self.target._schema.name.split('::')[1]}"


@cache
def _declared(target: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of the operation's positional arguments, and all arguments with their defaults."""
    declared = target._schema.arguments
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in declared}
    return tuple(a.name for a in declared if not a.kwarg_only), defaults


def by_name(target: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of the operation's schema, those not given with their defaults."""
    positional, defaults = _declared(target)
    return {**defaults, **dict(zip(positional, args)), **kwargs}


def flat(values: Any) -> list[Any]:
    """What stands in lists and in lists of lists."""
    found = []
    for value in values:
        found += flat(value) if isinstance(value, (list, tuple)) else [value]
    return found
