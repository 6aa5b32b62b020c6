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
        path, source = bug.planted(planted_bugs.SOURCE)
        compile(source, str(path), "exec")  # a mistake in meaning, not in grammar
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
    assert not planted_bugs.catcher(folder, Bug("nothing", bug.at, bug.old, f"{bug.old}  # nothing", bug.tests))


def test_a_bug_is_found_by_the_name_of_what_it_alters_in_any_file_of_the_room(tmp_path):
    bug = Bug("other sum", "room: Adder.add", "a + b", "a - b", ())
    (tmp_path / "room" / "inner").mkdir(parents=True)
    (tmp_path / "room" / "before.py").write_text("def add(a, b):\n    return a + b\n")
    moved = tmp_path / "room" / "inner" / "after.py"
    moved.write_text(
        "class Adder:\n    @staticmethod\n    def add(a, b):\n        return a + b\n\n\nx = lambda a, b: a + b\n"
    )
    path, text = bug.planted(tmp_path)
    assert path == moved and text == moved.read_text().replace("a + b", "a - b", 1)


@pytest.mark.parametrize("body", ["return a", "return a + b, a + b"])
def test_a_bug_whose_place_has_gone_is_said(tmp_path, body):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "file.py").write_text(f"def add(a, b):\n    {body}\n")
    with pytest.raises(ValueError, match=r"stands in 0 places called room: add, expected one"):
        Bug("gone", "room: add", "a + b", "a - b", ()).planted(tmp_path)
