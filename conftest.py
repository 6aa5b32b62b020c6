"""Of all tests: their order, seeds without stacks, and records of what was counted (`--record FOLDER`)."""

from __future__ import annotations

import functools
import gc
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Modules that take more than ten seconds, longest first.
LONG = """
test_studies test_compact test_program_sweep test_sweep test_program_random test_runtime_fuzz test_export_fuzz
test_documentation test_export_int8 test_grid test_readers test_bidaf_study test_export_chains test_learn_sparsifier
test_runtime_computed_weights test_nn_graph_use test_examples test_analysis_report test_fuzz test_learn_lasso
test_architecture test_export_operations test_lobacheva test_commands test_onnx test_recipes test_training
test_reber_pruning test_spoken_digits test_runtime_products test_export_c test_bidaf test_learn_bayes
test_program_kernels test_export_gates test_declarations test_from_onnx test_export_calibrate test_learn_paths
""".split()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A test with torch on one thread; torch's random numbers and default dtype are afterwards as they were."""
    import torch

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


def _folder(name: str) -> Path:
    return Path(name).resolve()  # a test may work in a folder of its own


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=_folder, help="a folder: what tests with the marker `counts` counted, by figure")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist's own order goes by the number of tests in a module


def pytest_collection_finish() -> None:
    """What is there now, modules and the tests themselves, stays to the end: collecting garbage need not look at it."""
    gc.collect()
    gc.freeze()
    # Not above: the process that hands out tests and runs none would load it first.
    import torch

    # Where there is no accelerator, torch.manual_seed formats a stack for each kind that may come later: of the deep
    # ones of a test that takes four times as long as all else.
    if not torch.accelerator.is_available():
        for kind in (torch.cuda, torch.xpu, torch.mtia):
            setattr(kind, "manual_seed_all", lambda seed: None)  # noqa: B010


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The modules with the longest tests begin first, so that no process is left alone with one of them at the end.
    What this commit has on record is not counted again."""
    order = {name: n for n, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    if (folder := config.getoption("--record")) is not None:
        tests = functools.cache(lambda figure: _recorded(Path(folder, f"{figure}.json"))["tests"])
        marks = [(item, item.get_closest_marker("counts")) for item in items]
        done = {item for item, mark in marks if mark and tests(mark.args[0]).get(item.nodeid, {}).get("passed")}
        items[:] = [item for item in items if item not in done]
        config.hook.pytest_deselected(items=list(done))


@pytest.fixture(scope="session", autouse=True)
def kernels_compiled_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of processes that test side by side one compiles a kernel, and the others wait for it and load it."""
    if fcntl is None or not hasattr(request.config, "workerinput"):
        yield
        return
    from sparsernn.runtime import compiled, kept

    folder, compile_now = tmp_path_factory.getbasetemp().parent, compiled._compile

    def compile_once(name: str) -> bytes:
        with open(folder / f"{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            code = kept.read(name, compiled._fingerprint())
            if code is None:
                code = compile_now(name)
                kept.write(name, compiled._fingerprint(), code)
            return code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_compile", compile_once)
        yield


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
            cases = dict(item.user_properties).get("cases", mark.args[1])
            note(Path(folder) / f"{mark.args[0]}.json", item.nodeid, cases, passed, time.monotonic() - began)


def _recorded(path: Path) -> dict[str, Any]:
    """The record of a figure; what another commit counted is forgotten."""
    from sparsernn_studies.results import surroundings

    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["commit"] == surroundings()["commit"]:
            return content
    return {"name": path.stem, "tests": {}}


def note(path: Path, test: str, cases: int, passed: bool, seconds: float) -> None:
    """Add a test to the record of its figure."""
    from sparsernn.files import write_atomically
    from sparsernn_studies.results import surroundings

    content = _recorded(path)
    content["tests"][test] = {"cases": cases, "passed": passed, "seconds": round(seconds, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**content, **surroundings()}, indent=1) + "\n")
