"""What sparsity is worth in one product: the page and its figure, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies import NOTE, line, svg

from sparsernn._files import write_atomically

PAGE = f"""# What a zero is worth

{NOTE}

Figure 1 of Wen et al. (arXiv 1709.05027) shows what sparsity is worth in one matrix product: single weights hardly
anything, rows and columns that are gone as much as they are. Here it is again, with the layouts that `accelerate`
chooses from. The baseline is torch's dense product of the whole matrix, the faster of `W @ x` and `nn.Linear`; every
curve has the same share of weights, and B inputs at once, as a batch has them in one time step.

- *MKL CSR*: single weights in torch's own sparse product.
- *sparsernn, single weights*: the same matrix (tables of permutes, bit masks or rows, whichever costs least).
- *16x1 blocks*: 16 rows of one column stand or fall together (`level="block"`).
- *int8 16x4 blocks*: 16 rows of four columns, weights and inputs in int8.
- *rows and columns gone*: what `compact` leaves, in torch and on our dense panels.

"""
STYLES = {
    "MKL CSR": ("#999999", "x", "-"),
    "sparsernn, single weights": ("#1f77b4", "o", "-"),
    "sparsernn, 16x1 blocks": ("#d62728", "s", "-"),
    "sparsernn, int8 16x4 blocks": ("#9467bd", "D", "-"),
    "torch, rows and columns gone": ("#999999", "^", "--"),
    "sparsernn, rows and columns gone": ("#2ca02c", "^", "-"),
}
TABLE_AT = (0.8, 0.9, 0.95)


def figure1_page(results: Path, target: Path) -> None:
    """Write docs/figure1.md and docs/figures/figure1.svg; nothing without its results."""
    path = results / "benchmarks" / "figure1.json"
    if not path.exists():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = content["rows"]
    svg(_figure(rows), target / "figures" / "figure1.svg")
    versions, device = content["versions"], content["device"]
    where = f"{device}, torch {versions['torch']}, one thread, {content['date']}"
    source = f"Again: `python -m benchmarks figure1`; {where}."
    caption = "![Speed-up over torch's dense product against sparsity](figures/figure1.svg)"
    parts = [PAGE + source, "", caption, ""]
    for shape in _shapes(rows):
        parts += [f"## {shape[0]} x {shape[1]}", "", *_table([r for r in rows if tuple(r["shape"]) == shape]), ""]
    write_atomically(target / "figure1.md", "\n".join(parts))


def _shapes(rows: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(r["shape"]) for r in rows))


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Speed-ups at some sparsities, a line for each engine."""
    batches = sorted({r["batch"] for r in rows})
    found = {(r["engine"], r["batch"], r["sparsity"]): r for r in rows}
    columns = [(b, s) for b in batches for s in TABLE_AT if any(key[1:] == (b, s) for key in found)]
    lines = [line(["", *(f"B{b} {100 * s:.0f}%" for b, s in columns)]), line(["---", *["---:"] * len(columns)])]
    for engine in dict.fromkeys(r["engine"] for r in rows):
        lines.append(line([engine, *(f"{found[engine, b, s]['ratio']:.3g}x" for b, s in columns)]))
    exact, small = (max(r["max_error"] for r in rows if ("int8" in r["engine"]) == int8) for int8 in (False, True))
    return [*lines, "", f"Largest error against float64: {exact:.1e}, in int8 {small:.1e}."]


def _figure(rows: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    shapes, batches = _shapes(rows), sorted({r["batch"] for r in rows})
    figure = Figure(figsize=(4 * len(batches), 3.6 * len(shapes)), layout="constrained")
    axes = figure.subplots(len(shapes), len(batches), sharex=True, sharey="row", squeeze=False)
    for own, shape in zip(axes, shapes):
        for axis, batch in zip(own, batches):
            here = [r for r in rows if tuple(r["shape"]) == shape and r["batch"] == batch]
            for engine in dict.fromkeys(r["engine"] for r in here):
                points = [(100 * r["sparsity"], r["ratio"]) for r in here if r["engine"] == engine]
                color, marker, style = STYLES.get(engine, ("#000000", ".", ":"))
                axis.plot(*zip(*points), style, color=color, marker=marker, markersize=4, label=engine)
            axis.axhline(1, color="#cccccc", linewidth=1, zorder=0)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
            axis.set_title(f"{shape[0]} x {shape[1]}, B = {batch}", fontsize=10)
            axis.grid(alpha=0.3)
            if shape == shapes[-1]:
                axis.set_xlabel("sparsity, %")
            if batch == batches[0]:
                axis.set_ylabel("speed-up over torch dense")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure
