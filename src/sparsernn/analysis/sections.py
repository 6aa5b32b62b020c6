"""The sections of the HTML report, each from its data to tables, bars and figures; None where there is no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import words
from .columns import Column, free_table, label, numbers, show, table
from .extras import Extras
from .gates import KINDS
from .tables import Layer
from .terminal import change

if TYPE_CHECKING:
    from .snapshot import Snapshot

Draw = Callable[..., dict[str, Any]]  # (figure, description, *, wide=False) -> what the template shows

_LARGE = 6  # recurrent layers; more of them share the page in smaller images


def _section(title: str, text: str = "", **parts: Any) -> dict[str, Any]:
    empty = {"tables": [], "figures": [], "bars": [], "details": []}
    return {"title": title, "text": text, **empty, **parts}


def quality(extras: Extras, draw: Draw) -> dict[str, Any] | None:
    if not extras.runs:
        return None
    from .charts import quality_figures

    metrics = [
        metric
        for metric in dict.fromkeys(m for row in extras.runs for part in ("measured", "paper") for m in row[part])
        if not _belongs_to_a_time(metric, extras.runs)
    ]
    rows = [[str(row["number"]), row["row"], *(_measured_cell(row, m) for m in metrics)] for row in extras.runs]
    seeds = max(row["seeds"] for row in extras.runs)
    text = f"Means of up to {seeds} seeds, ± one standard deviation." if seeds > 1 else ""
    columns = [*numbers("#"), Column("Row"), *numbers(*(label(m) for m in metrics))]
    figures = [draw(figure, description) for figure, description in quality_figures(extras.runs)]
    return _section("Quality against size and speed", text, tables=[table(columns, rows, "Runs")], figures=figures)


def _belongs_to_a_time(metric: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    """`speedup_batch` and `spread_batch` are shown under `ms_batch`."""
    first, _, rest = metric.partition("_")
    return first in ("speedup", "spread") and bool(rest) and any(f"ms_{rest}" in row["measured"] for row in runs)


def _measured_cell(row: Mapping[str, Any], metric: str) -> dict[str, str]:
    measured, notes = row["measured"], []
    value = show(metric, measured[metric]) if metric in measured else "" if metric in row["paper"] else "–"
    if metric in row["spread"]:
        value += f" ± {show(metric, row['spread'][metric])}"
    if metric.startswith("ms_"):
        notes = [show(name, measured[name]) for name in (f"speedup_{metric[3:]}",) if name in measured]
        notes += [f"spread {show(name, measured[name])}" for name in (f"spread_{metric[3:]}",) if name in measured]
    if metric in row["paper"]:
        notes.append(f"paper {show(metric, row['paper'][metric])}")
    return {"value": value, "note": ", ".join(notes)}


def further(extras: Extras, draw: Draw) -> dict[str, Any] | None:
    if not extras.figures:
        return None
    return _section("Figures", figures=[draw(drawn, description, wide=True) for drawn, description in extras.figures])


def layers(found: Snapshot, extras: Extras) -> dict[str, Any]:
    now, after = found.now, found.compact
    times = extras.layer_times
    before_ms, after_ms = (sum(t.get(key, 0.0) for t in times.values()) for key in ("before", "after"))
    columns = [Column("Layer"), *numbers("Units", "Can't go", "Constant gates", "Weights", "Not zero", "Bytes")]
    columns += numbers("ms") if times else []
    columns += [Column("Share of time" if times else "Share of multiply-adds")]
    rows = []
    for layer in found.layers:
        a, b = layer.now, layer.compact
        if times:
            t = times.get(layer.name, {})
            shares = [
                t[k] / total if k in t and total else None for k, total in (("before", before_ms), ("after", after_ms))
            ]
        else:
            shares = [a.mult_adds / now.mult_adds, b.mult_adds / after.mult_adds] if a.mult_adds else [None, None]
        rows.append(
            [
                {"value": layer.name, "note": layer.kind if layer.kind != layer.name else ""},
                ", ".join(change(u.size, u.left) for u in layer.units),
                ", ".join(f"{u.kept:,}" for u in layer.units),
                f"{layer.constant_gates:,}" if layer.kinds else "",
                change(a.weights, b.weights),
                words.percent(a.density) if a.weights else "",
                change(a.bytes, b.bytes, words.size),
                *([_milliseconds(times.get(layer.name, {}))] if times else []),
                {"shares": shares},
            ]
        )
    return _section(
        "Layers",
        _dominating(found.layers, extras, after_ms),
        tables=[table(columns, rows, "Layers, now and after compaction")],
        details=[_details(found.layers)],
    )


def _milliseconds(times: Mapping[str, float]) -> str:
    return " → ".join(words.figure(times[key]) for key in ("before", "after") if key in times)


def _dominating(layers: Sequence[Layer], extras: Extras, after_ms: float) -> str:
    """Which layer the next gain has to come from, by time where it was measured, else by multiply-adds."""
    if after_ms:
        name, times = max(extras.layer_times.items(), key=lambda item: item[1].get("after", 0.0))
        share, of = times.get("after", 0.0) / after_ms, "time"
    else:
        total = sum(layer.compact.mult_adds for layer in layers)
        if not total:
            return ""
        largest = max(layers, key=lambda layer: layer.compact.mult_adds)
        name, share, of = largest.name, largest.compact.mult_adds / total, "multiply-adds"
    return f"After compaction {name} takes {share:.0%} of the {of}: a further gain has to come from there first."


def _details(layers: Sequence[Layer]) -> dict[str, Any]:
    columns = [Column("Matrix"), Column("Gate")]
    columns += numbers("Shape", "Weights", "Not zero", "Constant", "Multiply-adds", "Bytes")
    rows = []
    for m in (matrix for layer in layers for matrix in layer.matrices):
        weights = m.now.weights > 0
        rows.append(
            [
                m.parameter,
                "",
                " × ".join(map(str, m.shape)) or "1",
                change(m.now.weights, m.compact.weights) if weights else "",
                words.percent(m.now.density) if weights else "",
                "",
                change(m.now.mult_adds, m.compact.mult_adds) if m.now.mult_adds else "",
                change(m.now.bytes, m.compact.bytes, words.size),
            ]
        )
        for gate in m.gates:
            density = words.percent(gate.nonzero / gate.weights) if gate.weights else ""
            rows.append(["", gate.gate, "", f"{gate.weights:,}", density, f"{gate.constant:,}", "", ""])
    unread = [f"{words.plural(x.unused_inputs, 'input')} of {x.name}" for x in layers if x.unused_inputs]
    return {
        "summary": "Every matrix and gate",
        "text": f"No weight reads {words.listing(unread)}." if unread else "",
        "table": table(columns, rows, "Every matrix and gate"),
    }


def weights(found: Snapshot, draw: Draw) -> dict[str, Any] | None:
    from .plots import groups_figure, weights_figure

    if not found.units:
        return None
    pixels = 900 if len(found.recurrent) <= _LARGE else 450
    figures = [
        draw(
            weights_figure(found, sort=True, only=layer.name, most_pixels=pixels),
            f"{layer.name}: columns are units gate by gate, sorted, rows are inputs and hidden units. "
            "Coloured: weights that are not zero. Marks on top: dead units.",
            wide=True,
        )
        for layer in found.recurrent
    ]
    norms = [
        draw(groups_figure(found, only=name), f"{name}: norms of the units' groups of weights.")
        for name, values in found.group_norms.items()
        if len(values)
    ]
    return _section(
        "Weights and units",
        "A unit that is gone leaves with compaction. A unit in use may go once all that reads it is zero."
        + (" Why others can't go is listed below." if found.kept else ""),
        bars=[
            {
                "name": u.name,
                "parts": [
                    {"name": name, "number": number, "share": number / max(1, u.size), "colour": colour}
                    for name, number, colour in (
                        ("in use", u.free, "accent"),
                        ("can't go", u.kept, "fourth"),
                        ("gone", u.dead, "pale"),
                    )
                    if number
                ],
            }
            for u in found.units
        ],
        figures=figures + norms,
    )


def kinds(found: Snapshot, extras: Extras, draw: Draw) -> dict[str, Any] | None:
    from .plots import gates_figure, lag_figure

    if not found.recurrent:
        return None
    seen = [kind for kind in KINDS if any(kind in layer.kinds for layer in found.layers)]
    figures = [
        draw(
            gates_figure(found, only=layer.name),
            f"{layer.name}: which gates ({', '.join(layer.gates)}) of which units are alive; the others are constants.",
            wide=True,
        )
        for layer in found.recurrent
    ]
    notes = []
    for name, values in extras.gradient_lag.items():
        if "kinds" in values:
            description = f"{name}: norm of the gradient of h_t with respect to the input at each lag, by kind of unit."
            figures.append(draw(lag_figure(extras.gradient_lag, only=name), description))
        else:
            notes.append(f"No gradient over lag for {name}: {values['skipped']}.")
    rows = [
        [layer.name, *(_kind_cell(layer, kind, extras.gradient_lag.get(layer.name, {})) for kind in seen)]
        for layer in found.layers
        if layer.kinds
    ]
    units = table([Column("Layer"), *numbers(*(kind.capitalize() for kind in seen))], rows, "Units by kind")
    text = " ".join(_MEANINGS[kind] for kind in seen if kind in _MEANINGS)
    return _section("Kinds of cells", text, tables=[units], figures=figures, notes=notes)


_MEANINGS = {
    "full": "Full: every gate is alive.",
    "partial": "Partial: some gates are constants.",
    "leaky": "Leaky: what is added and what is forgotten is fixed.",
    "vanilla": "Vanilla: only the output gate is alive.",
    "constant": "Constant: no input moves the unit.",
    "dead": "Dead: nothing reads the unit.",
}


def _kind_cell(layer: Layer, kind: str, lag: Mapping[str, Any]) -> dict[str, str]:
    number = layer.kinds.get(kind, 0)
    known = lag.get("kinds", {}).get(kind)
    return {"value": f"{number:,}" if number else "–", "note": f"mean lag {known['mean_lag']:.1f}" if known else ""}


def training(extras: Extras, draw: Draw) -> dict[str, Any] | None:
    if not extras.history or set(extras.history) == {"step"}:
        return None
    from .charts import history_figure

    names = [name.replace("_", " ") for name in extras.history if name != "step"]
    return _section(
        "Training",
        figures=[draw(history_figure(extras.history), f"{words.listing(names).capitalize()} over steps.", wide=True)],
    )


def reasons(found: Snapshot) -> dict[str, Any] | None:
    if not found.kept and not found.notes:
        return None
    columns = [*numbers("Units"), *map(Column, ("Of", "Why", "Operation", "Where"))]
    rows = [[f"{k.units:,}", k.unit_set, k.reason, k.operation, k.where] for k in found.kept]
    tables = [table(columns, rows, "What can't go, and why")] if rows else []
    return _section("What can't go, and why", tables=tables, notes=list(found.notes))


def times(extras: Extras) -> dict[str, Any] | None:
    if not extras.benchmark:
        return None
    return _section("Times", tables=[free_table(extras.benchmark, "Times")])


def checks(extras: Extras) -> dict[str, Any] | None:
    if not extras.checks:
        return None
    return _section("Checks", tables=[free_table(extras.checks, "Checks")])
