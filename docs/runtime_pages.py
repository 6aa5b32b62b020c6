"""The pages on speed and on what sparsity is worth in one product, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies import NOTE, line, svg

from sparsernn.files import write_atomically

PAGE = f"""# What sparsity brings in one product

After this page you know how much faster one matrix product becomes when single weights, blocks, or rows and columns of
the matrix are gone.

{NOTE}

Figure 1 of Wen et al. (arXiv 1709.05027) shows how much time sparsity saves in one matrix product: single weights
hardly any, rows and columns that are gone as much as their share. Here it is again, with the layouts that `accelerate`
chooses from. The baseline is torch's dense product of the whole matrix, the faster of `W @ x` and `nn.Linear`; every
curve has the same share of weights, and B inputs at once, as a batch has them in one time step.

- *MKL CSR*: single weights in torch's own sparse product.
- *sparsernn, single weights*: the same matrix (tables of permutes, bit masks or rows, whichever costs least).
- *16x1 blocks*: 16 rows of one column stand or fall together (`level="block"`).
- *int8 16x4 blocks*: 16 rows of four columns, weights and inputs in int8.
- *rows and columns gone*: what `compact` leaves, in torch and on our dense panels.

Times are the thread's own. [How fast it is](speed.md) has single weights of the first shape from another run, by the
clock: the ratios of the two runs differ by more than the spread within each.

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


SPEED = f"""# How fast it is

After this page you know how fast models on our kernels are beside torch and onnxruntime, and where they are not.

{NOTE}

Every figure is a ratio against another engine that computed the same in the same process, round by round in turn, on
one thread: 2x is twice as fast. The aims were set beforehand, from prototypes in C and the roofline of one core. Here
are the rows that an aim was set for; [results](results.md) has all others, among them parts that torch runs faster (a
split LSTM, component by component) and aims of other pages that were missed (folding two layers of 1500 units, C in
int8). *The core allows* is the ratio that we would reach if each matrix took only the time of its bytes
at the bandwidth or of its multiplications at the peak of that core, measured in the same run, whichever takes longer,
while gates, states and quantisation took no time. Single weights can't come near that peak: each multiplication waits
for an index and a load of its own. The *spread* is the distance between the quartiles of a ratio's rounds.

*T30 B10* is a call over 30 time steps of 10 sequences, *step* one time step of one sequence. *LSTM 1500* is one layer
of 1500 units. *Compact 373/315* is a net of two such layers, reduced to the 373 and 315 units that Wen et al. (arXiv
1709.05027) found. *64 -> 128* reads 64 inputs with 128 units.

"""
SYNTHETIC = r"""\* Random zeros: `level="word"` learns 16x4 blocks, so these rows say what the kernel can do, and
nothing about a trained net."""
WORKS = ("compact", "compact8", "blocks90", "blocks95", "blocks95int8", "single95", "product", "streaming")
WORKS += ("paper_net", "training", "graphs", "split")
BOUNDED = WORKS[:9]  # the others compare trainings, which no roofline of one net bounds


def speed_page(results: Path, target: Path) -> None:
    """Write docs/speed.md: every row that has an aim, whether it was reached, and what bounds it."""
    found = {name: results / "benchmarks" / f"{name}.json" for name in (*WORKS, "tiny", "endurance", "start")}
    contents = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()}
    titles = ["work", "against", "ours", "aim", "", "the core allows"]
    lines = [line(titles), line(["---", "---", "---:", "---:", "---", "---:"])]
    for name in WORKS:
        aimed = [row for row in contents.get(name, {"rows": []})["rows"] if row["target"] is not None]
        lines += [line(_against_aim(row, bounded=name in BOUNDED)) for row in aimed]
    parts = [SPEED.rstrip("\n"), "", *lines, "", SYNTHETIC, ""]
    if "tiny" in contents:
        parts += ["## Small layers called as wholes", "", *_tiny(contents["tiny"]["rows"]), ""]
    for name, title in (("endurance", "## Streams of 10,000 steps"), ("start", "## The start of a process")):
        if name in contents:
            parts += [title, "", ABOUT[name], "", *_plain(contents[name]["rows"]), ""]
    parts += [f"- `python -m benchmarks {name}`: {_where(content)}" for name, content in contents.items()]
    write_atomically(target / "speed.md", "\n".join([*parts, ""]))


ABOUT = {
    "endurance": "Batch 1, one step after the other. Memory is what the process grew by between the 100th step and the "
    "last; errors are the largest of all steps, against one call with the whole sequence and against float64 (int8 "
    "rounds the weights of a net that was never trained).",
    "start": "Seconds from `import sparsernn` to a stream's first output, the import of torch apart: the first "
    "process, which compiles, and later ones, which load.",
}


def _tiny(rows: list[dict[str, Any]]) -> list[str]:
    """What all points come to, and each point below its aim with what bounds it."""
    whole = [row for row in rows if row["against"] == "onnxruntime"]
    ratios = sorted(row["ratio"] for row in whole)
    reached = sum(row["ratio"] >= row["target"] for row in whole)
    allowed = sorted(row["at_most"] for row in whole)
    against = sorted(row["ratio"] for row in rows if row["against"].startswith("torch") and "loop" not in row["work"])
    text = (
        f"LSTM and GRU, {len(whole)} points: onnxruntime takes {ratios[len(ratios) // 2]:.2f} times as long in the "
        f"median, {ratios[0]:.2f} times at the worst and {ratios[-1]:.2f} at the best point; {reached} of {len(whole)} "
        f"reach the aim of {whole[0]['target']:g} (the aim in the median is 2; the core allows "
        f"{allowed[len(allowed) // 2]:.2f} there). torch takes "
        f"{against[len(against) // 2]:.2f} times as long in the median. A point below the aim stands here with the "
        "ratio that the core allows: here what Python takes to call two modules that only make the result's tensors, "
        "then bytes or operations of each product, then gates and states at the pace of many rows. A cell is called "
        "once a step, in a loop in Python."
    )
    shown = [row for row in rows if row["target"] is not None and (row["ratio"] < row["target"] or row not in whole)]
    titles = ["work", "against", "ours", "aim", "", "the core allows"]
    table = [line(titles), line(["---", "---", "---:", "---:", "---", "---:"])]
    return [text, "", *table, *(line(_against_aim(row, bounded=True)) for row in shown)]


def _against_aim(row: dict[str, Any], *, bounded: bool) -> list[str]:
    digits = 3 if row["target"] < 1.1 else 2
    judged = "" if row["ratio"] >= row["target"] else _missed(row, bounded and row.get("bound") is not None)
    bound = "" if not bounded or row.get("bound") is None else f"{row['at_most']:.3g}x ({row['bound']})"
    ratio = f"{row['ratio']:.{digits}f}x" if row["ratio"] < 10 else f"{row['ratio']:.1f}x"
    work = row["work"] + (" *" if "16x4" in row["work"] else "")
    return [work, row["against"], ratio, f"{row['target']:.3g}x", judged, bound]


def _missed(row: dict[str, Any], bounded: bool) -> str:
    """Why a row misses its aim: none could reach it, by less than its spread, or how far from the core it is."""
    if bounded and row["at_most"] < row["target"]:
        return "missed: out of the core's reach"
    if row["ratio"] * (1 + row["spread"] / 2) >= row["target"]:
        return "missed by less than the spread"
    return f"missed, at {row['ratio'] / row['at_most']:.0%} of the core" if bounded else "missed"


def _plain(rows: list[dict[str, Any]]) -> list[str]:
    cells = [[f"{v:.2g}" if isinstance(v, float) and v < 1 else str(v) for v in row.values()] for row in rows]
    return [line(list(rows[0])), line(["---"] + ["---:"] * (len(rows[0]) - 1)), *(line(each) for each in cells)]


def _where(content: dict[str, Any]) -> str:
    clock = "wall clock" if content["clock"] == "perf_counter" else "the thread's own time"
    return f"{content['device']}, torch {content['versions']['torch']}, {clock}, {content['date']}"


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
