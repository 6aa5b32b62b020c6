"""Write docs/results.md and the README's table from results/: `python docs/generate.py`. Same results, same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sparsernn.files import write_atomically
from sparsernn_studies.claims import SEEDS
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import Result, collect, source
from sparsernn_studies.stories.folding.nets import NETS
from sparsernn_studies.stories.folding.study import row_name
from sparsernn_studies.wen.bidaf import TABLE_3, TABLE_4
from sparsernn_studies.wen.ptb import verdict

ROOT = Path(__file__).resolve().parent.parent
FURTHER = 1000  # steps of further training that the README shows
INTRODUCTION = """# Results

After this page you know every figure that was measured: a table for each study and benchmark, the papers' figures
beside ours.

Made by `python docs/generate.py` from the JSON files in `results/`; do not edit. Figures are means over the seeds
named; each file tells settings, versions, processor and date. Times are of one process; for a ratio both sides were
timed in turn, round by round. *Again* names the command that repeats a table.

In benchmarks *ratio* is how many times as fast ours is, *roofline* the share of the core's peak that it reaches,
*bound* what limits it, *at_most* the ratio that the core allows, and *target* the aim that was set before.
"""

COLUMNS = """*Ratio*: how many times as fast. *Roofline*: the share of the core's peak that is reached; *bound*: what
limits it; *at_most*: the ratio that the core allows. *Target*: the aim that was set before."""


def mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metric -> mean over the seeds, METRIC_deviation their deviation; lists are averaged place by place."""
    metrics = [metric for metric in rows[0] if all(row.get(metric) is not None for row in rows)]
    averaged: dict[str, Any] = {}
    for metric in metrics:
        values = [row[metric] for row in rows]
        if len(values) == 1 or not all(isinstance(value, type(values[0])) for value in values):
            averaged[metric] = values[0]
        elif isinstance(values[0], list):
            averaged[metric] = [round(fmean(place)) for place in zip(*values)]
        else:
            middle = fmean(values)
            averaged[metric] = round(middle) if isinstance(values[0], int) else middle
            averaged[f"{metric}_deviation"] = stdev(values)
    return averaged


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def recipe_section(name: str, scale: str, results: Sequence[Result]) -> str:
    """One table: rows in the recipe's order, the paper's figures beside ours where there are any."""
    recipe = RECIPES[name]
    names = list(dict.fromkeys(r.row for r in results))
    order = sorted(names, key=lambda row: (list(recipe.labels).index(row) if row in recipe.labels else 10**6, row))
    rows = {row: [r for r in results if r.row == row] for row in order}
    ours = {row: mean([r.measured for r in same]) for row, same in rows.items()}
    columns = [column for column in recipe.columns if any(column.cell(each) != "-" for each in ours.values())]
    papers = [column for column in recipe.columns if any(column.cell(r.paper) != "-" for r in results)]
    titles = ["", *(column.title for column in columns), *(f"paper: {column.title}" for column in papers)]
    lines = [line(titles), line(["---"] + ["---:"] * (len(titles) - 1))]
    for row, measured in ours.items():
        cells = [column.cell(measured) for column in columns]
        if set(cells) != {"-"}:  # what a recipe measures beside its table
            paper = [column.cell(rows[row][0].paper) for column in papers]
            lines.append(line([recipe.labels.get(row, row), *cells, *paper]))
    again = source(results, f"sparsernn run {name} --scale {scale}")
    return "\n".join([f"## {name}, {scale}", "", recipe.summary, again, "", *lines, ""])


def benchmark_section(path: Path) -> str:
    """One benchmark file: its rows as they are."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    # The bound and what it allows stand beside a target that was missed.
    compared = ("work", "against", "ratio", "spread", "max_error", "roofline", "bound", "at_most", "target")
    titles = compared if "against" in rows[0] else tuple(rows[0])
    lines = [line(titles), line(["---" if title in ("work", "against", "bound") else "---:" for title in titles])]
    for row in rows:
        lines.append(line([_short(row.get(title)) for title in titles]))
    return "\n".join([f"## benchmark {path.stem}", "", *lines, ""])


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(results: Path = ROOT / "results", target: Path = ROOT / "docs" / "results.md") -> None:
    found = collect(results)
    places = sorted({(r.recipe, r.scale) for r in found if r.recipe in RECIPES})
    sections = [
        recipe_section(name, scale, [r for r in found if (r.recipe, r.scale) == (name, scale)])
        for name, scale in places
    ]
    sections += [
        benchmark_section(path)
        for path in sorted((results / "benchmarks").glob("*.json"))
        if path.stem not in ("peers", "packages", "resorting", "limits", "figure1")
    ]
    write_atomically(target, "\n".join([INTRODUCTION, *sections]))


def demo_section(found: Sequence[Result]) -> str:
    """What stands between the README's demo marks: the demo's table, or how to make it."""
    rows = [r for r in found if (r.recipe, r.scale) == ("shakespeare", "cpu")]
    if not rows:
        return "`make demo` trains, folds and times a character LSTM on tiny Shakespeare and prints the table.\n"
    _, _, _, note, *table = recipe_section("shakespeare", "cpu", rows).splitlines()
    text = "A character LSTM on tiny Shakespeare, bits per character on the last tenth of the text. Again: `make demo`."
    if len({r.seed for r in rows}) < SEEDS:
        text += "\nOne seed, so take differences of some hundredths for noise."
    text += (
        "\nSteps and CPU time are all that went into a row, the dense training included. Times: one thread; a batch "
    )
    text += "of\n10 x 30 characters, a step of one; 1.0x is torch, in a step the faster of LSTM and LSTMCell."
    took = {r.row: r.measured.get("ms_step", 0.0) for r in rows}
    if took.get("int8", 0.0) > 0.9 * took.get("fast", 0.0) > 0:
        text += " On a processor without\nint8 products (AVX-512 VNNI), as here, int8 saves bytes and no time."
    return "\n".join([text, note.removeprefix("Again: `sparsernn run shakespeare --scale cpu`. "), *table, ""])


def fold_section(found: Sequence[Result]) -> str:
    """What stands between the README's fold marks: half of the weights, without training and with some."""
    rows = [r for r in found if (r.recipe, r.scale) == ("fold", "cpu")]
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in rows}))
    text = (
        "Five trained nets, half of their recurrent weights; bits per character, share of wrong tags, squared error. "
        f"Means over the\nseeds {seeds}; *trained on* is {FURTHER} more steps. Deviations, other sizes, and nets of "
        "that size trained from the start for\nas much compute, which do better after so short a first training: "
        "[folded, in figures](docs/fold-study.md). Again:\n`sparsernn run fold --scale cpu`.\n"
    )
    half = [("magnitude", 0), ("fold", 0), ("ramp", FURTHER), ("fold", FURTHER)]
    ways = [("dense", 1.0, None), *((way, 0.5, steps) for way, steps in half)]
    titles = ["", "dense", "by magnitude", "`fold`", "`Shrink`, trained on", "`fold`, trained on"]
    table = [line(titles), line(["---"] + ["---:"] * len(ways))]
    for net, label in NETS.items():
        losses = [[r.measured["test_loss"] for r in rows if r.row == row_name(net, *way)] for way in ways]
        if all(losses):
            table.append(line([label.rpartition(" (")[0], *(f"{fmean(values):.4f}" for values in losses)]))
    return text + "\n" + "\n".join(table) + "\n"


def digits_section(found: Sequence[Result]) -> str:
    """The tables of the page on spoken digits: the rows, and the accuracy of each seed, which tests another speaker."""
    rows = [r for r in found if (r.recipe, r.scale) == ("spoken-digits", "cpu")]
    if not rows:
        return "`sparsernn run spoken-digits` trains the nets and prints the table.\n"
    labels = RECIPES["spoken-digits"].labels
    seeds = sorted({r.seed for r in rows})
    accuracies = {(r.row, r.seed): r.measured["test_accuracy"] for r in rows}
    _, _, _, again, *table = recipe_section("spoken-digits", "cpu", rows).splitlines()
    lines = [line(["", *(f"seed {seed}" for seed in seeds), "mean"]), line(["---"] + ["---:"] * (len(seeds) + 1))]
    for row, label in labels.items():
        figures = [accuracies[row, seed] for seed in seeds if (row, seed) in accuracies]
        if len(figures) < len(seeds):
            continue
        lines.append(line([label, *(f"{figure:.1%}" for figure in [*figures, fmean(figures)])]))
    return "\n".join([again, *table, "", "Accuracy on the speaker that each seed holds out:", "", *lines, ""])


def bidaf_section(found: Sequence[Result], benchmarks: Path) -> str:
    """The tables of the page on BiDAF: ours, what the paper's sizes bring on our kernels, and the paper's own."""
    recipe = RECIPES["wen-bidaf"]
    parts = []
    for scale in recipe.scales:
        rows = [r for r in found if (r.recipe, r.scale) == ("wen-bidaf", scale)]
        if rows:
            _, _, _, again, *table = recipe_section("wen-bidaf", scale, rows).splitlines()
            parts += [f"## What comes out, {scale} scale", "", again, *table, ""]
    if (benchmarks / "bidaf.json").is_file():
        _, _, *table = benchmark_section(benchmarks / "bidaf.json").splitlines()
        again = f"Again: `python -m benchmarks bidaf`.\n{COLUMNS}"
        parts += ["## What the paper's sizes bring", "", again, "", *table, ""]
    parts += ["## The paper's tables", "", *_published_rows(), ""]
    return "\n".join(parts)


def ptb_section(found: Sequence[Result]) -> str:
    """The table of Penn Treebank's rows, what they say, and validation perplexity over the epochs."""
    parts = []
    for scale in RECIPES["wen-ptb"].scales:
        rows = [r for r in found if (r.recipe, r.scale, r.seed) == ("wen-ptb", scale, 0)]
        if not rows:
            continue
        _, _, _, again, *table = recipe_section("wen-ptb", scale, rows).splitlines()
        said = verdict({r.row: r.measured for r in rows}).splitlines()
        parts += [f"## What comes out, {scale} scale", "", again, *table, "", *(f"- {each}" for each in said), ""]
        labels = RECIPES["wen-ptb"].labels
        courses = {r.row: r.measured["valid_course"] for r in rows if "valid_course" in r.measured}
        epochs = range(1, max(map(len, courses.values())) + 1)
        parts += ["Validation perplexity after each epoch:", "", line(["", *map(str, epochs)])]
        parts += [line(["---"] + ["---:"] * len(epochs))]
        parts += [
            line([labels[row], *(f"{p:.1f}" for p in course), *[""] * (len(epochs) - len(course))])
            for row, course in courses.items()
        ] + [""]
    return "\n".join(parts or ["No row has been run to its end yet.", ""])


def _published_rows() -> list[str]:
    lines = [line(["", "EM", "F1", "units of the six LSTMs", "weights", "ms"]), line(["---"] + ["---:"] * 5)]
    for name, rows in (("table 3, from the dense net", TABLE_3), ("table 4, from scratch", TABLE_4)):
        for n, (em, f1, units, millions, milliseconds) in enumerate(rows):
            label = "dense" if rows is TABLE_3 and n == 0 else name
            sizes = ", ".join(map(str, units))
            lines.append(line([label, f"{em:.2f}", f"{f1:.2f}", sizes, f"{millions:.2f}M", f"{milliseconds:.2f}"]))
    return lines


def fill(page: Path, section: str, name: str = "demo") -> None:
    """Put `section` between the marks `name` of `page`."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name}:begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    write_atomically(page, before + begin + section + end + after)


if __name__ == "__main__":
    import generate_graphs
    from checks import checks_page
    from claim_pages import claims_page, fold_page
    from devices_page import digits_table
    from gallery_page import gallery_page
    from gate_study import gates_page
    from methods_page import methods_page
    from reber_study import darji_page
    from runtime_pages import figure1_page, speed_page
    from streams_page import delta_section, packages_section
    from studies import tagging_figure, wang_page
    from target_study import targets_page

    main()
    wang_page(ROOT / "results", ROOT / "docs")
    tagging_figure(ROOT / "results", ROOT / "docs")
    darji_page(ROOT / "results", ROOT / "docs")
    targets_page(ROOT / "results", ROOT / "docs")
    fold_page(ROOT / "results", ROOT / "docs")
    methods_page(ROOT / "results", ROOT / "docs")
    claims_page(ROOT / "results", ROOT / "docs")
    gates_page(ROOT / "results", ROOT / "docs")
    gallery_page(ROOT / "results", ROOT / "docs")
    generate_graphs.main()
    figure1_page(ROOT / "results", ROOT / "docs")
    speed_page(ROOT / "results", ROOT / "docs")
    checks_page(ROOT / "results", ROOT / "docs")
    found = collect(ROOT / "results")
    fill(ROOT / "README.md", demo_section(found))
    fill(ROOT / "README.md", fold_section(found), "fold")
    fill(ROOT / "docs" / "spoken-digits.md", digits_section(found))
    fill(ROOT / "docs" / "intrinsic-structures.md", ptb_section(found))
    fill(ROOT / "docs" / "streams.md", packages_section(ROOT / "results"))
    fill(ROOT / "docs" / "streams.md", delta_section(ROOT / "results"), "delta")
    fill(ROOT / "docs" / "devices.md", digits_table(ROOT / "results"))
    fill(ROOT / "docs" / "bidaf.md", bidaf_section(found, ROOT / "results" / "benchmarks"))
