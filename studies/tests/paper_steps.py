"""The recipes at the papers' sizes on any machine: 200 steps of each training, stopped half-way and resumed, recorded.

    python studies/tests/paper_steps.py --record FILE            all, from the start
    python studies/tests/paper_steps.py --record FILE wen-rhn    whose name has one of the words; other rows stay

Each command is sent SIGTERM once its first training is half done, and is given again: it has to go on from the step at
which it stopped, and to come to its table. Needs SPARSERNN_DATA. The figures say what a step costs and that it learns;
as a result, 200 steps are nothing, so they go into the record and not among the results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsernn.files import write_atomically
from sparsernn_studies.results import collect, surroundings

STEPS = 200
# Sizes, batches and windows stay the published ones; what is measured at the end is cut short.
COMMANDS = {
    "wen-ptb": f"rows=iss steps={STEPS} measured_words=2000 device=cpu bench_rounds=3",
    "wen-rhn": f"strengths=0.005 target=0 steps={STEPS} measured_words=2000 device=cpu bench_rounds=3",
    # SQuAD and GloVe are for the reader to get: the subset in their place, and vectors that are trained.
    "wen-bidaf": f"corpus=subset vectors= strengths=0.001 target=0 steps={STEPS} tuned_steps={STEPS} device=cpu "
    "bench_rounds=3",
}
LINE = re.compile(r"^(\S+): step (\d+) of (\d+) +loss (\S+)")


@dataclass
class Seen:
    """What one run of a command showed: (row, step, loss, time) of each line, and how it ended."""

    lines: list[tuple[str, int, float, float]] = field(default_factory=list)
    code: int = 0
    text: str = ""

    def seconds_a_step(self, row: str) -> float | None:
        of_row = [(step, at) for name, step, _, at in self.lines if name == row]
        if len(of_row) < 2:
            return None
        (first, begun), (last, ended) = of_row[0], of_row[-1]
        return (ended - begun) / (last - first)


def watch(command: list[str], stop_at: int | None) -> Seen:
    """Run `command` and read its lines; SIGTERM once its first training has come to `stop_at`."""
    seen, first = Seen(), None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        seen.text += line
        found = LINE.match(line)
        if not found:
            continue
        row, step = found[1], int(found[2])
        first = first or row
        seen.lines.append((row, step, float(found[4]), time.monotonic()))
        if stop_at is not None and row == first and step >= stop_at:
            process.send_signal(signal.SIGTERM)
            stop_at = None
    seen.code = process.wait()
    return seen


def steps_of(name: str, folder: Path) -> dict[str, Any]:
    """What was seen of recipe `name`; raises AssertionError where it did not stop, go on or come to its end."""
    given = f"run {name} --scale paper --set {COMMANDS[name]}"
    command = [sys.executable, "-m", "sparsernn", *shlex.split(given)]
    command += ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    begun = time.monotonic()
    before = watch(command, STEPS // 2)
    assert before.code == 128 + signal.SIGTERM, f"{name} ended with {before.code} after SIGTERM:\n{before.text[-2000:]}"
    row, stopped, _, _ = before.lines[-1]
    after = watch(command, None)
    assert after.code == 0, f"{name} ended with {after.code}:\n{after.text[-2000:]}"
    went_on = [step for name_, step, _, _ in after.lines if name_ == row]
    assert went_on and stopped < went_on[0] and went_on[-1] == STEPS, f"{name}: {stopped}, then {went_on}"
    rows = [r for r in collect(folder / "results") if r.recipe == name]
    every = before.lines + after.lines
    trainings = {}
    for each in dict.fromkeys(line[0] for line in every):
        losses = [loss for name_, _, loss, _ in every if name_ == each]
        pace = after.seconds_a_step(each)
        trainings[each] = {"losses": losses, "seconds_a_step": None if pace is None else round(pace, 2)}
    return {
        "recipe": name,
        "command": f"sparsernn {given}",
        "steps": STEPS,
        "stopped_at": stopped,
        "went_on_with": went_on[0],
        "trainings": trainings,
        "units": {r.row: r.measured.get("units") for r in rows},
        "parameters": {r.row: r.measured.get("parameters") for r in rows},
        "seconds": round(time.monotonic() - begun, 1),
        **surroundings(),
    }


def main(arguments: list[str]) -> int:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python studies/tests/paper_steps.py", description=description)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--record", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    if not os.environ.get("SPARSERNN_DATA"):
        parser.error("set SPARSERNN_DATA to the folder of the data sets")
    content: dict[str, Any] = {"name": "paper steps", "rows": []}
    if chosen.record.exists():
        content = json.loads(chosen.record.read_text(encoding="utf-8"))
    rows = {row["recipe"]: row for row in content["rows"]}
    for name in COMMANDS:
        if chosen.names and not any(word in name for word in chosen.names):
            continue
        with tempfile.TemporaryDirectory(prefix="paper-steps-") as folder:
            rows[name] = steps_of(name, Path(folder))
        content["rows"] = [rows[each] for each in COMMANDS if each in rows]
        chosen.record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(chosen.record, json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
