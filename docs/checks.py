"""What was run against tracing and surgery: the page, made from results/checks/ by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsernn._files import write_atomically

INTRODUCTION = """# How it is checked

Made by `python docs/generate.py` from `results/checks/`; do not edit.

`tests/contracts/` holds architectures written as users write them, each with the readers that have to be found; two
further checks take too long for every run of the tests, and are recorded here.
"""
COMPOSITIONS = """## Composed models

Recurrent layers and glue, drawn at random; each model keeps a ledger of its own of what reads each of its units. The
readers that `trace` finds have to be those of the ledger, and after `compact` the function has to be the same within
1e-10 in float64, on other batch sizes and lengths too, whichever units are dead."""
PLANTED = """## Planted bugs

A test suite is worth what it catches. Each line is a mistake that is easy to make, planted in the source alone; the
tests that are named for it pass without it, and the one shown fails with it."""


def checks_page(results: Path, target: Path) -> None:
    """Write docs/checks.md from what is recorded; nothing without records."""
    folder = results / "checks"
    parts = [INTRODUCTION]
    for name, section in (("compositions", _compositions), ("planted_bugs", _planted)):
        if (folder / f"{name}.json").exists():
            parts.append(section(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
    if len(parts) > 1:
        write_atomically(target / "checks.md", "\n".join(parts))


def _compositions(content: dict[str, Any]) -> str:
    found = content["mismatches"]
    mended = "; each is mended, and its seed a test of its own" if found else ""
    return "\n".join(
        [
            COMPOSITIONS,
            "",
            f"{content['cases']:,} models: {len(found)} {'mismatch' if len(found) == 1 else 'mismatches'}{mended}.",
            "",
            f"Again: `python tests/compositions.py --cases {content['cases']} --record FILE`; {_where(content)}.",
            "",
        ]
    )


def _planted(content: dict[str, Any]) -> str:
    rows = content["rows"]
    lines = ["| file | bug | caught by |", "| --- | --- | --- |"]
    for row in rows:
        test = f"`{row['test']}`" if row["caught"] else "**missed**"
        lines.append(f"| {row['file']} | {row['bug']} | {test} |".replace("||", "\\|\\|"))
    caught = sum(row["caught"] for row in rows)
    left = f", {content['planned'] - len(rows)} not run" if content["planned"] > len(rows) else ""
    again = f"Again: `python tests/planted_bugs.py --record FILE`; {_where(content)}."
    note = f"{caught} of {len(rows)} caught{left}. {again}"
    return "\n".join([PLANTED, "", note, "", *lines, ""])


def _where(content: dict[str, Any]) -> str:
    versions = content["versions"]
    commits = dict.fromkeys(row.get("commit") for row in content.get("rows", [content]))
    known = [commit[:7] for commit in commits if commit]
    at = f", commit {', '.join(known)}" if known else ""
    return f"{content['device']}, torch {versions['torch']}, {content['date']}{at}"
