"""The scripts that keep records over hours: what they count, and that they go on where they were stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import repeats

TESTS = Path(__file__).resolve().parent
RUN = (
    "import elsewhere, sys; from pathlib import Path; elsewhere.TOP = Path(sys.argv.pop(1)); sys.exit(elsewhere.main())"
)


def test_repeats_count_every_run_and_name_what_failed(tmp_path, monkeypatch):
    record = tmp_path / "repeats.json"
    outputs = [(0, ""), (1, "FAILED tests/a.py::b - x\nERROR tests/c.py"), (2, "no names"), (0, "")]
    left = iter(outputs)
    monkeypatch.setattr(
        repeats,
        "subprocess",
        SimpleNamespace(run=lambda *a, **k: SimpleNamespace(**dict(zip(("returncode", "stdout"), next(left))))),
    )

    def run(count: int) -> int:
        monkeypatch.setattr(sys, "argv", ["repeats.py", "--count", str(count), "--record", str(record)])
        return repeats.main()

    assert run(1) == 0
    assert run(4) == 1  # the first is not run again
    assert next(left, None) is None
    found = json.loads(record.read_text())
    assert found["cases"] == 4 == len(found["runs"])
    assert found["mismatches"] == [
        {"run": 1, "failed": ["tests/a.py::b", "tests/c.py"]},
        {"run": 2, "failed": "no names"},
    ]
    assert run(4) == 1  # nothing is left to run, and the reds stay


def test_the_suite_elsewhere_is_recorded_file_by_file_and_goes_on(tmp_path):
    (tmp_path / "tests").mkdir()
    first, second = (tmp_path / "tests" / f"test_{name}.py" for name in ("one", "two"))
    first.write_text("def test_a(): pass\ndef test_b(): assert 0\n")
    second.write_text("import pytest\ndef test_c(): pytest.skip()\ndef test_d(): pass\n")

    def run(*options: str) -> dict:
        command = [
            sys.executable,
            "-c",
            RUN,
            str(tmp_path),
            "test_*.py",
            "--record",
            str(tmp_path / "records"),
            *options,
        ]
        subprocess.run(command, cwd=TESTS, capture_output=True, timeout=300)
        [record] = (tmp_path / "records").iterdir()
        return json.loads(record.read_text())

    found = run()
    one, two = (found["files"][f"tests/test_{name}.py"] for name in ("one", "two"))
    assert (one["passed"], one["failed"], one["failures"]) == (1, 1, ["tests/test_one.py::test_b"])
    assert (two["passed"], two["failed"], two["skipped"]) == (1, 0, 1)
    first.write_text("def test_a(): assert 0\n")  # a file that is done is not run again
    assert run()["files"] == found["files"]
    half = run("--share", "2")["files"]  # but for another share all are
    assert half.keys() == found["files"].keys() and half["tests/test_one.py"]["failed"] == 1
