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
        "with 40% of its blocks at a perplexity of {:.1f}, with 20% at {:.1f}; the dense net has {:.1f}",
        lambda: tuple(one_seed("wen-ptb", row, "test_perplexity") for row in ("blocks-40", "blocks-20", "dense")),
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
