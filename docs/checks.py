"""What was run against tracing, surgery, streams and C: the page made of results/checks/ by docs/generate.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thirteen import thirteen

from sparsernn.files import write_atomically

INTRODUCTION = """# How it is checked

After this page you know what the tests promise beyond their daily run, and how much of that is on record.

Made by `python docs/generate.py` from `results/checks/`; do not edit.

`tests/contracts/` holds architectures written as users write them, each with the readers that have to be found.
Further checks take too long for every run of the tests, and are recorded here, and so are the first steps of the
recipes at the papers' sizes.
"""
COMPOSITIONS = """## Composed models

Recurrent layers and glue, drawn at random; each model keeps a ledger of its own of what reads each of its units. The
readers that `trace` finds have to be those of the ledger, and after `compact` the function has to be the same within
1e-10 in float64, on other batch sizes and lengths too, whichever units are dead."""
UNTRACEABLE = """## Code that can't be followed

Models whose Python code looks at units (branches on values, `.item()`, `.tolist()`, numpy, step functions), at one
place, at several, or at all; half of the units that may go are dead. After `compact` the function has to be the same
within 1e-8 in float64 on 38 other inputs, or a sentence says that no example reached the branch."""

PROGRAMS = """## Streamed models

Causal models drawn at random: convolutions with dilations and strides, norms, cells, loops, shifts, residuals, gates.
Each is run step by step, twice: in float64 within 1e-10 of its whole call, and compiled within four times what float32
costs torch, or 1e-5."""

IN_C = """## Step programs in C

Programs drawn at random, operation by operation: products with zeros of many patterns, recurrent layers, norms,
windows, clocks; half of them in int8, half of these with fixed scales. Compiled here, by turns with and without vectors
and optimisation, each has to give the bits of its reference, which has to agree with the program in float64."""

PLANTED = """## Planted bugs

A test suite is worth what it catches. Each line is a mistake that is easy to make, planted in the source alone; the
tests that are named for it pass without it, and the one shown fails with it."""
ELSEWHERE = """## Other machines, other Pythons

Tests of kernels, contracts, files, streams and C on other processors, with narrower vectors, and in other Pythons.
aarch64 is emulated: NEON kernels really run, but times would mean nothing. "1 in 12" is every twelfth test.

| machine | floats in a vector | Python, torch | tests | passed | failed | skipped | when, at | again |
| --- | ---: | --- | ---: | ---: | ---: | ---: | --- | --- |"""
PAPER_STEPS = """## The papers' sizes, 200 steps

The recipes at paper scale want a GPU and hours. What can be shown anywhere: each command trains for 200 steps, is
stopped half-way by SIGTERM, goes on from there when it is given again, and comes to its table. Loss is that of a batch,
in nats a word or a question, in the first and the last line that a training shows. Seconds are
by the clock, whatever else ran meanwhile: upper bounds."""


def checks_page(results: Path, target: Path) -> None:
    """Write docs/checks.md from what is recorded; nothing without records."""
    folder = results / "checks"
    parts = [INTRODUCTION, thirteen(folder)]
    sections = (
        ("compositions", _compositions),
        ("untraceable", _untraceable),
        ("programs", _programs),
        ("export_c", _in_c),
        ("planted_bugs", _planted),
        ("paper_steps", _paper_steps),
    )
    for name, section in sections:
        if (folder / f"{name}.json").exists():
            parts.append(section(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
    others = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("elsewhere-*.json"))]
    if others:
        parts.append("\n".join([ELSEWHERE, *map(_elsewhere, others), ""]))
    if len(parts) > 2:
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


def _untraceable(content: dict[str, Any]) -> str:
    again = f"python tests/compositions.py --of untraceable --cases {content['cases']} --record FILE"
    count = f"{content['cases']:,} models, {len(content['mismatches'])} of which compute another function."
    return "\n".join([UNTRACEABLE, "", count, "", f"Again: `{again}`; {_where(content)}.", ""])


def _programs(content: dict[str, Any]) -> str:
    again = f"python tests/compositions.py --of programs --cases {content['cases']} --record FILE"
    count = f"{content['cases']:,} models, {len(content['mismatches'])} of which differ."
    return "\n".join([PROGRAMS, "", count, "", f"Again: `{again}`; {_where(content)}.", ""])


def _in_c(content: dict[str, Any]) -> str:
    again = f"python tests/compositions.py --of c --cases {content['cases']} --record FILE"
    count = f"{content['cases']:,} programs, {len(content['mismatches'])} of which differ."
    return "\n".join([IN_C, "", count, "", f"Again: `{again}`; {_where(content)}.", ""])


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


def _elsewhere(content: dict[str, Any]) -> str:
    files, versions, share = content["files"], content["versions"], content["share"]
    passed, failed, skipped = (sum(file[of] for file in files.values()) for of in ("passed", "failed", "skipped"))
    debian = {"3.13": "trixie", "3.14": "sid"}.get(versions["python"].rpartition(".")[0])
    again = f"SPARSERNN_VECTOR_WIDTH={content['width']} python tests/elsewhere.py --record FOLDER"
    if content["machine"] == "aarch64":
        again = "sudo tools/aarch64.sh FOLDER"
    elif debian:
        again = f"sudo tools/python.sh FOLDER {debian}"
    again += f" --share {share}" if share > 1 else ""
    of = "all" if share == 1 else f"1 in {share}"
    cells = [content["machine"], content["width"], f"{versions['python']}, {versions['torch']}"]
    cells += [f"{of} of {len(files)} files", f"{passed:,}", failed, skipped]
    return f"| {' | '.join(map(str, cells))} | {content['date']}, {content['commit'][:7]} | `{again}` |"


def _paper_steps(content: dict[str, Any]) -> str:
    parts = [PAPER_STEPS, ""]
    titles = ("training", "loss", "seconds a step", "units after 200 steps", "parameters")
    for row in content["rows"]:
        again = "Again: `python studies/tests/paper_steps.py --record FILE`"
        parts += [
            f"`{row['command']}`: stopped at step {row['stopped_at']}, next seen at {row['went_on_with']}. {again};"
        ]
        parts += [f"{_where(row)}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}.", ""]
        parts += ["| " + " | ".join(titles) + " |", "| --- | ---: | ---: | ---: | ---: |"]
        for name, training in row["trainings"].items():
            losses, pace = training["losses"], training["seconds_a_step"]
            units, parameters = row["units"].get(name), row["parameters"].get(name)
            cells = (
                name,
                f"{losses[0]:.2f} → {losses[-1]:.2f}",
                "" if pace is None else f"{pace:.1f}",
                ", ".join(map(str, units)) if units else "",
                f"{parameters / 1e6:.1f}M" if parameters else "",
            )
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _where(content: dict[str, Any]) -> str:
    versions = content["versions"]
    commits = dict.fromkeys(row.get("commit") for row in content.get("rows", [content]))
    known = [commit[:7] for commit in commits if commit]
    at = f", commit {', '.join(known)}" if known else ""
    return f"{content['device']}, torch {versions['torch']}, {content['date']}{at}"
