"""The pages of the pruning studies, made from results/ by `python docs/generate.py`: text, tables and SVG figures."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sparsernn.files import write_atomically
from sparsernn_studies.claims import Verdict, judged
from sparsernn_studies.results import Result, collect, source
from sparsernn_studies.wang.claims import CLAIMS
from sparsernn_studies.wang.figures import figures
from sparsernn_studies.wang.rows import PART_NAMES, grouped

NOTE = """Made by `python docs/generate.py` from the JSON files in `results/`; do not edit. *Again* names the
command that repeats a table or a figure."""
WANG = f"""# How far MNIST nets can be pruned

After this page you know how many weights an RNN, an LSTM and a GRU can lose before they lose accuracy, and which of the
claims of L. Wang's study hold here.

{NOTE}

An RNN, an LSTM and a GRU of 128 units read MNIST images row by row. Each is trained densely, pruned once by magnitude
(biases spared) and retrained while the pruned weights stay zero. *Class-blind* is one threshold for all weights,
*class-uniform* one for each matrix, *class-distribution* one in units of each matrix's standard deviation (See et al.,
arXiv 1606.09274). The study is L. Wang's; the runs here are shorter than his 50 epochs, so that a laptop can repeat
them, and his figures stand in [the table of results](results.md). In so few steps, weights that nothing needs would
stay as large as they began, and magnitude would say little. So dense nets are trained with some weight decay here,
which his had not. The dense net is also trained on for as long as the pruned ones are retrained, at the rate that suits
it, which makes the comparison a stricter one.
"""


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def by_seed(results: Sequence[Result]) -> list[dict[str, dict[str, Any]]]:
    """Row -> measured of each seed."""
    seeds = sorted({result.seed for result in results})
    return [{r.row: dict(r.measured) for r in results if r.seed == seed} for seed in seeds]


def svg(figure: Any, path: Path) -> None:
    """Write `figure` as an SVG file, the same bytes each time."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
        figure.patch.set_alpha(1)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, out.getvalue())


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Mean, with the standard deviation where there are several."""
    return form.format(fmean(values)) + (f" ± {form.format(stdev(values))}" if len(values) > 1 else "")


def claim_lines(verdicts: Sequence[Verdict], seeds: int) -> list[str]:
    """The claims as a table; where fewer than `seeds` could answer one, their number stands with it. A reason why
    several are not answered stands once, below."""
    lines = [line(["claim", "mean", "95% interval", "in", "verdict"]), line(["---", "---:", "---:", "---", "---"])]
    reasons = [reason for reason, often in Counter(v.why for v in verdicts if v.why).items() if often > 2]
    for v in verdicts:
        if v.mean is None:
            lines.append(line([v.claim.text, "-", "-", v.claim.unit, v.said]))
            continue
        size = max(map(abs, (v.mean, *(v.interval or ()))))
        places = max(2, 1 - math.floor(math.log10(size))) if size else 2  # two digits of the largest
        mean = f"{v.mean:.{places}f}" + (f" ({v.seeds} seed{'s' if v.seeds > 1 else ''})" if v.seeds < seeds else "")
        between = " to ".join(f"{end:.{places}f}" for end in v.interval) if v.interval else "-"
        said = f"{v.answer} ({reasons.index(v.why) + 1})" if v.why in reasons else v.said
        lines.append(line([v.claim.text, mean, between, v.claim.unit, said.replace("refuted", "**refuted**")]))
    return [*lines, *(f"\n({n}) {reason[0].upper()}{reason[1:]}." for n, reason in enumerate(reasons, 1))]


def accuracies(seeds: Sequence[dict[str, dict[str, Any]]]) -> list[str]:
    """Test accuracy in percent: a line for each net and scheme, a column for each percentage, before → after."""
    rows = [grouped(each) for each in seeds]
    nets = [net for net in dict.fromkeys(n for each in rows for n in each) if net.count("-") == 2]
    known = sorted({int(m.split("_")[1]) for each in rows for net in nets for m in each.get(net, {}) if "before" in m})
    lines = [line(["", "dense", *(f"{p}%" for p in known)]), line(["---", "---:", *["---:"] * len(known)])]
    for net in nets:
        cell, scheme, part = net.split("-")
        name = f"{cell[:-1].upper()}, {cell[-1]}, class-{scheme}, {PART_NAMES[part]}"
        dense = [100 * each[f"{cell}-dense"]["test_accuracy"] for each in rows if f"{cell}-dense" in each]
        cells = []
        for percent in known:
            have = [each[net] for each in rows if f"before_{percent}" in each.get(net, {})]
            pairs = [(100 * m[f"before_{percent}"], 100 * m[f"test_accuracy_{percent}"]) for m in have]
            after = spread([b for _, b in pairs]) if pairs else ""
            cells.append(f"{fmean(a for a, _ in pairs):.1f} → {after}" if pairs else "-")
        lines.append(line([name, spread(dense), *cells]))
    return lines


def wang_page(results: Path, target: Path) -> str:
    """Write the page and its figures into the folder `target`; the page's text."""
    found = collect(results, "wang-mnist", "cpu")
    parts = [WANG]
    if found:
        seeds = by_seed(found)
        parts.append(source(found, "sparsernn run wang-mnist --scale cpu --seed N") + "\n")
        parts += [
            "## What the study claims\n",
            "\n".join(claim_lines(judged(CLAIMS, [grouped(rows) for rows in seeds]), len(seeds))) + "\n",
        ]
        for drawn, caption, name in figures([grouped(rows) for rows in seeds]):
            svg(drawn, target / f"wang-mnist-{name}.svg")
            parts.append(f"![{caption}](wang-mnist-{name}.svg)\n\n{caption}\n")
        parts += ["## Test accuracy, %: right after pruning → retrained\n", "\n".join(accuracies(seeds)) + "\n"]
    text = "\n".join(parts)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "wang-mnist.md", text)
    return text


def tagging_figure(results: Path, folder: Path) -> None:
    """Accuracy of demeester-pos against density, mean and deviation over the seeds, as an SVG in `folder`."""
    from matplotlib.figure import Figure

    rows = collect(results, "demeester-pos", "cpu")
    if not rows:
        return
    by_row: dict[str, list[float]] = {}
    for r in rows:
        by_row.setdefault(r.row, []).append(r.measured["test_accuracy"])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for kind in ("sparse", "narrow", "reversed"):
        mine = {float(row.split("-")[1]): values for row, values in by_row.items() if row.startswith(kind)}
        densities = sorted(mine)
        deviations = [stdev(mine[d]) if len(mine[d]) > 1 else 0.0 for d in densities]
        axes.errorbar(densities, [fmean(mine[d]) for d in densities], deviations, label=kind, marker="o", capsize=3)
    axes.axhline(fmean(by_row["dense"]), color="gray", linestyle="--", label="dense")
    axes.set(xlabel="density of the embedding", ylabel="test accuracy", ylim=(None, 1))
    axes.legend()
    svg(figure, folder / "figures" / "demeester-pos.svg")
