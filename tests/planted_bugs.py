"""Does the suite catch mistakes? Plants one bug after the other in a copy of the source and runs the tests on it.

    python tests/planted_bugs.py                 all of them
    python tests/planted_bugs.py NAME ...        those whose name contains one of the words
    python tests/planted_bugs.py --record FILE   writes what was found as JSON, bug after bug; other bugs' rows stay

Each bug of `planted/` names the tests that have to fail. They pass on the unchanged copy first, so that a failure is
the bug's. Prints a table with the test that failed; the exit status is 1 if a bug was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from planted import BUGS, Bug
from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "sparsernn"

# Loaded into pytest: a package that was imported from elsewhere would make every bug look missed, or caught.
GUARD = """
from pathlib import Path
import pytest
import sparsernn

def pytest_configure(config):
    if Path(sparsernn.__file__).resolve().parent != Path(__file__).resolve().parent / "src" / "sparsernn":
        pytest.exit(f"the tests import {sparsernn.__file__}", returncode=9)
"""


@contextmanager
def copied():
    """A temporary folder with the source, the tests and pytest's settings."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name).resolve()
        for part in ("src", "tests", "studies"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for part in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / part, folder)
        (folder / "planted_guard.py").write_text(GUARD, encoding="utf-8")
        yield folder


def run(folder: Path, tests: Iterable[str]) -> tuple[int, str]:
    """pytest's exit status on `tests` of the copy (0 passed, 1 failed), and what it printed."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder / "studies" / "src"), str(folder)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # or a bug that keeps the file's size and second would run as the old one
        "OMP_NUM_THREADS": "1",
    }
    nodes = [f"tests/{test}" for test in dict.fromkeys(tests)]
    command = [sys.executable, "-m", "pytest", "-p", "planted_guard", "-p", "no:cacheprovider", "-x", "--tb=line"]
    done = subprocess.run([*command, *nodes], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def check_sound(folder: Path, bugs: Iterable[Bug]) -> None:
    """The chosen tests pass on the copy as it is; RuntimeError with pytest's words if not."""
    status, text = run(folder, [test for bug in bugs for test in bug.tests])
    if status != 0:
        raise RuntimeError(f"The tests fail without a bug (pytest's exit status is {status}):\n{text[-3000:]}")


def catcher(folder: Path, bug: Bug) -> str:
    """The test of the bug's that fails with it, "" if none does; RuntimeError if they could not run at all."""
    path, text = bug.planted(folder / "src" / "sparsernn")
    sound = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    try:
        status, text = run(folder, bug.tests)
    finally:
        path.write_text(sound, encoding="utf-8")
    if status not in (0, 1):
        raise RuntimeError(f"{bug.name}: the tests did not run (pytest's exit status is {status}):\n{text[-3000:]}")
    failed = re.findall(r"^(?:FAILED|ERROR) tests/(\S+::.*?)(?: - .*)?$", text, re.MULTILINE)
    return (failed or bug.tests)[0] if status else ""


def _record(file: Path, row: dict[str, object]) -> None:
    """Put `row` into the JSON `file`, in the place of an earlier one of the same bug; all rows in the order of BUGS.

    Each row has the commit that it was found at, since rows of several runs may stand side by side.
    """
    around = surroundings()
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    found = {one["bug"]: one for one in [*rows, {**row, "commit": around["commit"]}]}
    names = [bug.name for bug in BUGS]
    content = {"name": "planted bugs", "planned": len(BUGS), "rows": [found[name] for name in names if name in found]}
    write_atomically(file, json.dumps(content | around, indent=2) + "\n")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tests/planted_bugs.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="only bugs whose name contains one of these")
    parser.add_argument("--record", type=Path, help="write what was found to this JSON file")
    chosen = parser.parse_args(arguments)
    bugs = [bug for bug in BUGS if not chosen.words or any(word in bug.name for word in chosen.words)]
    if not bugs:
        print(f"No bug has {' or '.join(chosen.words)} in its name; they are:", *(b.name for b in BUGS), sep="\n  ")
        return 2
    rows: list[dict[str, object]] = []
    with copied() as folder:
        check_sound(folder, bugs)
        for bug in bugs:
            begin = time.monotonic()
            file = bug.planted(SOURCE)[0].relative_to(SOURCE).as_posix()
            test = catcher(folder, bug)
            seconds = round(time.monotonic() - begin, 1)
            rows.append({"file": file, "bug": bug.name, "caught": bool(test), "test": test, "seconds": seconds})
            print(f"{'caught' if test else 'MISSED'}  {seconds:5.1f} s  {file}: {bug.name}  {test}", flush=True)
            if chosen.record is not None:
                _record(chosen.record, rows[-1])
    missed = sum(not row["caught"] for row in rows)
    print(f"{len(bugs) - missed} of {len(bugs)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
