"""The thirteen figures of trust: what each promises, and what of it is on record in results/checks/."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`promised` cases of what `says`, recorded in `name`.json by `command`."""

    name: str
    says: str
    promised: int
    command: str


def _pytest(where: str) -> str:
    return f"python -m pytest {where} -m 'nightly or counts' --record results/checks"


def _script(what: str) -> str:
    return f"python tests/{what} --record FILE"


FIGURES = (
    Figure("compositions", "composed models keep their function to 1e-10", 10_000, _script("compositions.py")),
    Figure(
        "untraceable",
        "models whose Python looks at units keep theirs",
        2_000,
        _script("compositions.py --of untraceable"),
    ),
    Figure("planted_bugs", "planted bugs are caught", 25, _script("planted_bugs.py")),
    Figure(
        "kill_9",
        "kills by SIGKILL, after which a training ends with the same bits",
        200,
        _pytest("studies/tests/test_training.py"),
    ),
    Figure(
        "malformed_files",
        "damaged and forged files are refused, or load the same model",
        5_000,
        _pytest("tests/test_checkpoint_damage.py tests/test_checkpoint_coded_damage.py"),
    ),
    Figure(
        "faults_of_writes",
        "full disks, I/O errors, Ctrl-C, SIGTERM and SIGKILL at 50 instants of each kind of write: a whole file stays",
        1_000,
        _pytest("tests/test_files_faults.py"),
    ),
    Figure(
        "killed_sweeps",
        "kills of workers, drivers and whole sweeps, which end as one left alone",
        25,
        _pytest("studies/tests/test_sweep.py"),
    ),
    Figure(
        "kernels",
        "calls of kernels by random models agree with torch, canaries round every buffer",
        1_000_000,
        _pytest("tests/test_runtime_fuzz.py"),
    ),
    Figure(
        "int8_bound",
        "inputs on which int8 stays inside the printed bound",
        10_000,
        _pytest("tests/test_runtime_bounds.py"),
    ),
    Figure("cells", "drawn cases of the table of cells", 240, _pytest("tests/contracts/test_grid.py")),
    Figure(
        "misuses",
        "misuses, and what can't be done, get a sentence",
        150,
        "python -m pytest tests studies/tests -m 'counts and not nightly' --record results/checks",
    ),
    Figure(
        "golden_files",
        "golden files of every format load",
        1,
        _pytest("tests/test_checkpoint.py tests/test_checkpoint_coded.py"),
    ),
    Figure(
        "no_network_no_pickle",
        "a whole session opens no connection and unpickles nothing",
        1,
        _pytest("tests/test_no_network.py"),
    ),
    Figure("repeats", "runs of the whole suite without a red", 50, _script("repeats.py")),
)


def thirteen(folder: Path) -> str:
    lines = [
        "## What is promised, and what is on record",
        "",
        "| what | promised | on record | of these wrong | when, at | again |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for figure in FIGURES:
        path = folder / f"{figure.name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        cases, wrong = (0, 0) if found is None else _counted(found)
        when = "-" if found is None else f"{found['date']}, {found['commit'][:7]}"
        owed = f" ({figure.promised - cases:,} to come)" if cases < figure.promised else ""
        lines.append(
            f"| {figure.says} | {figure.promised:,} | {cases:,}{owed} | {wrong} | {when} | `{figure.command}` |"
        )
    return "\n".join([*lines, ""])


def _counted(content: dict[str, Any]) -> tuple[int, int]:
    """Cases on record, and how many of them went wrong; of tests, those that did not pass."""
    if "tests" in content:
        tests = content["tests"].values()
        return sum(t["cases"] for t in tests), sum(not t["passed"] for t in tests)
    if "rows" in content:
        return len(content["rows"]), sum(not row["caught"] for row in content["rows"])
    return content["cases"], len(content["mismatches"])
