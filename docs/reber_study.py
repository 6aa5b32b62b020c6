"""The page of the study on Reber strings, made from results/darji-prune by `python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies import NOTE, by_seed, claim_lines, line, spread, svg

from sparsernn.files import write_atomically
from sparsernn_studies.claims import judged
from sparsernn_studies.darji.claims import CLAIMS
from sparsernn_studies.darji.figures import figures, of
from sparsernn_studies.darji.settings import CELL_NAMES, PART_NAMES, TASK_NAMES
from sparsernn_studies.graphs.study import balanced, length_alone
from sparsernn_studies.results import Result, collect, source
from sparsernn_studies.tasks import reber

Seeds = Sequence[dict[str, dict[str, Any]]]
COMMAND = "sparsernn run darji-prune --scale cpu --seed N"


def introduction(settings: Mapping[str, Any], guess: float, alone: float) -> str:
    s = settings
    return f"""# How far classifiers of Reber strings can be pruned

After this page you know how much can be pruned from nets that recognise a small grammar, how soon they recover, and
which figures of H. Darji's study hold here.

{NOTE}

A Reber string is a sentence of a small automaton. A net has to tell such sentences from other strings. H. Darji
(arXiv 2407.20601) trained three layers of an RNN (tanh or relu), an LSTM or a GRU on them, pruned a percentage of their
weights once, by one threshold for all layers, and retrained what was left. Here is the study again, with {s["layers"]}
layers of {s["hidden"]} units.

What differs from the original: invalid strings have the same letters, begin and end as valid ones (half of them are
sentences of a mis-wired automaton, half valid strings with one edit); a string is read at its last letter, not after
padding; no string is in both sets; each row is trained anew for every seed, on strings and weights of that seed. The
original's flaws can be switched on by name (`--set flaws=padding`), and rows with them stand below.

Strings have {s["shortest"]} to {s["longest"]} letters. Nets are trained for {s["epochs"]} epochs and, once pruned,
retrained until their test accuracy is within {100 * s["near"]:g} point of the dense net's, for {s["retrain_epochs"]}
epochs at most. One that after {s["patience"]} epochs only guesses (one answer for all strings is right for up to
{100 * guess:.0f}%) is given up. A net that pruning does not bring below that point is not retrained. With fewer strings
an epoch has fewer steps than the original's, which makes "within one epoch" a stricter demand. As in the original a net
is judged and stopped by the same test strings, so what it reaches is slightly flattered.

As many strings of each length are valid as invalid. A guess by the length alone is right for {100 * alone:.1f}%, and
nets without input-to-hidden weights see no more than the length.
"""


def pruned_table(seeds: Seeds, task: str, parts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Percent right after pruning → retrained; a line for each cell and part."""
    lines = [line(["", "dense", *(f"{label}%" for label in labels)]), line(["---", "---:", *["---:"] * len(labels)])]
    metric = "share_valid" if task == "sentences" else "test_accuracy"
    for part in parts:
        for cell, title in CELL_NAMES.items():
            rows = of(seeds, f"{cell}-{task}-{part}")
            if not rows:
                continue
            dense = spread([100 * row[metric] for row in of(seeds, f"{cell}-{task}-dense")], "{:.1f}")
            cells = [arrow(rows, f"before_{label}", f"after_{label}") for label in labels]
            lines.append(line([f"{title}, {PART_NAMES[part]}", dense, *cells]))
    return lines


def arrow(rows: Sequence[Mapping[str, Any]], *metrics: str) -> str:
    """Means of the metrics in percent, one after the other, the last with its deviation."""
    have = [row for row in rows if all(metric in row for metric in metrics)]
    if not have:
        return "-"
    *first, last = ([100 * row[metric] for row in have] for metric in metrics)
    return " → ".join([*(f"{sum(values) / len(values):.1f}" for values in first), spread(last, "{:.1f}")])


def recovery(rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """Epochs and processor seconds until the nets were as good as dense, and how many of them came to that."""
    if not any(f"before_{label}" in row for row in rows):
        return "-"
    done = [row for row in rows if f"epochs_{label}" in row]
    if not done:
        return "never"
    epochs = sum(row[f"epochs_{label}"] for row in done) / len(done)
    seconds = sum(row[f"seconds_{label}"] for row in done) / len(done)
    some = "" if len(done) == len(rows) else f", {len(done)} of {len(rows)}"
    return f"{epochs:.1f} ({seconds:.1f} s{some})"


def recovery_table(seeds: Seeds, task: str, parts: Sequence[str], labels: Sequence[str]) -> list[str]:
    lines = [line(["", *(f"{label}%" for label in labels)]), line(["---", *["---:"] * len(labels)])]
    for part in parts:
        for cell, title in CELL_NAMES.items():
            rows = of(seeds, f"{cell}-{task}-{part}")
            if rows:
                lines.append(line([f"{title}, {PART_NAMES[part]}", *(recovery(rows, label) for label in labels)]))
    return lines


def paper_table(results: Sequence[Result], seeds: Seeds) -> list[str]:
    """The original's figures beside ours, clean and with all flaws: before → after one epoch → at the end."""
    titles = ["", "pruned", "original", "clean strings", "all flaws"]
    lines = [line(titles), line(["---", "---:", *["---:"] * 3])]
    for cell, title in CELL_NAMES.items():
        for part in ("dense", "both", "hh", "ih"):
            known = next((r.paper for r in results if r.row == f"{cell}-strings-{part}"), {})
            ours = [of(seeds, f"{cell}-{task}-{part}") for task in ("strings", "all")]
            if part == "dense" and known:
                dense = [arrow(rows, "test_accuracy") for rows in ours]
                lines.append(line([title, "dense", f"{100 * known['test_accuracy']:.1f}", *dense]))
            for percent in (name.removeprefix("before_") for name in known if name.startswith("before_")):
                metrics = [f"{when}_{percent}" for when in ("before", "first", "after")]
                original = " → ".join(f"{100 * known[m]:.1f}" for m in metrics if m in known)
                cells = [arrow(rows, *metrics) for rows in ours]
                lines.append(line([f"{title}, {PART_NAMES[part]}", f"{percent}%", original, *cells]))
    return lines


def flaw_table(seeds: Seeds) -> list[str]:
    """What each flaw does to the dense net and to one without hidden-to-hidden weights."""
    titles = ["", "", "dense", "no hidden-to-hidden: pruned → 1 epoch → end", "epochs to recover"]
    lines = [line(titles), line(["---", "---", "---:", "---:", "---:"])]
    for cell, title in CELL_NAMES.items():
        for task in ("strings", "padding", "letters", "leak", "all"):
            dense, hidden = of(seeds, f"{cell}-{task}-dense"), of(seeds, f"{cell}-{task}-hh")
            if dense:
                course = arrow(hidden, "before_100", "first_100", "after_100") if hidden else "-"
                name = TASK_NAMES[task].removeprefix("flaw: ") or "clean"
                lines.append(line([title, name, arrow(dense, "test_accuracy"), course, recovery(hidden, "100")]))
    return lines


def threshold_table(seeds: Seeds) -> list[str]:
    lines = [line(["", "threshold", "weights pruned, %", "accuracy, %", "epochs to recover"])]
    lines.append(line(["---", "---:", "---:", "---:", "---:"]))
    for cell, title in CELL_NAMES.items():
        rows = of(seeds, f"{cell}-wide-threshold")
        for label in [name.removeprefix("before_") for name in (rows[0] if rows else ()) if name.startswith("before_")]:
            gone = spread([row[f"pruned_{label}"] for row in rows], "{:.1f}")
            course = arrow(rows, f"before_{label}", f"after_{label}")
            lines.append(line([title, label, gone, course, recovery(rows, label)]))
    return lines


def generation_table(seeds: Seeds) -> list[str]:
    lines = [line(["", "valid strings, %", "of them not in training, %"]), line(["---", "---:", "---:"])]
    for cell, title in CELL_NAMES.items():
        rows = of(seeds, f"{cell}-sentences-dense")
        if rows:
            lines.append(line([title, arrow(rows, "share_valid"), arrow(rows, "share_new")]))
    return lines


def counts(results: Sequence[Result]) -> str:
    """Rows that fewer seeds have than the study."""
    every = {r.seed for r in results}
    fewer: dict[int, int] = {}
    for row in {r.row for r in results}:
        number = len({r.seed for r in results if r.row == row})
        if number < len(every):
            fewer[number] = fewer.get(number, 0) + 1
    said = ", ".join(f"{rows} of {seeds}" for seeds, rows in sorted(fewer.items()))
    if not said:
        return ""
    note = "a figure without ± is of one seed, and a row that is missing was not run."
    return f" Not all rows have all seeds (rows of so many seeds: {said}); {note}"


def section(title: str, text: str, table: Sequence[str]) -> list[str]:
    """A section, or nothing where the table has no line but its head."""
    return [f"## {title}\n", *([text + "\n"] if text else []), "\n".join(table) + "\n"] if len(table) > 2 else []


def darji_page(results: Path, target: Path) -> str:
    """Write the page and its figures into the folder `target`; the page's text."""
    found = collect(results, "darji-prune", "cpu")
    target.mkdir(parents=True, exist_ok=True)
    if not found:
        raise LookupError(f"there are no results of darji-prune: {COMMAND}")
    seeds = by_seed(found)
    guess = max(rows[row]["guess"] for rows in seeds for row in rows if "guess" in rows[row])
    s = found[0].settings
    numbers = sorted({r.seed for r in found})
    made = [reber.generate(s["strings"], r, embedded=s["embedded"], shortest=s["shortest"]) for r in numbers]
    alone = fmean(length_alone(balanced(strings, s["longest"], r)) for r, strings in zip(numbers, made))
    parts = [introduction(s, guess, alone), source(found, COMMAND) + counts(found) + "\n"]
    verdicts = claim_lines(judged(CLAIMS, seeds), len(seeds))
    parts += section("Claims", "Points are hundredths of accuracy, or of valid strings.", verdicts)
    for drawn, caption, name in figures(seeds):
        svg(drawn, target / "figures" / f"darji-prune-{name}.svg")
        parts.append(f"![{caption}](figures/darji-prune-{name}.svg)\n\n{caption}\n")
    labels = [str(p) for p in found[0].settings["percentages"] if p >= 50]
    kinds, arrows = ("both", "hh", "ih", "matrix", "head"), "right after pruning → retrained"
    parts += section(f"Test accuracy, %: {arrows}", "", pruned_table(seeds, "strings", kinds, labels))
    text = "Epochs until the accuracy is back, in brackets processor seconds; 0 where nothing was lost."
    parts += section("How soon they recover", text, recovery_table(seeds, "strings", kinds, labels))
    text = "Accuracy in percent: right after pruning → after one epoch → at the end (there after ten epochs)."
    parts += section("Beside the original", text, paper_table(found, seeds))
    text = """*Last padded step*: nets are read after the padding of their batch. *Other letters*: most invalid strings
have letters that no valid one has. *A test string in training* can move accuracy by one string at most."""
    parts += section("What the flaws do", text, flaw_table(seeds))
    text = "Recurrent layers' weights below the threshold go, as in the original's slides."
    parts += section(f"Fixed thresholds, layers of {found[0].settings['wide']}", text, threshold_table(seeds))
    text = "Nets that learn the next letter of valid strings, and draw strings letter by letter until E."
    parts += section("Generation", text, generation_table(seeds))
    parts += section(f"Valid strings, %: {arrows}", "", pruned_table(seeds, "sentences", ("both",), labels))
    page = "\n".join(parts)
    write_atomically(target / "darji-prune.md", page)
    return page
