"""The generated part of the page on steps, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path


def packages_section(results: Path) -> str:
    """The table of the page on steps: models of packages, each with its licence, equality, times and ratios."""
    path = results / "benchmarks" / "real_models.json"
    if not path.exists():
        return "`python -m benchmarks.real_models` measures and prints the table.\n"
    content = json.loads(path.read_text(encoding="utf-8"))
    titles = [
        "model",
        "package, licence",
        "parameters",
        "off by",
        "p50, us",
        "p99, us",
        "grown",
        "onnxruntime",
        "torch",
    ]
    lines = [_line([*titles, "its own"]), _line(["---", "---", *["---:"] * 8])]
    for row in content["streams"]:
        ratios = {r["against"]: r["ratio"] for r in content["rows"] if r["work"].startswith(f"{row['work']}, ")}
        own = [f"{ratio:.1f}x ({name.partition(': ')[2]})" for name, ratio in ratios.items() if ": " in name]
        first = next(name for name in row["from"] if name not in ("onnxruntime", "torch"))
        cells = [
            row["work"],
            f"{row['package']}, {row['licence']}",
            f"{row['parameters']:,}",
            f"{row['from'][first]:.0e}",
        ]
        cells += [f"{row[key]:.1f}" for key in ("p50, us", "p99, us")]
        cells += [f"{row['resident bytes grown']} B", *(f"{ratios[name]:.1f}x" for name in ("onnxruntime", "torch"))]
        lines.append(_line([*cells, ", ".join(own) or "-"]))
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("torch", "onnxruntime"))
    clock = "wall clock" if content["clock"] == "perf_counter" else "the thread's own time"
    return "\n".join([*lines, "", f"{content['device']}, {versions}, {clock}, {content['date']}.", ""])


RULES = {
    "0": "0",
    "labels": "1% other labels in validation",
    "cross entropy": "1% more cross entropy in validation",
}


def delta_section(results: Path) -> str:
    """The tables of delta streams on spoken digits: as recorded, and in pauses; and what a running sum drifts."""
    path = results / "benchmarks" / "delta.json"
    if not path.exists():
        return "`python -m benchmarks.delta` measures and prints the tables.\n"
    content = json.loads(path.read_text(encoding="utf-8"))
    titles = ["net", "sounds", "thresholds", "columns", "bytes a step", "fewer", "step, us", "faster", "accuracy",
              "same labels"]  # fmt: skip
    lines = [_line(titles), _line(["---", "---", "---", *["---:"] * 7])]
    for row in content["rows"]:
        cells = [row["work"], row["sounds"], RULES[row["thresholds"]], f"{row['columns']:.0%}"]
        cells += [f"{row['plain_bytes'] / 1000:.0f} → {row['bytes'] / 1000:.0f} kB", f"{row['fewer_bytes']:.1f}x"]
        cells += [f"{row['plain_us_step']:.1f} → {row['us_step']:.1f}", f"{row['faster']:.2f}x"]
        cells += [f"{row['plain_accuracy']:.1%} → {row['accuracy']:.1%}"]
        lines.append(_line([*cells, f"{row['same_labels']} of {row['recordings']}"]))
    anew, never = sorted(content["drift"], key=lambda row: row["made_anew_every"] is None)
    drift = (
        f"A running sum of 128 units whose columns all move in each of {anew['steps']:,} steps was off by at most "
        f"{anew['relative_error']:.0e} of the largest sum; never made anew it would have been "
        f"{never['relative_error']:.0e}."
    )
    where = f"{content['device']}, torch {content['versions']['torch']}, one thread, {content['date']}"
    clock = "wall clock" if content["clock"] == "perf_counter" else "the thread's own time"
    again = f"Again: `python -m benchmarks.delta`; seed {content['seed']}, {where}, {clock}."
    return "\n".join([*lines, "", drift, "", again, ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
