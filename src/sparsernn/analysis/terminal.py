"""The report in a terminal: the verdict, a row for each layer, and why the rest can't go."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import words
from .snapshot import Snapshot
from .tables import Count, Layer

_PLAIN_WIDTH = 110  # where there is no terminal: in files and pipes
# Columns that a narrow terminal goes without: below so many columns, which.
_DISPENSABLE = {104: "Share", 92: "Kind", 82: "Bytes", 64: "Constant\ngates", 54: "Not\nzero"}


def render(found: Snapshot, verdict: str, width: int = _PLAIN_WIDTH) -> RenderableType:
    """The report as a rich renderable; every name is shown as it stands, never read as markup."""
    parts: list[RenderableType] = [Text(verdict, style="bold"), Text(""), _layers(found, width)]
    if found.kept:
        parts += [Text(""), _reasons(found)]
    if found.footprint:
        parts += [Text(""), Text.assemble(("In C: ", "bold"), in_c(found.footprint))]
    for note in found.notes:
        parts += [Text(""), Text.assemble(("Note: ", "bold"), note)]
    return Group(*parts)


def in_c(footprint: Mapping[str, Any]) -> str:
    """What `export_c` returned, in a sentence."""
    flash, ram, measured = footprint["flash"], footprint["ram"], footprint["measured"]
    stack = f" and {ram['stack']:,} of stack" if "stack" in ram else ""
    steps = ", ".join(f"{m['instructions']:,} on {name}" for name, m in measured.items() if "instructions" in m)
    return (
        f"{flash['tables']:,} bytes of tables and {flash['code']:,} of code ({flash['code_is']}), "
        f"{ram['state']:,} bytes of state{stack}, {footprint['multiply_adds']:,} multiply-adds a step"
        f"{f'; instructions a step: {steps}' if steps else ''}."
    )


def plain_text(found: Snapshot, verdict: str) -> str:
    """The same without colours, as wide as the terminal."""
    out, terminal = io.StringIO(), Console()
    width = terminal.width if terminal.is_terminal else _PLAIN_WIDTH
    Console(file=out, width=width, no_color=True, highlight=False).print(render(found, verdict, width))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _layers(found: Snapshot, width: int) -> Table:
    now, after, units = found.now, found.compact, found.units
    constant = sum(layer.constant_gates for layer in found.layers)
    footers = {
        "Layer": "All",
        "Kind": "",
        "Units": change(sum(u.size for u in units), sum(u.left for u in units)),
        "Can't\ngo": f"{sum(u.kept for u in units):,}",
        "Constant\ngates": f"{constant:,}",
        "Not\nzero": words.percent(now.density),
        "Mult-adds\na step": change(now.mult_adds, after.mult_adds),
        "Share": "",
        "Bytes": change(now.bytes, after.bytes, words.size),
    }
    left_out = {name for limit, name in _DISPENSABLE.items() if width < limit}
    table = _table(show_footer=True, footer_style="bold")
    for name in (name for name in footers if name not in left_out):
        words_here = name in ("Layer", "Kind")
        table.add_column(
            name,
            footer=footers[name],
            justify="left" if words_here else "right",
            no_wrap=not words_here,
            overflow="fold" if words_here else "ellipsis",
        )
    for layer in found.layers:
        cells = (Text(layer.name), Text(layer.kind), *_unit_cells(layer), *_count_cells(layer, now, after))
        table.add_row(*(cell for name, cell in zip(footers, cells) if name not in left_out))
    return table


def _table(**more: Any) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold", **more
    )


def _unit_cells(layer: Layer) -> tuple[str, str, str]:
    if not layer.units:
        return "", "", ""
    return (
        "\n".join(change(u.size, u.left) for u in layer.units),
        "\n".join(f"{u.kept:,}" for u in layer.units),
        f"{layer.constant_gates:,}" if layer.kinds else "",
    )


def _count_cells(layer: Layer, now: Count, after: Count) -> tuple[str, str, str, str]:
    if not layer.matrices:
        return "", "", "", ""
    a, b = layer.now, layer.compact
    return (
        words.percent(a.density) if a.weights else "",
        change(a.mult_adds, b.mult_adds) if a.mult_adds else "",
        share_change(a.mult_adds, now.mult_adds, b.mult_adds, after.mult_adds) if a.mult_adds else "",
        change(a.bytes, b.bytes, words.size),
    )


def change(before: int, after: int, write: Callable[[float], str] | None = None) -> str:
    """`66.0M → 21.8M`, or one number where nothing changes; numbers below 10,000 in full unless `write` is given."""
    write = write or _number
    return write(before) if before == after else f"{write(before)} → {write(after)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else words.count(value)


def share_change(part: int, whole: int, part_after: int, whole_after: int) -> str:
    """`62% → 48%` of the multiply-adds."""
    before = f"{part / whole:.0%}" if whole else ""
    after = f"{part_after / whole_after:.0%}" if whole_after else ""
    return before if before == after else f"{before} → {after}"


def _reasons(found: Snapshot) -> Table:
    table = _table(title="What can't go, and why", title_justify="left", title_style="bold")
    table.add_column("Units", justify="right")
    for name in ("Of", "Why", "Operation", "Where"):
        table.add_column(name, overflow="fold")
    for kept in found.kept:
        table.add_row(f"{kept.units:,}", *(Text(t) for t in (kept.unit_set, kept.reason, kept.operation, kept.where)))
    return table
