"""Tables of the HTML report: columns, how a heading is worded, and how a value is written by the name of its column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import words
from .extras import is_number


@dataclass(frozen=True)
class Column:
    label: str
    numeric: bool = False


def table(columns: Iterable[Column | str], rows: list[list[Any]], caption: str, **more: Any) -> dict[str, Any]:
    named = [Column(c) if isinstance(c, str) else c for c in columns]
    return {"columns": named, "rows": rows, "caption": caption, "footer": None, **more}


def numbers(*labels: str) -> list[Column]:
    return [Column(label, numeric=True) for label in labels]


def free_table(rows: Sequence[Mapping[str, Any]], caption: str) -> dict[str, Any]:
    """A table of rows whose names are not known beforehand; a column of numbers stands right."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    numeric = {n: all(is_number(row[n]) or row[n] is None for row in rows if n in row) for n in names}
    columns = [Column(label(name), numeric[name]) for name in names]
    return table(columns, [[show(name, row.get(name)) for name in names] for row in rows], caption)


_LABELS = {
    "max_error": "Largest error",
    "mult_adds": "Multiply-adds",
    "ms": "ms",
    "milliseconds": "ms",
    "name": "Model",
    "file_bytes": "File",
    "f1": "F1",
    "p50": "p50, ms",
    "p99": "p99, ms",
}


def label(name: str) -> str:
    """A column's heading: `test_perplexity` -> Test perplexity, `ms_fast` -> ms, fast."""
    if name in _LABELS:
        return _LABELS[name]
    first, _, rest = name.partition("_")
    text = f"ms, {rest}" if first == "ms" else f"{first}_{rest}" if rest else first
    text = text.replace("_", " ").replace("bpc", "bits per character")
    return text if first == "ms" else text[:1].upper() + text[1:]


def show(name: str, value: Any) -> str:
    """A value as a table shows it, by the name of its column."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(name, v) for v in value)
    if not is_number(value):
        return str(value)
    if name in ("ratio", "compression", "target") or name.startswith("speedup"):
        return words.times(value)
    if "accuracy" in name or name in ("density", "share", "roofline") or name.startswith("spread"):
        return words.percent(value) if 0 <= value <= 1 else words.figure(value)
    if "bytes" in name or name in ("file_size", "memory"):
        return words.size(value)
    if "error" in name:
        return f"{value:.1e}" if value else "0"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}" if abs(value) < 100_000 else words.count(value)
    return words.figure(value, 4) if abs(value) < 100_000 else words.count(value)
