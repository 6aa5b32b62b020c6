"""The generated part of the page on devices, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def digits_table(results: Path) -> str:
    """Spoken digits on a Cortex-M4: a line for each net."""
    path = results / "benchmarks" / "digits_m4.json"
    if not path.exists():
        return "`python -m benchmarks.digits_m4` measures and prints the table.\n"
    content = json.loads(path.read_text(encoding="utf-8"))
    titles = ("net", "flash", "RAM", "stack of it", "multiply-adds", "instructions a step", "labels of our stream",
              "bits of x86-64", "accuracy")  # fmt: skip
    lines = [_line(titles), _line(["---", *["---:"] * 8])]
    dense = next((row for row in content["rows"] if row["work"] == "dense"), None)
    most = max(row["recordings"] for row in content["rows"])
    lines += [_line(_cells(row, dense, row["recordings"] == most)) for row in content["rows"]]
    return "\n".join(
        [*lines, "", f"torch {content['versions']['torch']} on {content['device']}, {content['date']}.", ""]
    )


def _cells(row: dict[str, Any], dense: dict[str, Any] | None, whole: bool) -> list[str]:
    """whole: whether it heard as many recordings as any; the accuracy on some of the test speaker's tells little."""
    of = f" of {row['recordings']:,}"
    share = "" if row is dense or dense is None else f" ({row['instructions'] / dense['instructions']:.2f})"
    return [
        row["work"],
        f"{row['flash'] / 1000:.1f} kB",
        f"{row['ram']:,} B",
        f"{row['stack']} B",
        f"{row['multiply_adds']:,}",
        f"{row['instructions']:,}{share}",
        f"{row['labels_of_stream']:,}{of}",
        f"{row['bits_of_here']:,}{of}",
        f"{row['test_accuracy']:.1%}" if whole else "-",
    ]


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
