"""The page "which method when", made from results/ by `python docs/generate.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from claim_pages import summary
from studies import NOTE, by_seed, line, spread, svg

from sparsernn.files import write_atomically
from sparsernn_studies.claims import SEEDS, judged
from sparsernn_studies.results import collect, source
from sparsernn_studies.stories.methods.settings import NETS, Settings
from sparsernn_studies.stories.methods.study import Methods, row_name
from sparsernn_studies.stories.methods.ways import GRADUAL, WAYS
from sparsernn_studies.tables import file_size

LEVELS = {
    "weight": "Single weights",
    "block": "16x1 blocks",
    "word": "16x4 words",
    "unit": "Units",
    "rank": "Ranks",
}
COLORS = {"weight": "tab:blue", "block": "tab:orange", "word": "tab:green", "unit": "tab:red", "rank": "tab:purple"}
PAGE = f"""# Which method when

After this page you can choose how to make a net small: what each way costs in quality at the same size, and what it
gives in bytes, time and training.

{NOTE}

Four tasks, every way at the same shares of the recurrent weights. *Dense* is trained once; ways that begin with it
(pruning, `Shrink`, `fold`, `factorise`, rounding) have {{further:,}} further steps, which read what comes after; ways
that begin from chance (SET, RigL, Selfish-RNN, SNIP, GraSP, SynFlow, dense nets of that size) as many steps as
both together, {{total:,}}; characters have {{times}} times as many of each. *As much compute*: a dense net of that size
with as many multiply-adds as the steps of the large one, so many more steps and far more seconds. *Longer* is the dense
net with the further steps. One learning rate serves all ways that begin with the same net, and none was tuned. Gradual
ways have their size after {{gradual:.0%}} of their steps, `fold` at once, and train on for the rest. *Rewound* weights
train all again that came after the {{early:,}}th step, {{again:,}} steps at the first rate, so 1.6 times as long as the
others. What goes is chosen over all matrices together, but for Selfish-RNN, which is published with a choice in each.
Whole units, blocks, words and ranks come only near a share. Equal are shares of the recurrent weights, not bytes. The
trainings are short, so small nets that are trained from the start are strong rivals, and what anneals slowly
(HardConcrete) or drives weights to zero by a penalty is at a loss: what is said here is said of such trainings. ± is
the deviation over the seeds.

`Bayes` learns sparsity in many passes over the data and is on [a page of its own](gates.md). What is left by a penalty
follows from its strength. What needs no net is a linear model of the last 20 inputs for the series, a smoothed bigram
for characters, the commonest word for digits, and a linear bag of words for reviews. Where neither side of a comparison
does better than that, it is not answered; a side that no longer learns is worse than one that does.
"""


def methods_page(results: Path, folder: Path) -> None:
    """Write docs/which-method.md; nothing without results."""
    found = collect(results, "methods", "cpu")
    if not found:
        return
    seeds, s = by_seed(found), Settings()
    parts = [
        PAGE.format(
            further=s.further,
            times=s.characters,
            total=s.steps + s.further,
            early=s.early,
            again=s.steps - s.early + s.further,
            gradual=GRADUAL,
        )
    ]
    parts += [source(found, "sparsernn run methods --scale cpu --seed N"), ""]
    complete = {net: sum(_complete(net, rows, s) for rows in seeds) for net in NETS}
    owed = [
        f"{NETS[net].partition(' (')[0]} ({SEEDS - n} of {SEEDS} seeds)" for net, n in complete.items() if n < SEEDS
    ]
    if owed:
        parts += [f"Owed, by the same command, which resumes: {'; '.join(owed)}.", ""]
    verdicts = judged(Methods.claims, seeds)
    said = [text for text in summary(verdicts) if "holds" in text or "refuted" in text]
    answered = Counter(v.claim.text.partition(":")[0] for v in verdicts if v.answer != "not answered")
    open_ = len(verdicts) - answered.total()
    where = ", ".join(f"{place} ({often})" for place, often in answered.items())
    parts += ["## In short", "", f"Answered are {answered.total()} comparisons: {where}.", ""]
    parts += [f"- {text}" for text in said]
    parts += [f"- {open_} of {len(verdicts)} comparisons are not answered; [what holds](claims.md) says why.", ""]
    for net, label in NETS.items():
        rows = [each for each in seeds if _complete(net, each, s)]
        if rows:
            parts += [f"## {label[0].upper()}{label[1:]}", "", *_net(net, rows, s, folder), ""]
    parts += ["Each comparison as a claim, with its interval over the seeds: [what holds](claims.md).", ""]
    write_atomically(folder / "which-method.md", "\n".join(parts))


def _complete(net: str, rows: Mapping[str, Any], settings: Settings) -> bool:
    return all(row.name in rows for row in Methods.rows_of(settings) if row.net == net)


def _net(net: str, seeds: Sequence[Any], s: Settings, folder: Path) -> list[str]:
    def cell(name: str) -> str:
        return spread([rows[name]["test_loss"] for rows in seeds if name in rows], "{:.4f}")

    def middle(metric: str, name: str) -> float | None:
        values = [rows[name][metric] for rows in seeds if metric in rows[name]]
        return fmean(values) if values else None

    file = methods_figure(net, seeds, s, folder)
    text = f"Loss against the bytes of the file, every way at every size, {NETS[net].partition(' (')[0]}. "
    text += "The line joins those that nothing smaller beats; the stars are the dense net, and longer. Both scales "
    text += "are logarithmic."
    lines = [
        f"Seeds: {len(seeds)}. "
        + ", ".join(
            f"{said} {cell(row_name(net, way))}"
            for said, way in (("dense", "dense"), ("longer", "longer"), ("what needs no net", "baseline"))
        )
        + ".",
        "",
        f"![{text}](figures/{file})",
        "",
        text,
        "",
    ]
    shares = [f"{left:.0%} left" for left in s.left]
    for level, title in LEVELS.items():
        lines += [f"### {title}: loss", "", line(["", *shares]), line(["---"] + ["---:"] * len(shares))]
        for way, kind in WAYS.items():
            if level in kind.levels and not kind.by_strength:
                names = [row_name(net, way, level, 100 * left) for left in s.left]
                lines.append(line([kind.said, *map(cell, names)]))
        lines.append("")
    lines += ["### Bytes, time and training", ""]
    lines += [line(["", "loss", "share", "file", "a step, against dense", "steps", "training", "held in training"])]
    lines += [line(["---"] + ["---:"] * 7)]
    for name, said in _shown(net, s):
        speed, took = middle("speedup_step", name), middle("cpu_seconds", name)
        kept, size = middle("held_bytes", name), middle("file_bytes", name)
        lines.append(
            line(
                [
                    said,
                    cell(name),
                    f"{middle('share', name):.2f}",
                    file_size(round(size or 0)),
                    "-" if speed is None else f"{speed:.1f}x",
                    f"{middle('steps', name) or 0:,.0f}",
                    f"{took:.0f} s",
                    file_size(round(kept or 0)),
                ]
            )
        )
    lines += [
        "",
        "Share: of the recurrent weights, what is left in fact. A step: of 256 in a call, batch 1, one thread, on "
        "sparsernn's kernels, processor time of a machine that had other work too, mean of the seeds; single steps "
        "differ by half. Eight bits gain nothing on a processor without int8 products. Steps: the dense net's included "
        "where a way begins with it, as are its processor seconds, the training, and what a way does before; "
        "differences of seconds below some 40% are noise. Held: weights, gradients, states of optimizer and "
        "sparsifier, activations apart.",
    ]
    return lines


def _shown(net: str, s: Settings) -> list[tuple[str, str]]:
    """The rows of the table of costs: at a tenth of the weights, by strengths, rounded."""
    left = s.left[len(s.left) // 2]
    rows = [(row_name(net, way), way) for way in ("dense", "longer")]
    for way, kind in WAYS.items():
        for level in kind.levels:
            if level.startswith("int"):
                rows.append((row_name(net, way, level), f"{kind.said}, {level}"))
            elif kind.by_strength:
                rows += [(row_name(net, way, level, x), f"{kind.said}, strength {x:g}") for x in s.strengths]
            else:
                rows.append((row_name(net, way, level, 100 * left), f"{kind.said}, {level} {left:.0%}"))
    return rows


def methods_figure(net: str, seeds: Sequence[Any], s: Settings, folder: Path) -> str:
    """Loss against bytes of each way and size, means over the seeds; the name of the SVG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    points = []
    for row in Methods.rows_of(s):
        if row.net == net and row.way != "baseline":
            size, loss = (fmean(rows[row.name][m] for rows in seeds) for m in ("file_bytes", "test_loss"))
            points.append((size, loss))
            way = WAYS.get(row.way)
            color = COLORS.get(row.level, "black" if way is None else "tab:brown")
            scratch = way is not None and way.begin in ("chance", "smaller")
            axes.scatter(size / 1e3, loss, color=color, marker="*" if way is None else "x" if scratch else "o", s=28)
    front = [p for p in sorted(points) if all(p[1] < q[1] for q in points if q[0] <= p[0] and q != p)]
    axes.step([p[0] / 1e3 for p in front], [p[1] for p in front], where="post", color="0.6", linewidth=1, zorder=0)
    for level, color in (*COLORS.items(), ("rounded", "tab:brown")):
        axes.scatter([], [], color=color, label=level)
    axes.scatter([], [], color="0.3", marker="x", label="from chance")
    axes.scatter([], [], color="black", marker="*", label="dense")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.set_xlabel("file, kB")
    axes.set_ylabel(NETS[net].partition(" (")[2].rstrip(")"))
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    svg(figure, folder / "figures" / f"methods-{net}.svg")
    return f"methods-{net}.svg"
