"""What a planted bug is, and short names for the tests that look at one architecture."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """In the function, method or table `at` ("room: name", in whatever file of the room it stands) the one place that
    reads `old` becomes `new`; `tests` (pytest node ids below tests/) have to fail then."""

    name: str
    at: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, source: Path) -> tuple[Path, str]:
        """The file below `source` (the package's folder) that has to change, and its text with the bug in it.

        Raises ValueError unless `old` stands exactly once in exactly one thing of that name.
        """
        room, name = self.at.split(": ")
        found = []
        for path in sorted((source / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for start, end in _places(text, name):
                part = text[start:end]
                if part.count(self.old) == 1 and self.new != self.old:
                    found.append((path, text[:start] + part.replace(self.old, self.new) + text[end:]))
        if len(found) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands in {len(found)} places called {self.at}, expected one.")
        return found[0]


def _places(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Where in `text` the functions, methods ("Class.method") and tables of that name begin and end, decorators too."""
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    owner, _, last = name.rpartition(".")
    if last not in text:
        return
    for holder in _parsed(text) if not owner else [n for n in _parsed(text) if _called(n) == owner]:
        for node in holder.body if owner and isinstance(holder, ast.ClassDef) else [holder]:
            if _called(node) == last:
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
                yield starts[first - 1], starts[node.end_lineno or first]


@functools.cache
def _parsed(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


def _called(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else None


def readers(*architectures: str) -> tuple[str, ...]:
    """Exactly the declared readers are found."""
    where = "contracts/test_readers.py::test_every_reader_is_found_and_no_other"
    return tuple(f"{where}[{name}]" for name in architectures)


def kept(*architectures: str) -> tuple[str, ...]:
    """What has to stay is named with its operation and source line."""
    where = "contracts/test_readers.py::test_what_stays_is_named_with_operation_and_line"
    return tuple(f"{where}[{name}]" for name in architectures)


def compacted(*architectures: str, share: float = 0.5) -> tuple[str, ...]:
    """The same function in smaller modules, once the readers of a share of all units are zero."""
    where = "contracts/test_compact.py::test_same_function_in_smaller_modules"
    return tuple(f"{where}[{share}-{name}]" for name in architectures)


def grid(*cases: str) -> tuple[str, ...]:
    """The same for one module and a head; a case is "kind-layers-bidirectional"."""
    where = "contracts/test_grid.py::test_dead_units_leave_and_nothing_else_changes"
    return tuple(f"{where}[{case}]" for case in cases)
