"""The page of the gate structures, made from results/lobacheva-* by `python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from studies import NOTE, claim_lines, line, svg

from sparsernn.analysis.gates import unit_kinds
from sparsernn.analysis.plots import gate_panels, lag_figure
from sparsernn.analysis.style import SERIES, dress, legend, new_figure
from sparsernn.files import write_atomically
from sparsernn_studies.claims import judged
from sparsernn_studies.lobacheva.claims import OF, all_of, guards
from sparsernn_studies.lobacheva.figures import from_sums
from sparsernn_studies.lobacheva.settings import BASELINES
from sparsernn_studies.lobacheva.similarity import GATES, gate_overlap, gate_overlap_within
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import Result, collect, source

INTRODUCTION = f"""# What gates are for

After this page you know which gates of an LSTM live when a net has learnt to do without some, and what their absence
brings.

{NOTE}

Where weights, gates and units are learnt to go at once, a gate whose incoming weights are gone is a constant, and the
LSTM cell itself becomes simpler: Lobacheva, Chirkova, Markovich and Vetrov (arXiv 1911.05585) find that a net keeps the
gates that its task needs, and the same ones by Bayes as by pruning. Here are their nets again, with each of their
claims as a number; they are smaller, or trained for fewer epochs, where a laptop has to do it. *W* learns which weights
go, *W+N* units as well (with inputs and words, which have multipliers in ours for every task), *W+G+N* gates besides;
*Bayes* is `sparsernn.Bayes`, *pruned* is `sparsernn.GroupLasso` on the same levels, whose objective is a
reconstruction, since the authors published none, and whose strengths were set after a few short tries. All begin from
one dense net that was stopped early, so that a unit can be followed from net to net by its number. In the nets for
classes the first columns of the word vectors start as the scores of a bag of words, trained on the labels for
`score_epochs`: which gates live depends on it.

A claim is judged over three seeds or more, where the dense net clearly beats a baseline that needs no net (a smoothed
bigram; a linear model of the bag of words) and the interval of the mean leaves the limit out. Else it is not answered.
Whether two nets agree about a gate is asked of the units that both keep, in standard deviations above what units
permuted at random have in common; a gate that all units of a net have can't be judged. *Dense, trained on* is the dense
net after as many more epochs as the sparse rows take, at their rate, stopped at its best epoch.

A *full* unit has all gates, a *vanilla* one the output gate alone, a *leaky* one constant i and f and a living g; see
[how they are drawn](see-it.md). Any model gives the same figures: `sparsernn.inspect(model, inputs).plot_gates()` and
`.plot_gradient_lag()`.
"""
TITLES = {
    "lobacheva-imdb": "Sentiment of IMDb reviews",
    "lobacheva-agnews": "Topics of AG News, on its test part alone",
    "lobacheva-char": "Characters of Penn Treebank",
    "lobacheva-word": "Words of Penn Treebank",
}
COMMANDS = {
    "lobacheva-imdb": "1000 epochs in one round",
    "lobacheva-agnews": "LSTM 512; the training part has to lie in the data folder as `ag_news/train.csv`",
    "lobacheva-char": "LSTM 1000, 250 epochs",
    "lobacheva-word": "LSTM 256 on one-hot words and two layers of 200 units, 150 epochs",
}

Rows = Mapping[str, Mapping[str, Any]]


def of_layers(rows: Rows) -> list[tuple[str, int, Mapping[str, Any]]]:
    """(row, layer, measured) of all rows but the dense ones."""
    return [
        (row, n, measured)
        for row, measured in rows.items()
        if "dense" not in row and row not in BASELINES
        for n in range(len(measured["units"]))
    ]


def named(labels: Mapping[str, str], row: str, layer: int, measured: Mapping[str, Any]) -> str:
    return labels[row] + (f", layer {layer + 1}" if len(measured["units"]) > 1 else "")


def gates_of(rows: Rows, labels: Mapping[str, str]) -> Any:
    """A panel for each net and layer: which gates of its units live."""
    panels = {}
    for row, n, measured in of_layers(rows):
        alive_GH = torch.tensor(from_sums(measured[f"layer{n}_gates"], len(GATES)), dtype=torch.bool)
        alive_GH = alive_GH.view(len(GATES), -1)
        kinds = unit_kinds(GATES, alive_GH, torch.zeros(alive_GH.shape[1], dtype=torch.bool))
        panels[named(labels, row, n, measured)] = (GATES, kinds, alive_GH)
    return gate_panels(panels)


def lags_of(rows: Rows, labels: Mapping[str, str]) -> Any:
    """A panel for each W+G+N net and layer: the norm of the gradient over lag, by kind of unit."""
    panels = {}
    for row, n, measured in of_layers(rows):
        names = [name.rpartition("_")[2] for name in measured if name.startswith(f"layer{n}_lag_")]
        if "wgn" in row and names:
            panels[named(labels, row, n, measured)] = {
                "kinds": {
                    kind: {
                        "units": measured[kind][n],
                        "norm": measured[f"layer{n}_lag_{kind}"],
                        "mean_lag": measured[f"layer{n}_meanlag_{kind}"],
                    }
                    for kind in names
                }
            }
    return lag_figure(panels) if panels else None


def course_of(rows: Rows, labels: Mapping[str, str]) -> Any:
    """Compression over epochs of sparsification."""
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    for n, (row, measured) in enumerate((r, m) for r, m in rows.items() if "epochs" in m):
        colour, style = SERIES[n % len(SERIES)], "-" if "bayes" in row else "--"
        axes.plot(measured["epochs"], measured["compression_by_epoch"], style, color=colour, label=labels[row])
    axes.set_yscale("log")
    dress(axes, x="epochs after the dense net", y="dense weights / weights not zero")
    legend(axes, loc="lower right")
    return figure


def likeness(rows: Rows, labels: Mapping[str, str], prefix: str) -> list[str]:
    """Gate by gate: units in common of two nets, what chance gives, its probability; and within units both keep."""
    pairs = [(a, b) for a, b in (("bayes-wgn", "prune-wgn"), ("bayes-w", "bayes-wgn"), ("prune-w", "prune-wgn"))]
    pairs = [(prefix + a, prefix + b) for a, b in pairs if {prefix + a, prefix + b} <= set(rows)]
    titles = [
        "nets",
        "layer",
        "gate",
        "units",
        "in common",
        "by chance",
        "p",
        "within units both keep",
        "by chance",
        "p",
    ]
    lines = [line(titles), line(["---", "---:", "---", *["---:"] * 7])]
    for a, b in pairs:
        for n in range(len(rows[a]["units"])):
            for gate in GATES:
                all_units = gate_overlap(rows[f"{prefix}dense"], rows[a], rows[b], n, gate)
                cells = [f"{labels[a]} / {labels[b]}", str(n + 1), gate, f"{all_units.first} / {all_units.second}"]
                cells += _cells(all_units)
                try:
                    inner = gate_overlap_within(rows[a], rows[b], n, gate)
                except KeyError:
                    cells += ["-", "-", "-"]
                else:
                    cells += [f"{inner.both} of {inner.population}", *_cells(inner)[1:]]
                lines.append(line(cells))
    return lines if len(lines) > 2 else []


def _cells(found: Any) -> list[str]:
    return [str(found.both), f"{found.expected:.1f}", f"{found.p_value:.2g}"]


def kinds_table(rows: Rows, labels: Mapping[str, str]) -> list[str]:
    """Units of each kind and share of the units whose gate lives, a line for each net and layer."""
    kinds = ("full", "partial", "leaky", "vanilla", "constant")
    lines = [line(["", "units", *GATES, *kinds]), line(["---", *["---:"] * 10])]
    for row, n, m in of_layers(rows):
        units = m["units"][n]
        shares = [f"{100 * m[f'gates_{gate}'][n] / units:.0f}%" if units else "-" for gate in GATES]
        lines.append(line([named(labels, row, n, m), str(units), *shares, *(str(m[kind][n]) for kind in kinds)]))
    return lines


def gains_table(rows: Rows, labels: Mapping[str, str]) -> list[str]:
    """What folding gates saves against taking units out alone, next to what the constant gates' share predicts."""
    titles = [
        "",
        "multiply-adds without dead units",
        "without constant gates",
        "predicted gain",
        "measured on our kernels",
        "all gates, ours",
        "units out, ours",
        "gates out, ours",
        "gates out, torch",
        "max. difference",
    ]
    lines = [line(titles), line(["---", *["---:"] * 9])]
    for row, m in rows.items():
        if "gates_gain" not in m:
            continue
        predicted = f"{m['mult_adds_units'] / m['mult_adds_gates']:.2f}x" if m["mult_adds_gates"] else "all"
        gains = [f"{m[f'gain_{form}']:.2f}x" for form in ("all_fast", "units_fast", "gates_fast", "gates")]
        products = [f"{m['mult_adds_units']:,}", f"{m['mult_adds_gates']:,}"]
        lines.append(
            line([labels[row], *products, predicted, f"{m['gates_gain']:.2f}x", *gains, f"{m['max_error']:.1e}"])
        )
    return lines if len(lines) > 2 else []


def sentences(name: str, about: str, seeds: Sequence[Rows]) -> list[str]:
    """What the claims of the kind `about` say, each with its number and whether it holds."""
    claims = OF[name].get(about, ())
    found = judged(claims, seeds)
    said = [f"*{v.claim.text}*: {v.said}, {v.number}." for v in found]
    answered = {v.claim.text for v in found}
    lacking = [claim.text for claim in claims if claim.text not in answered]
    return [*said, *(f"*{text}*: not answered, the net has no units of both kinds." for text in lacking)]


def section(results: Path, target: Path, name: str, scale: str) -> list[str]:
    """The section of one task; what no result answers is left out."""
    found: list[Result] = collect(results, name, scale)
    owed = f"Not run yet: the paper's scale ({COMMANDS[name]}), `sparsernn run {name} --scale paper`."
    if not found:
        return [f"## {TITLES[name]}\n", f"No results yet: `sparsernn run {name} --scale {scale}`. {owed}\n"]
    labels = RECIPES[name].labels
    first = min(r.seed for r in found)
    rows = {r.row: r.measured for row in labels for r in found if r.row == row and r.seed == first}
    seeds = [{r.row: r.measured for r in found if r.seed == seed} for seed in sorted({r.seed for r in found})]
    lacking = [labels[row] for row in ("dense-longer", *found[0].settings["rows"]) if row not in rows]
    if lacking:
        owed = f"Rows that have not been run to their end: {'; '.join(lacking)}. {owed}"
    late = [
        labels[row]
        for row, m in rows.items()
        if "best_epoch" in m and m["best_epoch"] == m.get("of_epochs", found[0].settings["dense_epochs"])
    ]
    if late:
        owed = f"Best in its last epoch, so that comparisons with it are flattering: {'; '.join(late)}. {owed}"
    parts = [
        f"## {TITLES[name]}\n",
        f"{source(found, f'sparsernn run {name} --scale {scale}')} {owed} Quality, size and the paper's figures: "
        "[results](results.md).\n",
        "\n".join(claim_lines(judged(all_of(name), seeds), len(seeds))) + "\n",
    ]
    if len(seeds) > 1:
        parts.append(f"Figures, units by kind, gates in common and times below are those of seed {first}.\n")
    for kind, drawn, caption, about in (
        ("gates", gates_of(rows, labels), "Which gates live, for each unit that is left.", "gates"),
        ("lag", lags_of(rows, labels), "Norm of the gradient of units with respect to an earlier input.", "memory"),
        ("course", course_of(rows, labels), "Compression over epochs; each round begins anew with little noise.", ""),
    ):
        if drawn is not None:
            svg(drawn, target / "figures" / f"{name}-{kind}.svg")
            sentence = " ".join([caption, *sentences(name, about, seeds)])
            parts.append(f"![{caption}](figures/{name}-{kind}.svg)\n\n{sentence}\n")
    parts.append("\n".join(kinds_table(rows, labels)) + "\n")
    prefixes: Sequence[str] = ("", "two-")
    for prefix in prefixes:
        if f"{prefix}dense" not in rows:
            continue
        if reason := next((why for guard in guards(name, prefix) if (why := guard(rows))), ""):
            nets = labels[f"{prefix}dense"].partition(":")[0] if prefix else "one layer"
            parts.append(f"Which gates two nets have in common is not compared ({nets}): {reason}.\n")
        elif lines := likeness(rows, labels, prefix):
            parts.append(
                "Living gates that two nets have in common, against units permuted at random. A gate lives only where "
                "its unit does, so the first p counts agreement about units as well; the last one, within the units "
                "that both keep, is of the gates alone.\n"
            )
            parts.append("\n".join(lines) + "\n")
    if lines := gains_table(rows, labels):
        parts.append(
            "What constant gates are worth: one process, 32 sequences, one thread. The gain that is predicted is the "
            "ratio of the multiply-adds of the recurrent layers; the measured one is the time of our kernels with all "
            "gates over that without the constant ones. Behind it, the time of the net without dead units in torch "
            "over the time of each form. Our runtime finds constant gates by itself, so that units out and gates out "
            "are the same work there; torch has no kernel for an LSTM without them, so that folding alone need not "
            "gain anything in torch. Where a net is tiny, states, activations and the call itself are most of the "
            "time and stay; where its other weights are sparse too, a matrix without those rows may fit a faster "
            "layout, and more is saved than their share.\n"
        )
        parts.append("\n".join(lines) + "\n")
    return parts


def gates_page(results: Path, target: Path) -> str:
    """Write the page and its figures into the folder `target`; the page's text."""
    parts = [INTRODUCTION]
    for name in TITLES:
        parts += section(results, target, name, "cpu")
    text = "\n".join(parts)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "gates.md", text)
    return text
