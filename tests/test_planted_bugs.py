"""The suite catches mistakes: each planted bug fails one of the tests that it names (see planted_bugs.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import planted_bugs
from planted import BUGS, Bug


@pytest.mark.smoke
def test_every_bug_still_has_its_place_in_the_source():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
    for bug in BUGS:
        source = (planted_bugs.SOURCE / bug.file).read_text(encoding="utf-8")
        compile(bug.apply(source), bug.file, "exec")  # a mistake in meaning, not in grammar
        for test in bug.tests:
            file, _, name = test.partition("::")
            text = (planted_bugs.ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name.partition('[')[0]}" in text, f"{bug.name}: there is no test {test}"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A copy on which the chosen tests pass."""
    with planted_bugs.copied() as copy:
        planted_bugs.check_sound(copy, BUGS)
        yield copy


@pytest.mark.nightly
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_caught(folder: Path, bug: Bug):
    assert planted_bugs.catcher(folder, bug), f"with {bug.old!r} replaced by {bug.new!r} all of {bug.tests} pass"


@pytest.mark.nightly
def test_a_harmless_change_is_not_caught(folder: Path):
    bug = BUGS[0]
    assert not planted_bugs.catcher(folder, Bug("nothing", bug.file, bug.old, f"{bug.old}  # nothing", bug.tests))


def test_a_bug_whose_place_has_gone_is_said():
    bug = Bug("gone", "structure/cells.py", "no such line", "another", ())
    with pytest.raises(ValueError, match=r"stands 0 times in structure/cells\.py"):
        bug.apply("text")
    with pytest.raises(ValueError, match="stands 2 times"):
        bug.apply("no such line\nno such line\n")
