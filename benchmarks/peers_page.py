"""docs/peers.md from results/benchmarks/peers.json: same figures, same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "peers.md"
KEYS = {
    "keys_masked": "same `state_dict` keys while masks are on",
    "copies_masked": "`deepcopy` works while masks are on",
    "keys_returned": "same keys afterwards",
    "copies_returned": "`deepcopy` works afterwards",
}
SAME = 1e-5  # float32; the outputs are of the order of one
Row = Mapping[str, Any]

INTRODUCTION = """# Beside other pruning tools

After this page you know what five tools do with twelve recurrent models when half of the units are to go.

Made by `python -m benchmarks.peers` from `results/benchmarks/peers.json`; do not edit.

Twelve recurrent models, each handed to each tool with the same request: take out half of the recurrent units. What
counts is whether the call ran, whether the recurrent layers became smaller, and whether the model handed back computes
what *the tool's own masked model* computes: the dense model with that tool's zeros in it. Cutting what is not zero yet
changes any model; cutting what the tool has masked should not.

- *sparsernn*: `Prune(level="unit")`, then `compact`.
- *Torch-Pruning*: `BasePruner` with `GroupMagnitudeImportance`, half of the channels, output layers ignored, as in its
  README. For its masked model the same channels are zeroed in the dense one. It lets you write a pruner for a layer
  that it does not know; none was written here.
- *torch.ao.pruning, structured*: `LSTMSaliencyPruner` (`SaliencyPruner` for layers that are no LSTM) from
  `torch.ao.pruning._experimental`: `prepare`, `step`, `prune`.
- *torch.ao.pruning, weights*: `WeightNormSparsifier`, then `squash_mask`. By design it writes zeros and makes nothing
  smaller.
- *torch.nn.utils.prune*: `ln_structured` on the rows of the recurrent layers' matrices, then `remove`. By design it
  writes zeros and makes nothing smaller.

All in float32 and eval mode, on the CPU, seed {seed}. In the tables, the percentage is the share of the recurrent
layers' parameters that is left; *same* means a largest difference of at most {same:g} on outputs of the order of one.
"""

EASY = """
## The easy case: half of the units are dead beforehand

The same models, but everything that every other unit owns and everything that reads it is zero before a tool sees the
model. Any criterion of size finds these units, and each gate agrees on them.
"""

WORDS = {"random weights": "\n## Models with random weights\n", "half of the units dead": EASY}


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([line(titles), line(["---"] * len(titles)), *map(line, rows), ""])


def smaller(row: Row) -> bool:
    return runs(row) and row["recurrent_after"] < row["recurrent_before"]


def runs(row: Row) -> bool:
    """The call ran, and so does the model that it handed back."""
    return row["ran"] and row["max_difference"] is not None


def cell(row: Row) -> str:
    if not row["ran"]:
        return "raises"
    if not runs(row):
        return "the result raises"
    off = f"{row['max_difference']:.0e}" if row["max_difference"] else "0"
    function = f"same ({off})" if row["max_difference"] <= SAME else f"**off by {off}**"
    share = f"{row['recurrent_after'] / row['recurrent_before']:.0%}" if smaller(row) else "not smaller"
    return f"{share}, {function}"


def by_model(rows: Sequence[Row], tools: Sequence[str]) -> str:
    models = list(dict.fromkeys(row["model"] for row in rows))
    found = {(row["model"], row["tool"]): cell(row) for row in rows}
    return table(["", *tools], [[model, *(found[model, tool] for tool in tools)] for model in models])


def totals(rows: Sequence[Row], tools: Sequence[str]) -> str:
    lines = []
    for tool in tools:
        mine = [row for row in rows if row["tool"] == tool]
        good = [row for row in mine if runs(row) and row["max_difference"] <= SAME]
        found = [sum(map(runs, mine)), sum(map(smaller, mine)), sum(map(smaller, good))]
        lines.append([tool, *(f"{n} of {len(mine)}" for n in found)])
    return table(["", "call and result run", "smaller", "smaller and the same function"], lines)


def manners(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """Keys of the state_dict and deepcopy, of the models on which the tool ran."""
    lines = []
    for tool in tools:
        mine = [row for row in rows if row["tool"] == tool]
        told = [[row[key] for row in mine if row[key] is not None] for key in KEYS]
        lines.append([tool, *(f"{sum(values)} of {len(values)}" if values else "no such stage" for values in told)])
    return table(["", *KEYS.values()], lines)


def messages(rows: Sequence[Row]) -> str:
    """What was raised or warned, with the models that it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["message"]:
            text = re.sub(r"\['.*'\]", "[...]", row["message"]).replace("`", "'")
            about.setdefault((row["tool"], text), []).append(row["model"])
    found = [[tool, ", ".join(dict.fromkeys(models)), f"`{text}`"] for (tool, text), models in about.items()]
    return table(["", "model", "raised, or warned where it ran"], sorted(found))


def page(content: Mapping[str, Any]) -> str:
    """The whole page, from what the JSON file holds."""
    rows: Sequence[Row] = content["rows"]
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    parts = [INTRODUCTION.format(seed=content["seed"], same=SAME)]
    for start in dict.fromkeys(row["start"] for row in rows):
        mine = [row for row in rows if row["start"] == start]
        parts += [WORDS[start], by_model(mine, tools), totals(mine, tools)]
    first = [row for row in rows if row["start"] == rows[0]["start"]]
    parts += ["## Keys and copies\n", manners(first, tools)]
    parts += ["## What was said\n", messages(first)]
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("sparsernn", "torch-pruning", "torch"))
    again = (
        "In an environment of its own: `pip install -r benchmarks/peers-requirements.txt -e .`, then "
        f"`python -m benchmarks.peers`. This run: {versions}, {content['device']}, {content['date']}.\n"
    )
    return "\n".join([*parts, "## Again\n", again])
