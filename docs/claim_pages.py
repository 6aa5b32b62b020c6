"""The page of claims and the study of folding, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from studies import NOTE, by_seed, claim_lines, line, spread, svg

from sparsernn.files import write_atomically
from sparsernn_studies.claims import Verdict, judged
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect, source
from sparsernn_studies.stories.folding.nets import NETS
from sparsernn_studies.stories.folding.study import Fold, row_name

PAPERS = {
    "wen": "Wen et al., Learning intrinsic sparse structures within LSTM (arXiv 1709.05027)",
    "lobacheva": "Lobacheva et al., Structured sparsification of gated RNNs (arXiv 1911.05585)",
    "demeester": "Demeester et al., Predefined sparseness in recurrent sequence models (arXiv 1808.08720)",
    "liu": "Liu et al., Selfish sparse RNN training (arXiv 2101.09048)",
    "wang": "Wang, Weights pruning for RNNs",
    "darji": "Darji, Pruned and structural sparsity in RNNs (arXiv 2407.20601)",
    "stories": "Ours",
}
FIGURE = (
    "Three trained character nets on tiny Shakespeare made smaller: by magnitude, folded, and folded and trained on "
    "for 1,000 steps. Means and deviations over the seeds."
)
CURVES = {
    ("magnitude", 0): ("by magnitude", "tab:red", ":"),
    ("fold", 0): ("folded", "tab:blue", "--"),
    ("fold", 1000): ("folded, trained on", "tab:blue", "-"),
}
CLAIMS = f"""# What holds

After this page you know which claims of the papers, and of our own studies, hold here, which are refuted, and which are
open, and why.

{NOTE}

Every claim is a number that each seed gives, with the mean over the seeds and its 95% interval (Student's t). A claim
*holds* or is *refuted* where at least three seeds are there, the dense net clearly beats a baseline that needs no net,
both sides were trained by equal means (dropout and decay, say), and the interval leaves the limit out; a claim that
holds a net against the one that it was made from, which was not trained on, says so. Else it is *not
answered*, and why is said. The intervals are not corrected for their number: of a hundred claims that are asked, up to
five may be answered by chance. Those of one study share their dense nets, so their chances are not independent.
"""
FOLD = f"""# Folded, in figures

After this page you know what it costs to make five trained nets smaller by `fold`, beside other ways, with and without
further training.

{NOTE}

[`fold`](fold.md) takes units out of a trained net and solves the weights that read the others anew, without training.
Here five nets are trained once. Then units go until a share of the recurrent weights is left: by `fold`, by magnitude
(the units whose readers are smallest, as large a share of each layer, nothing compensated), by what `Prune` does at
once, and by `Shrink` in the course of further training, with `TopK()` (*ramp*) or with `Fold` (*folding*: at a quarter,
three eighths and half of the steps). *+ 250* are steps of further training, all at one rate, with the schedule begun
anew. *Direct* is a dense net of the folded one's size, trained from the start for as many
multiply-adds as the dense training and the longest further training took together. The first training is short (2,000
steps), so a small net that gets as much compute, and so more steps, is a strong rival; `fold` is for models that are
there already. Loss: bits per character, share of wrong tags, squared error in shares of the variance.
"""


def claims_page(results: Path, folder: Path) -> None:
    """Write docs/claims.md: the claims of all studies that have results."""
    sections, answers = [], Counter[str]()
    for paper, title in PAPERS.items():
        parts = []
        for name, study in RECIPES.items():
            found = collect(results, name, "cpu")
            if f".{paper}." in study.__module__ and study.claims and found:
                seeds = by_seed(found)
                verdicts = judged(study.claims, [study.grouped(rows) for rows in seeds])
                answers.update(v.answer for v in verdicts)
                parts += [f"### {name}", "", study.summary, source(found, f"sparsernn run {name} --scale cpu"), ""]
                parts += [*claim_lines(verdicts, len(seeds)), ""]
        if parts:
            sections += [f"## {title}", "", *parts]
    said = ", ".join(f"{count} {answer}" for answer, count in sorted(answers.items()))
    write_atomically(folder / "claims.md", "\n".join([CLAIMS, f"{answers.total()} claims: {said}.", "", *sections]))


def fold_page(results: Path, folder: Path) -> None:
    """Write docs/fold-study.md; nothing without results."""
    found = collect(results, "fold", "cpu")
    if not found:
        return
    seeds, s = by_seed(found), found[0].settings
    fold_figure(seeds, s["shares"], folder)
    parts = [
        FOLD,
        f"![{FIGURE}](figures/fold.svg)",
        "",
        FIGURE,
        "",
        source(found, "sparsernn run fold --scale cpu --seed N"),
        "",
    ]
    verdicts = judged(Fold.claims, seeds)
    parts += [*(f"- {text}" for text in summary(verdicts)), ""]
    for net, label in NETS.items():
        if any(row_name(net, "dense") in rows for rows in seeds):
            parts += [f"## {label[0].upper()}{label[1:]}", "", *_net(net, seeds, s["shares"], s["further"]), ""]
    parts += ["Each of these as a claim, with its interval over the seeds: [what holds](claims.md).", ""]
    write_atomically(folder / "fold-study.md", "\n".join(parts))


def fold_figure(seeds: Sequence[Any], shares: Sequence[float], folder: Path) -> None:
    """Loss of the three character nets against the share of weights that is left, mean and deviation over the seeds."""
    from matplotlib.figure import Figure

    nets = [net for net in ("lstm", "stack", "gru") if any(row_name(net, "dense") in rows for rows in seeds)]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, net in zip(figure.subplots(1, len(nets), sharey=True, squeeze=False)[0], nets):
        dense = fmean(rows[row_name(net, "dense")]["test_loss"] for rows in seeds)
        axes.axhline(dense, color="0.6", linewidth=1, label="dense")
        for (way, n), (text, color, dashes) in CURVES.items():
            values = [[rows[row_name(net, way, share, n)]["test_loss"] for rows in seeds] for share in shares]
            means, deviations = [fmean(v) for v in values], [stdev(v) if len(v) > 1 else 0.0 for v in values]
            axes.errorbar([100 * s for s in shares], means, deviations, label=text, color=color, ls=dashes, capsize=2)
        axes.set_title(NETS[net].partition(" (")[0].partition(", ")[2], fontsize=10)
        axes.set_xlabel("% of the recurrent weights left")
        axes.invert_xaxis()
    figure.axes[0].set_ylabel("bits per character")
    figure.axes[0].legend(frameon=False, fontsize=8)
    svg(figure, folder / "figures" / "fold.svg")


def _net(net: str, seeds: Sequence[Any], shares: Sequence[float], further: Sequence[int]) -> list[str]:
    def cell(name: str, metric: str = "test_loss", form: str = "{:.4f}") -> str:
        values = [rows[name][metric] for rows in seeds if name in rows]
        return spread(values, form) if values else "-"

    longest = max(further)
    ways = [("fold", 0), ("magnitude", 0), ("prune", 0)]
    ways += [(way, n) for n in further for way in ("fold", "magnitude", "ramp", "folding")] + [("direct", longest)]
    simple, dense = cell(row_name(net, "baseline")), cell(row_name(net, "dense"))
    lines = [f"Dense {dense}; what needs no net {simple}.", ""]
    lines += [line(["", *(f"{share:.0%} left" for share in shares), "compute"]), line(["---"] + ["---:"] * 4)]
    for way, n in ways:
        names = [row_name(net, way, share, n) for share in shares]
        spent = [rows[name]["compute"] for rows in seeds for name in names if name in rows]
        compute = f"{min(spent):.2f} to {max(spent):.2f}" if spent else "-"
        text = "direct" if way == "direct" else f"{way} + {n}" if n else way
        lines.append(line([text, *map(cell, names), "1.00" if compute == "1.00 to 1.00" else compute]))
    return lines


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """How many of the claims of each kind hold."""
    kinds: dict[str, Counter[str]] = {}
    for v in verdicts:
        kinds.setdefault(v.claim.text.partition(": ")[2], Counter())[v.answer] += 1
    return [
        f"{kind[0].upper()}{kind[1:]}: "
        + ", ".join(f"{often} {answer}" for answer, often in sorted(found.items()))
        + "."
        for kind, found in kinds.items()
    ]
