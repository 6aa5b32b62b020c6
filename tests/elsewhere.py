"""The suite's parts that touch the machine, on another one or with narrower vectors, with a record:

    python tests/elsewhere.py --record results/checks [PART ...]
    SPARSERNN_VECTOR_WIDTH=4 python tests/elsewhere.py --record results/checks

FOLDER/elsewhere-MACHINE-WIDTH-PYTHON-TORCH.json has what each file's tests came to. Goes on where that ends, if it is
of the same commit. `--share 10` runs every tenth test of a file only: for emulated processors (tools/aarch64.sh). Other
Pythons: tools/python.sh.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsernn.files import write_atomically
from sparsernn.runtime.processor import processor
from sparsernn_studies.results import surroundings

TOP = Path(__file__).resolve().parent.parent
PARTS = ("test_runtime_*.py", "contracts/test_*.py", "test_export_*.py", "test_program_*.py", "test_checkpoint*.py")


class Recorder:
    """Counts the outcomes of each file's tests, and writes the record when a file is done."""

    def __init__(self, path: Path, share: int) -> None:
        self.path, self.share = path, share
        self.content: dict[str, Any] = {"name": path.stem, "machine": platform.machine(), "files": {}}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["commit"] == surroundings()["commit"] and before["share"] == share:
                self.content = before
        self._begin()

    def _begin(self) -> None:
        self.counts: Counter[str] = Counter(passed=0, failed=0, skipped=0)
        self.failed: list[str] = []
        self.began = time.monotonic()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left = [item for item in items if self._file(item) not in self.content["files"]]
        items[:] = [item for n, item in enumerate(left) if n % self.share == 0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        done = yield
        file = self._file(item)
        if nextitem is None or self._file(nextitem) != file:
            seconds = round(time.monotonic() - self.began, 1)
            self.content["files"][file] = {**self.counts, "failures": self.failed, "seconds": seconds}
            around = {"processor": processor().name, "width": processor().width, "share": self.share}
            write_atomically(self.path, json.dumps({**self.content, **around, **surroundings()}, indent=1) + "\n")
            self._begin()
        return done

    @staticmethod
    def _file(item: pytest.Item) -> str:
        return item.path.relative_to(TOP).as_posix()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help="patterns of files in tests/")
    parser.add_argument("--record", type=Path, required=True, help="the folder of records")
    parser.add_argument("--share", type=int, default=1, help="run every n-th test")
    chosen = parser.parse_args()
    versions = [".".join(v.split(".")[:2]) for v in (platform.python_version(), torch.__version__)]
    name = "-".join(["elsewhere", platform.machine(), str(processor().width), *versions])
    recorder = Recorder(chosen.record.resolve() / f"{name}.json", chosen.share)
    files = [str(path) for part in chosen.parts for path in sorted((TOP / "tests").glob(part))]
    chosen.record.mkdir(parents=True, exist_ok=True)
    return pytest.main([*files, f"--rootdir={TOP}", "-m", "not nightly", "--timeout=3600"], plugins=[recorder])


if __name__ == "__main__":
    sys.exit(main())
