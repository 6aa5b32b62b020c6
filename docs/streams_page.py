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


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
