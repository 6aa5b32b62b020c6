"""Of all tests: their order, seeds without stacks, and records of what was counted (`--record FOLDER`)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

LONG = (
    "test_sweep.py",
    "test_studies.py",
    "test_bidaf.py",
    "test_bidaf_study.py",
    "test_fuzz.py",
    "test_runtime_fuzz.py",
)

# Where there is no accelerator, torch.manual_seed formats a stack for each kind that may come later: of the deep ones
# of a test that takes four times as long as all else.
if not torch.accelerator.is_available():
    for kind in (torch.cuda, torch.xpu, torch.mtia):
        setattr(kind, "manual_seed_all", lambda seed: None)  # noqa: B010


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A test with torch on one thread; torch's random numbers and default dtype are afterwards as they were."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


@pytest.fixture
def no_handlers() -> Iterator[None]:
    """A test whose handlers of log messages go with it."""
    yield
    logging.getLogger().handlers.clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="a folder: what tests with the marker `counts` counted, by figure")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules with the longest tests begin first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    folder, mark = item.config.getoption("--record"), item.get_closest_marker("counts")
    if folder is None or mark is None:
        return (yield)
    began, passed = time.monotonic(), False
    try:
        result = yield
        passed = True
        return result
    except pytest.skip.Exception:
        mark = None
        raise
    finally:
        if mark is not None:
            note(Path(folder) / f"{mark.args[0]}.json", item.nodeid, mark.args[1], passed, time.monotonic() - began)


def note(path: Path, test: str, cases: int, passed: bool, seconds: float) -> None:
    """Add a test to the record of its figure; what another commit counted is forgotten."""
    from sparsernn.files import write_atomically
    from sparsernn_studies.results import surroundings

    around = surroundings()
    content: dict[str, Any] = {"name": path.stem, "tests": {}}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        content = before if before["commit"] == around["commit"] else content
    content["tests"][test] = {"cases": cases, "passed": passed, "seconds": round(seconds, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**content, **around}, indent=1) + "\n")
