"""What a planted bug is, and short names for the tests that look at one architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """In `file` (below src/sparsernn) the one place that reads `old` becomes `new`; `tests` (pytest node ids below
    tests/) have to fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, source: str) -> str:
        """`source` with the bug in it; ValueError unless `old` stands in it exactly once."""
        count = source.count(self.old)
        if count != 1 or self.new == self.old:
            raise ValueError(f"{self.name}: {self.old!r} stands {count} times in {self.file}, expected once.")
        return source.replace(self.old, self.new)


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
