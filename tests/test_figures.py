"""A measured figure in a hand-written sentence of README and docs is that of results/.

Sentences with a number and a unit are found by themselves. Each is either made of figures that are computed here, or
says how something is set; tables and pages that are generated from results/ have tests of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from sparsernn_studies.claims import interval
from sparsernn_studies.results import collect

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
UNIT = r"(x\b(?!\d)|%|times\b|bits?\b|points?\b|µs|us\b|ms\b|ns\b|seconds\b|[kMG]B\b|perplexity)"
NOT_PROSE = (r"```.*?```", r"<!-- (\w+):begin -->.*?<!-- \1:end -->", r"<!--.*?-->", r"(?m)^[|#].*$")


def mean(recipe: str, row: str, metric: str) -> float:
    return fmean(r.measured[metric] for r in collect(ROOT / "results", recipe, "cpu") if r.row == row)


def one_seed(recipe: str, row: str, metric: str) -> float:
    (found,) = (r.measured[metric] for r in collect(ROOT / "results", recipe, "cpu") if r.row == row)
    return found


def per_seed(recipe: str, row: str, metric: str) -> list[float]:
    found = (r for r in collect(ROOT / "results", recipe, "cpu") if r.row == row)
    return [100 * r.measured[metric] for r in sorted(found, key=lambda r: r.seed)]


def with_interval(more: list[float], less: list[float]) -> tuple[float, ...]:
    gaps = [a - b for a, b in zip(more, less, strict=True)]
    return fmean(gaps), *(interval(gaps) or ())


def benchmark(name: str) -> dict:
    return json.loads((ROOT / f"results/benchmarks/{name}.json").read_text(encoding="utf-8"))["rows"][0]


def folded_by(how: str) -> list[float]:
    """Bits that half of the weights cost: an LSTM, two layers of it, a GRU."""
    return [
        mean("fold", f"{net}-{how}-50-0", "test_loss") - mean("fold", f"{net}-dense", "test_loss")
        for net in ("lstm", "stack", "gru")
    ]


def saved_by_sorting(kind: str) -> tuple[float, float]:
    rows = json.loads((ROOT / "results/benchmarks/resorting.json").read_text(encoding="utf-8"))["rows"]
    shares = [100 * row["saved"] for row in rows if kind in row["work"]]
    return min(shares), max(shares)


Figures = Callable[[], tuple[float, ...]]
MEASURED: list[tuple[str, str, Figures]] = [
    (
        "sparse-from-the-start.md",
        "The dense net finds {:.1f}% of the tags, each word's commonest tag {:.1f}%",
        lambda: tuple(100 * mean("demeester-pos", row, "test_accuracy") for row in ("dense", "baseline")),
    ),
    (
        "intrinsic-structures.md",
        "what ISS left ({:.1f} after 13 epochs) to a perplexity of {:.1f} with 40% of its blocks, and to {:.1f} with "
        "20%; the dense net has {:.1f} after 13",
        lambda: tuple(
            one_seed("wen-ptb", row, "test_perplexity") for row in ("iss", "blocks-40", "blocks-20", "dense")
        ),
    ),
    (
        "sparse-from-the-start.md",
        "A tenth of the numbers costs {:.1f} points ({:.1f} to {:.1f}), which is more than half a point",
        lambda: with_interval(*(per_seed("demeester-pos", row, "test_accuracy") for row in ("dense", "sparse-0.1"))),
    ),
    (
        "what-should-go.md",
        "has {:.1f}% more perplexity than the dense net ({:.1f} to {:.1f}, three seeds, as many steps)",
        lambda: with_interval(
            [
                100 * a / b
                for a, b in zip(*(per_seed("liu-ptb", row, "test_perplexity") for row in ("rewired", "dense")))
            ],
            [100.0] * 3,
        ),
    ),
    (
        "bidaf.md",
        "a net with {:.0f}% of the weights is no faster, although the LSTMs take {:.0f}% of its time in torch and "
        "{:.0f}% in ours",
        lambda: (
            100 * mean("wen-bidaf", "target-tuned", "nonzero") / mean("wen-bidaf", "dense", "nonzero"),
            *(100 * mean("wen-bidaf", "target-tuned", name) for name in ("share_compact", "share_fast")),
        ),
    ),
    (
        "bidaf.md",
        "and F1 is {:.1f} points lower ({:.1f} to {:.1f}, three seeds)",
        lambda: with_interval(*([f / 100 for f in per_seed("wen-bidaf", row, "f1")] for row in ("dense", "iss-0.003"))),
    ),
    (
        "fold.md",
        "{:.0f} seconds for one layer of 384 units, {:.0f} on one core for two of 1500",
        lambda: (mean("shakespeare", "folded", "fold_seconds"), benchmark("fold")["CPU s"]),
    ),
    (
        "what-should-go.md",
        "half of a character LSTM {:.2f} bits, by the default {:.2f}, by [`fold`](fold.md), which also solves the "
        "readers' weights anew, {:.2f}",
        lambda: tuple(mean("fold", f"lstm-{how}-50-0", "test_loss") for how in ("magnitude", "prune", "fold")),
    ),
    (
        "index.md",
        "half of the weights cost {:.2f} bits in the LSTMs and {:.2f} in the GRU; by magnitude {:.2f} to {:.2f}",
        lambda: (
            fmean(folded_by("fold")[:2]),
            folded_by("fold")[2],
            min(folded_by("magnitude")),
            max(folded_by("magnitude")),
        ),
    ),
    ("run-it.md", "of weights at random {:.0f} to {:.0f}%", lambda: saved_by_sorting("single weights at random")),
    (
        "run-it.md",
        "of the largest single weights of a layer with uneven units {:.0f} to {:.0f}%",
        lambda: saved_by_sorting("uneven units"),
    ),
]
SETTINGS = [
    ("export_c.md", "Tables of 164 kB"),  # what the block of code above it prints
    ("export_c.md", "sums exact in 32 bits"),
    ("fold.md", "There are no kernels for 4 bits"),
    ("quickstart.md", "The first 30% of the steps"),
    ("spoken-digits.md", "40 log-mel bands of a window of 25 ms"),
    ("what-should-go.md", "After 40% of the steps the choice is frozen"),
    ("what-should-go.md", "the last of them `least` (5%)"),
    ("what-should-go.md", "more than 1% of its size above its first value"),
]


def prose(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for pattern in NOT_PROSE:
        text = re.sub(pattern, "", text, flags=re.DOTALL if "(?m)" not in pattern else 0)
    return " ".join(text.split())


def generated(page: Path) -> bool:
    return "docs/generate" in page.read_text(encoding="utf-8")[:600]


@pytest.mark.parametrize(("page", "sentence", "figures"), MEASURED, ids=[page for page, _, _ in MEASURED])
def test_a_sentence_has_the_figures_of_the_results(page, sentence, figures):
    assert sentence.format(*figures()) in prose(ROOT / "docs" / page)


def test_no_sentence_names_a_figure_that_nothing_holds():
    known = [(page, re.split(r"\{:[^}]*\}", sentence)[0]) for page, sentence, _ in MEASURED] + SETTINGS
    used, stray = set(), []
    for page in PAGES:
        if generated(page):
            continue
        for sentence in re.split(r"(?<=[.!?:;]) ", prose(page)):
            if re.search(rf"\d(\.\d+)?\s?{UNIT}", sentence):
                said = {(name, part) for name, part in known if name == page.name and part in sentence}
                used |= said
                stray += [] if said else [f"{page.name}: {sentence}"]
    assert stray == []
    assert used >= set(SETTINGS)
