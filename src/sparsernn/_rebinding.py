"""Functions that hold the model they were made in: in a copy of the model they hold the copy.

`copy.deepcopy` takes functions and weak references as they are. A hook that closes over `self`, a lambda kept on `self`
or a forward patched in would go on to read and write the original. So would a function that keeps a state of its own:
in a variable of the function that made it (`nonlocal`), in a list, a dict or a tensor that it closes over or has as a
default.
"""

from __future__ import annotations

import copy
import dis
import functools
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from torch import Tensor, nn

_PLAIN = (str, bytes, int, float, complex, type(None), type, Tensor, ModuleType)
_BARE = frozenset((str, bytes, int, float, bool, type(None), Tensor, nn.Parameter))
_EMPTY = frozenset((dict, OrderedDict, list, tuple, set))
_WALKED = (FunctionType, MethodType, functools.partial, dict, list, tuple)
_COLLECTIONS = (list, tuple, set, frozenset, deque)
_CACHED = type(functools.cache(len))
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_WEAK_DICTS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


class _Stuck(Exception):
    """What holds the original and can't be made anew."""


def refuse_proxies(model: nn.Module) -> None:
    """TypeError where an attribute is a weak proxy of a module, or a weak dictionary that holds one of the model's:
    deepcopy would make a second copy of the one, and leaves the original in the other."""
    own = {id(module) for module in model.modules()}
    for path, module in model.named_modules():
        for name, value in _held(module):
            if any(type(v) in weakref.ProxyTypes and isinstance(v, nn.Module) for v in (value, *_parts(value))):
                raise _refusal(path, name, "a weakref.proxy")
            if isinstance(value, _WEAK_DICTS) and any(id(part) in own for part in _parts(value)):
                raise _refusal(path, name, f"a {type(value).__name__}")


def rebind(other: nn.Module, memo: dict[int, Any]) -> None:
    """Make what `other`, a copy, keeps refer to the copy. `memo`: id of an object of the original -> its copy, by which
    deepcopy made it. TypeError with the attribute's path where that can't be."""
    work = _Rebinding(other, memo)
    for path, module in other.named_modules():
        for name, value in _held(module):
            try:
                new = work.settled(value)
            except _Stuck as stuck:
                raise _refusal(path, name, str(stuck)) from stuck.__cause__
            if new is not value:
                module.__dict__[name] = new
        for name, method in _methods(type(module)):  # of a class made in a function, whose variables it writes
            if name not in vars(module) and work.keeps(method):
                module.__dict__[name] = MethodType(work.counterpart(method), module)


def _held(module: nn.Module) -> list[tuple[str, Any]]:
    """Attributes that may lead somewhere: most are flags, tensors and empty tables of hooks."""
    return [(k, v) for k, v in vars(module).items() if type(v) not in _BARE and (type(v) not in _EMPTY or v)]


def _methods(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """Methods that see more of the function that their class was made in than the class."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "torch":  # made in no function, and long
            continue
        for name, value in vars(base).items():
            if not isinstance(value, FunctionType) or name[:2] == "__" or getattr(cls, name, None) is not value:
                continue  # or overridden
            if {*value.__code__.co_freevars} - {"__class__"}:
                yield name, value


def functions(model: nn.Module) -> Iterator[FunctionType]:
    """The functions that modules keep, and those that these see, each once."""
    seen: dict[int, Any] = {}
    modules = list(model.modules())
    stack = [v for module in modules for v in vars(module).values() if isinstance(v, _WALKED) and v]
    stack += [method for cls in {type(module) for module in modules} for _, method in _methods(cls)]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            yield value
        stack += [part for part in _parts(value) if isinstance(part, _WALKED)]


def cells(of: Iterable[FunctionType]) -> dict[int, CellType]:
    """The variables of outer functions that these see, by their ids."""
    return {id(cell): cell for one in of for cell in one.__closure__ or () if _full(cell)}


def _written(code: CodeType) -> set[str]:
    """Variables of outer functions and its own that a function, or one inside it, sets."""
    found = {str(one.argval) for one in dis.get_instructions(code) if one.opname in ("STORE_DEREF", "DELETE_DEREF")}
    return found.union(*(_written(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _is_state(value: Any, depth: int = 0) -> bool:
    """A tensor, or a list, dict, set or deque of plain values and tensors."""
    if isinstance(value, Tensor) or depth > 6:
        return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
    if type(value) is tuple:
        return any(_is_state(part, depth + 1) for part in value)
    plain = (str, bytes, int, float, complex, type(None))
    return type(value) in (list, dict, set, deque) and all(
        isinstance(part, plain) or _is_state(part, depth + 1) for part in _parts(value)
    )


def _refusal(path: str, name: str, what: str) -> TypeError:
    return TypeError(
        f"`{path}.{name}`".replace("`.", "`") + f" holds the model it was made in: {what}, which would run the original"
        " in a copy; sparsernn works on a copy.\n"
        "Make it a method, or a function that takes the module as an argument."
    )


def _parts(value: Any) -> Iterator[Any]:
    """What a function, a reference or a collection holds."""
    if isinstance(value, FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _full(cell))
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        yield from vars(value).values()
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, BuiltinMethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, _COLLECTIONS):
        yield from list(value)
    elif isinstance(value, dict):
        yield from list(value.values())
    elif isinstance(value, _WEAK_DICTS):
        yield from [one for pair in list(value.items()) for one in pair]
    elif isinstance(value, _CACHED):
        yield cast(Any, value).__wrapped__


def _full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # named later in the function that made it
        return False


class _Rebinding:
    def __init__(self, other: nn.Module, memo: dict[int, Any]) -> None:
        self.memo = memo
        self.copies = {id(v) for k, v in memo.items() if k != id(v) and k != id(memo)}
        self.visited = {id(module) for module in other.modules()}
        self.made: dict[int, Any] = {}  # id of a function or a cell -> the new one
        self.alive: list[Any] = [other]  # ids stay theirs
        self.written = {
            id(cell)
            for one in functions(other)
            for name, cell in zip(one.__code__.co_freevars, one.__closure__ or ())
            if name in _written(one.__code__)
        }
        # Hooks watch: what they note in a list is for who made them, whichever copy they hang on.
        self.watching = {id(f) for m in other.modules() for k in HOOKS for f in vars(m).get(k, {}).values()}

    def settled(self, value: Any) -> Any:
        """What stands in the place of `value`, which the copy holds. Collections and objects that deepcopy has made are
        changed in place."""
        if isinstance(value, _PLAIN) or id(value) in self.visited:
            return value
        if isinstance(value, (tuple, frozenset)):
            parts = list(value)
            new = [self.settled(part) for part in parts]
            if all(a is b for a, b in zip(new, parts, strict=True)):
                return value
            return cast(Any, type(value))(*new) if hasattr(value, "_fields") else type(value)(new)
        if id(value) not in self.copies or isinstance(value, MethodType):
            return self.counterpart(value)
        self.visited.add(id(value))
        if isinstance(value, functools.partial):
            # A partial's state is (function, arguments, keywords, attributes).
            new = [self.settled(v) for v in (value.func, value.args, value.keywords)]
            cast(Any, value).__setstate__((*new, vars(value)))
        elif isinstance(value, (list, deque, set)):
            before = list(value)
            after = [self.settled(v) for v in before]
            if any(a is not b for a, b in zip(after, before, strict=True)):
                value.clear()
                value.update(after) if isinstance(value, set) else value.extend(after)
        for names in (value if isinstance(value, dict) else {}, getattr(value, "__dict__", {})):
            for name, held in list(names.items()):
                if (new := self.settled(held)) is not held:
                    names[name] = new
        return value

    def reaches(self, value: Any, seen: dict[int, Any] | None = None) -> bool:
        """Whether `value`, which a function holds, leads to something of the original."""
        seen = {} if seen is None else seen
        if id(value) in seen:
            return False
        seen[id(value)] = value
        if type(value) in weakref.ProxyTypes:
            value = value.__init__.__self__  # whose method it is: the module itself
        if self.memo.get(id(value), value) is not value:
            return True
        if isinstance(value, (*_PLAIN, nn.Module)) or id(value) in self.copies:
            return False  # a module round the model is no part of it
        parts = list(_parts(value)) or list(getattr(value, "__dict__", {}).values())
        return any(self.reaches(part, seen) for part in parts)

    def keeps(self, value: Any, seen: dict[int, Any] | None = None) -> bool:
        """Whether a function, itself or through others, keeps a state that a call may change."""
        seen = {} if seen is None else seen
        if id(value) in seen:
            return False
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            if id(value) in self.watching:
                return False
            if any(id(cell) in self.written for cell in value.__closure__ or ()) or any(map(_is_state, _parts(value))):
                return True
        elif not isinstance(value, (MethodType, functools.partial, dict, *_COLLECTIONS)):
            return False
        return any(self.keeps(part, seen) for part in _parts(value))

    def counterpart(self, value: Any) -> Any:
        """What stands for `value` in the copy: itself where it leads to nothing of the original."""
        if id(value) in self.made:
            return self.made[id(value)]
        known = id(value) in self.copies and any(map(self.reaches, _parts(value)))
        if not (known or self.reaches(value) or self.keeps(value)):
            return value
        self.alive.append(value)
        if type(value) in weakref.ProxyTypes:
            raise _Stuck("a weakref.proxy")
        if isinstance(value, (_CACHED, *_WEAK_DICTS)):
            raise _Stuck(f"a {type(value).__name__}")
        if isinstance(value, FunctionType):
            return self._function(value)
        value = self.memo.get(id(value), value)
        if isinstance(value, MethodType):
            return MethodType(self.counterpart(value.__func__), self.counterpart(value.__self__))
        if isinstance(value, BuiltinMethodType):
            return getattr(self.counterpart(value.__self__), value.__name__)
        if isinstance(value, weakref.ref):
            return type(value)(self.counterpart(value()))
        if id(value) not in self.copies:
            try:
                value = copy.deepcopy(value, self.memo)
            except Exception as error:
                raise _Stuck(f"a {type(value).__name__} that can't be copied ({error})") from error
            self.copies = {id(v) for k, v in self.memo.items() if k != id(v) and k != id(self.memo)}
            if id(value) not in self.copies and not isinstance(value, tuple):
                raise _Stuck(f"a {type(value).__name__} that is never copied")
        return self.settled(value)

    def _function(self, old: FunctionType) -> FunctionType:
        """The same code round the copy. A cell that several functions share stays one cell for them."""
        watches = id(old) in self.watching
        own = self.counterpart if watches else self._own
        cells = tuple(self._cell(cell, watches) for cell in old.__closure__ or ())
        new = FunctionType(old.__code__, old.__globals__, old.__name__, None, cells if old.__closure__ else None)
        self.made[id(old)] = new
        for cell, before in zip(cells, old.__closure__ or (), strict=True):
            if cell is not before and not _full(cell):
                cell.cell_contents = own(before.cell_contents)
        new.__defaults__ = old.__defaults__ and tuple(map(own, old.__defaults__))
        new.__kwdefaults__ = old.__kwdefaults__ and {k: own(v) for k, v in old.__kwdefaults__.items()}
        new.__dict__.update({k: self.counterpart(v) for k, v in vars(old).items()})
        for name in ("__doc__", "__module__", "__qualname__", "__annotations__"):
            setattr(new, name, getattr(old, name))
        return new

    def _own(self, value: Any) -> Any:
        """What a function holds, and keeps a state in."""
        return copy.deepcopy(value, self.memo) if _is_state(value) else self.counterpart(value)

    def _cell(self, old: CellType, watches: bool) -> CellType:
        if not _full(old):
            return old
        content = old.cell_contents
        keeps = not watches and (id(old) in self.written or _is_state(content) or self.keeps(content))
        if not (keeps or self.reaches(content)):
            return old
        if id(old) not in self.made:
            self.made[id(old)] = CellType()
            self.alive.append(old)
        return self.made[id(old)]
