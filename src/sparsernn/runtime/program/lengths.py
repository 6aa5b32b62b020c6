"""Numbers in a model's Python code that lengths may be compared with: what it does beyond them, no short run shows."""

from __future__ import annotations

import dis
import inspect
import os
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

_TORCH = os.path.dirname(torch.__file__)
_ASKS = ("COMPARE_OP", "BUILD_SLICE", "BINARY_SLICE", "STORE_SLICE")
_SMALLER = ("min", "max", "clamp", "narrow", "range", "islice")


def numbers(model: nn.Module, above: int) -> list[int]:
    """Whole numbers larger than `above` in what forward runs, rising: where code compares, cuts or takes remainders,
    those that stand in it and those in attributes and globals that it names."""
    found: set[int] = set()
    seen: set[tuple[int, int]] = set()
    for module in model.modules():
        if not type(module).__module__.startswith("torch."):
            for code, names in _codes(type(module).forward, module, seen, 0):
                if _asks(code):
                    used = (*code.co_names, *code.co_freevars)
                    values = [names[n] if n in names else _attribute(module, n) for n in used]
                    found |= {value for value in _whole((*code.co_consts, *values)) if value > above}
    return sorted(found)


def _whole(values: Any) -> Iterator[int]:
    return (v for v in values if type(v) is int and v < 1 << 31)


def _attribute(module: nn.Module, name: str) -> Any:
    """What the module or its class has under that name; properties are not run."""
    found = vars(module).get(name, inspect.getattr_static(type(module), name, None))
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def _asks(code: CodeType) -> bool:
    """Whether it compares, cuts or takes remainders."""
    if any(name in _SMALLER for name in code.co_names):
        return True
    return any(i.opname in _ASKS or (i.opname == "BINARY_OP" and "%" in i.argrepr) for i in dis.get_instructions(code))


def _codes(function: Any, module: nn.Module, seen: set[Any], depth: int) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """The code of a function and of what it calls of the model's own, each with what its names stand for outside."""
    function = function.__func__ if isinstance(function, MethodType) else getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or depth > 8 or (id(function), id(module)) in seen:
        return
    if function.__code__.co_filename.startswith(_TORCH):
        return
    seen.add((id(function), id(module)))
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    codes = [function.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
        known = {n: names[n] for n in (*code.co_names, *code.co_freevars) if n in names}
        yield code, known
        for name in (*code.co_names, *code.co_freevars):
            other = known[name] if name in known else _attribute(module, name)
            if isinstance(other, (FunctionType, MethodType)):
                yield from _codes(other, module, seen, depth + 1)
