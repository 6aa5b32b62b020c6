"""Tables on the terminal and in Markdown, from the same columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from .results import Result


@dataclass(frozen=True)
class Column:
    """One column: its title and how a row's figures become its text; a figure that is missing gives "-"."""

    title: str
    text: Callable[[Mapping[str, Any]], str]

    def cell(self, measured: Mapping[str, Any]) -> str:
        try:
            return self.text(measured)
        except (KeyError, TypeError):
            return "-"


def figure(title: str, metric: str, form: str = "{}") -> Column:
    """The column of one metric, written with the format `form`; lists are joined by commas."""

    def text(measured: Mapping[str, Any]) -> str:
        value = measured[metric]
        return ", ".join(form.format(v) for v in value) if isinstance(value, (list, tuple)) else form.format(value)

    return Column(title, text)


def rich_table(title: str, columns: Sequence[Column], rows: Mapping[str, Result], caption: str = "") -> Table:
    """The table of `rows`: label -> result."""
    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right")
    for label, result in rows.items():
        table.add_row(label, *(column.cell(result.measured) for column in columns))
    return table


def file_size(count: int) -> str:
    """Bytes for people: 693 kB, 2.8 MB."""
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"
