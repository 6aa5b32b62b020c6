"""Numbers that Python reads out of tensors: in a file they are constants, whatever the inputs are.

They are followed from the inputs on, with the line of the model that reads them. A value that was another one in a run
on which file and model agree does no harm; of one that never changed, nobody knows.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Place = tuple[str, int]  # file, line
_PACKAGE, _TORCH = str(Path(__file__).parents[2]), str(Path(torch.__file__).parent)
_SCALARS = ("_local_scalar_dense", "equal", "is_nonzero", "allclose")
_SAY = ("print", "warn", "warnings", "logger", "log", "logging")
_OURS = tuple(str(Path(__file__).with_name(name)) for name in ("reads.py", "rewrites.py", "translate.py"))
_OURS += (warnings.__file__, contextlib.__file__)
_MEMORY = ("tolist", "numpy", "__array__")  # read past torch's operators


class Reads:
    """Context manager: `values` has what was read at each line, and `random` the operators that drew numbers."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.values: dict[Place, list[str]] = {}
        self.random: list[str] = []
        self._known: dict[int, StorageWeakRef] = {}
        self._inputs = inputs

    def __enter__(self) -> Self:
        self.follow(*self._inputs)
        self._stack = ExitStack()
        self._stack.enter_context(_Functions(self))
        self._stack.enter_context(_Operators(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def follow(self, *tensors: Any) -> None:
        for one in tensors:
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                # A weak reference keeps the number from being given to another storage.
                self._known.setdefault(storage._cdata, StorageWeakRef(storage))

    def from_inputs(self, values: Any) -> bool:
        return any(isinstance(v, Tensor) and v.untyped_storage()._cdata in self._known for v in tree_leaves(values))

    def note(self, value: Any) -> None:
        place = users_line()
        if place is not None:
            self.values.setdefault(place, []).append(repr(value))


class _Operators(TorchDispatchMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            place = users_line()
            where = f" at {spelled(place)}" if place else ""
            self.reads.random.append(f"{func.overloadpacket.__name__}{where}")
        if self.reads.from_inputs((args, kwargs)):
            if func.overloadpacket.__name__ in _SCALARS:
                self.reads.note(result)
            self.reads.follow(*tree_leaves((result, args[:1] if func._schema.is_mutable else ())))
        return result


class _Functions(TorchFunctionMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _MEMORY and self.reads.from_inputs(args):
            self.reads.note(result)
        return result


def users_line(inside: tuple[str, ...] = (_TORCH,)) -> Place | None:
    """The line of the model that called torch; None if this package did, or, with inside=(), another part of torch."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_OURS, *inside, "<frozen")):
            return None if file.startswith((_PACKAGE, _TORCH)) else (file, frame.f_lineno)
        frame = frame.f_back
    return None


def spelled(place: Place) -> str:
    return f"{Path(place[0]).name}:{place[1]}"


def only_checks(place: Place) -> bool:
    """Whether a line is an assertion, or a branch that does nothing but raise or warn."""
    try:
        tree = ast.parse("".join(linecache.getlines(place[0])))
    except SyntaxError:
        return False
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= place[1] <= (node.end_lineno or node.lineno)
    ]
    inner = max(found, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    if isinstance(inner, ast.If):
        return not inner.orelse and all(isinstance(one, ast.Raise) or _warns(one) for one in inner.body)
    return isinstance(inner, (ast.Assert, ast.Raise)) or _warns(inner)


def _warns(statement: ast.AST | None) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in _SAY
