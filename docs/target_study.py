"""The page on targets, made from results/ by `python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies import NOTE, by_seed, line, spread

from sparsernn.files import write_atomically
from sparsernn_studies.claims import SEEDS, interval
from sparsernn_studies.results import collect, source
from sparsernn_studies.stories.targets import METHODS, NETS

TEXT = f"""# To a size in one run

After this page you know how near `Shrink(to=)` comes to a size, and how its nets compare with ones of that size.

{NOTE}

`Shrink(to=0.25)` is told what share of the recurrent weights may stay, nothing else. Three small nets are brought to
that share with one setting for all: an LSTM of 192 units and two of them on top of each other on tiny Shakespeare's
characters, and a GRU of 192 units on Reber strings, each in 1,200 steps of AdamW. Beside each stand the dense net, and
a net as large as what the target left that is trained directly, for as many steps and for as many multiply-adds (a net
on its way to a target multiplies at its full size). Five strengths of the penalty `GroupLasso` (0.001 to 0.1) stand
beside them too. The penalty acts to the last step of the training: what stays is shrunk as well, and is not trained on
without it, and no strength comes near a quarter of the weights in all seeds: this sweep is no rival, but shows what a
strength comes to. Loss is on what was not trained on, in bits per character and nats per
string; means and deviations over the seeds. *Better* and *worse* are said where the 95% interval of the paired
difference (Student's t over the seeds) leaves out zero.
"""


def targets_page(results: Path, folder: Path) -> None:
    """Write docs/targets.md; nothing without results."""
    found = collect(results, "targets", "cpu")
    if not found:
        return
    seeds = by_seed(found)
    settings = found[0].settings
    parts = [TEXT, source(found, "sparsernn run targets --scale cpu"), ""]
    parts += [*(f"- {each}" for each in answers(seeds, settings["target"])), ""]
    for net, label in NETS.items():
        titles = ["", "loss", "share of the weights", "off the target", "units, each seed"]
        parts += [f"## {label[0].upper()}{label[1:]}", "", line(titles), line(["---"] + ["---:"] * 4)]
        ways = {"dense": "dense", "target": "target (soft top-k)", "direct": "that size, trained directly"}
        ways["direct-longer"] = "that size, trained directly for as many multiply-adds"
        ways |= {f"strength{n}": f"strength {strength:g}" for n, strength in enumerate(settings["strengths"])}
        ways |= {"shrink": "target by fading", **{method: f"target by {method}" for method in METHODS[2:]}}
        for way, text in ways.items():
            rows = [seed[f"{net}-{way}"] for seed in seeds if f"{net}-{way}" in seed]
            if rows:
                parts.append(_row(text, rows))
        parts.append("")
    write_atomically(folder / "targets.md", "\n".join(parts))


def _row(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    off = [row["off_target"] for row in rows if "off_target" in row]
    units = dict.fromkeys(", ".join(map(str, row["units"])) for row in rows)
    return line(
        [
            text,
            spread([row["test_loss"] for row in rows], "{:.4f}"),
            spread([row["share"] for row in rows], "{:.4f}"),
            f"{max(off, key=abs):+.2%}" if off else "",
            "; ".join(units),
        ]
    )


def answers(seeds: Sequence[Mapping[str, Mapping[str, Any]]], target: float) -> list[str]:
    """How near the targets came, and in how many of the runs they were better than direct training and the sweep."""
    pairs = [(net, seed) for net in NETS for seed in seeds if f"{net}-direct" in seed]
    off = max((abs(seed[f"{net}-target"]["off_target"]) for net, seed in pairs), default=0.0)
    lines = [f"Off the target by {off:.2%} at most, in {len(pairs)} runs; never above it."]
    for net in NETS:
        mine = [seed for owner, seed in pairs if owner == net]
        if not mine:
            continue
        ours = [seed[f"{net}-target"]["test_loss"] for seed in mine]
        sides = {
            "a net of that size trained for as many steps": [seed[f"{net}-direct"]["test_loss"] for seed in mine],
            "one trained for as many multiply-adds": [
                seed.get(f"{net}-direct-longer", {}).get("test_loss") for seed in mine
            ],
        }
        said = [f"{_compared(ours, theirs)} {name}" for name, theirs in sides.items()]
        lines.append(f"{NETS[net]}, loss of the target less that of another: {'; '.join(said)}.")
    return [f"{each[0].upper()}{each[1:]}" for each in lines]


def _compared(ours: Sequence[float], theirs: Sequence[float | None]) -> str:
    """The mean difference over the seeds that have both, paired, its 95% interval, and what follows."""
    gap = [a - b for a, b in zip(ours, theirs) if b is not None]
    if not gap:
        return "not measured against"
    between = interval(gap)
    if len(gap) < SEEDS or between is None:
        return f"{fmean(gap):+.3f} (not answered: {len(gap)} of {SEEDS} seeds) against"
    low, high = between
    answer = "better than" if high < 0 else "worse than" if low > 0 else "not told apart from"
    return f"{fmean(gap):+.3f} ({low:+.3f} to {high:+.3f}), {answer}"
