"""The claims of Lobacheva et al. (arXiv 1911.05585) about what sparse gates look like, as numbers of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..claims import Claim, Control, Guard, Measured, beats
from .similarity import GATES, Overlap, gate_overlap_within, size_overlap_within

Worse = Callable[[Measured, str, str], float]  # rows, a row, another one -> by how much the first is worse


def points(rows: Measured, row: str, other: str) -> float:
    """Points of accuracy by which `row` is worse than `other`."""
    return 100 * (rows[other]["test_accuracy"] - rows[row]["test_accuracy"])


def percent(metric: str) -> Worse:
    """Percent by which `row` has more bits, or a larger perplexity, than `other`."""
    return lambda rows, row, other: 100 * (rows[row][metric] / rows[other][metric] - 1)


def fewer(rows: Measured, what: str, row: str, other: str) -> float:
    """Percent of `other`'s units or gates that `row` does without."""
    before = sum(rows[other][what])
    if not before:
        raise KeyError(f"{other} has no {what}")
    return 100 * (1 - sum(rows[row][what]) / before)


def _of(part: int, whole: int) -> float:
    if not whole:
        raise KeyError("nothing to take a share of")
    return 100 * part / whole


def of_quality(worse: Worse, unit: str, prefix: str = "", words: str = "") -> tuple[Claim, ...]:
    """What gates as a level of their own cost and save."""
    wgn, wn, longer = (f"{prefix}{row}" for row in ("bayes-wgn", "bayes-wn", "dense-longer"))
    return (
        Claim(f"{words}W+G+N, Bayes: under 1 worse than W+N", unit, lambda rows: worse(rows, wgn, wn), at_most=1.0),
        Claim(
            f"{words}W+G+N, Bayes: under 1 worse than the dense net, trained on for as long",
            unit,
            lambda rows: worse(rows, wgn, longer),
            at_most=1.0,
            guards=(Control(longer, wgn, "the dense net was not trained on for as many epochs"),),
        ),
        Claim(
            f"{words}W+G+N, Bayes, has at most as many weights left as W+N",
            "% more weights",
            lambda rows: 100 * (rows[wgn]["nonzero"] / rows[wn]["nonzero"] - 1),
            at_most=0.0,
        ),
        *(
            Claim(
                f"{words}W+G+N, Bayes, does without more {what} than W+N",
                f"% of W+N's {what}",
                lambda rows, what=what: fewer(rows, what, wgn, wn),
                at_least=0.0,
            )
            for what in ("units", "gates")
        ),
    )


def of_likeness(layers: int = 1, prefix: str = "", words: str = "") -> tuple[Claim, ...]:
    """The same structure from both frameworks, and from weights alone: gate by gate, among the units that both nets
    keep, since a gate lives only where its unit does. Against units permuted at random, and against what the size of
    the dense net's weights tells."""
    pairs = (("bayes-wgn", "prune-wgn", "Bayes and pruning"), ("bayes-w", "bayes-wgn", "W alone and W+G+N, Bayes,"))
    return tuple(
        claim
        for a, b, said in pairs
        for n in range(layers)
        for gate in GATES
        for claim in _alike(prefix, (a, b), n, gate, f"{words}{said}", f" of layer {n + 1}" if layers > 1 else "")
    )


def _alike(prefix: str, pair: tuple[str, str], layer: int, gate: str, said: str, where: str) -> tuple[Claim, Claim]:
    first, second = (f"{prefix}{row}" for row in pair)

    def common(rows: Measured) -> Overlap:
        return gate_overlap_within(rows[first], rows[second], layer, gate)

    def beyond_size(rows: Measured) -> float:
        dense, a, b = (rows[row] for row in (f"{prefix}dense", first, second))
        by_size = (size_overlap_within(dense, *nets, layer, gate).excess for nets in ((a, b), (b, a)))
        return common(rows).excess - max(0.0, *by_size)

    def told_apart(rows: Measured) -> str:
        return "" if common(rows).deviation else "one of the nets has the gate in all of these units, or in none"

    what = f"{said} agree about gate {gate} of the units{where} that both keep, more than"
    unit, guards = "deviations above chance", (told_apart,)
    return (
        Claim(f"{what} chance", unit, lambda rows: common(rows).excess, at_least=0.0, guards=guards),
        Claim(
            f"{what} either with the dense net's largest", "deviations more", beyond_size, at_least=0.0, guards=guards
        ),
    )


def mean_lag(row: Mapping[str, Any], layer: int, kinds: Sequence[str]) -> float:
    """Mean lag, in time steps, of the units of these kinds. Raises KeyError where there are none."""
    units = {kind: row[kind][layer] for kind in kinds if row[kind][layer]}
    if not units:
        raise KeyError(f"no units of the kinds {', '.join(kinds)}")
    return sum(count * row[f"layer{layer}_meanlag_{kind}"] for kind, count in units.items()) / sum(units.values())


def of_memory(layers: int = 1, prefix: str = "", words: str = "") -> tuple[Claim, ...]:
    """Units with all gates look further back than those of each other kind, and than these taken together."""
    kinds = ("partial", "leaky", "vanilla")
    others = {f"{kind} ones": (kind,) for kind in kinds} | {"the others taken together": kinds}
    return tuple(
        Claim(
            f"{words}W+G+N, Bayes: full units look further back than {said}"
            + (f" (layer {n + 1})" if layers > 1 else ""),
            "steps, mean lag",
            lambda rows, n=n, kinds=kinds: (
                mean_lag(rows[f"{prefix}bayes-wgn"], n, ("full",)) - mean_lag(rows[f"{prefix}bayes-wgn"], n, kinds)
            ),
            at_least=0.0,
        )
        for n in range(layers)
        for said, kinds in others.items()
    )


def _g_alone(rows: Measured) -> float:
    row = rows["bayes-wgn"]
    return _of(row["gates_g"][0], row["gates"][0])


def _all_alive(rows: Measured) -> float:
    row = rows["bayes-wgn"]
    return _of(row["gates"][0], 4 * row["units"][0])


def _full_or_vanilla(rows: Measured) -> float:
    row = rows["two-bayes-wgn"]
    return _of(row["full"][1] + row["vanilla"][1], row["units"][1])


Kinds = Mapping[str, tuple[Claim, ...]]  # what a claim is about: "quality", "gates", "likeness" or "memory"

TEXTS: Kinds = {
    "quality": of_quality(points, "points"),
    "gates": (
        Claim("W+G+N, Bayes: nine tenths of the gates that live are g", "% of the gates", _g_alone, at_least=90.0),
    ),
    "likeness": of_likeness(),
    "memory": of_memory(),
}
CHARACTERS: Kinds = {
    "quality": of_quality(percent("test_bpc"), "% more bits"),
    "gates": (
        Claim(
            "W+G+N, Bayes: nine tenths of the gates of the units that are left live",
            "% of the gates",
            _all_alive,
            at_least=90.0,
        ),
    ),
    "likeness": of_likeness(),
    "memory": of_memory(),
}
_TWO = {"prefix": "two-", "words": "two layers: "}
WORDS: Kinds = {
    "quality": (
        *of_quality(percent("test_perplexity"), "% more perplexity"),
        *of_quality(percent("test_perplexity"), "% more perplexity", **_TWO),
    ),
    "gates": (
        Claim(
            "two layers: W+G+N, Bayes: most units of layer 2 are full or vanilla",
            "% of the units",
            _full_or_vanilla,
            at_least=50.0,
        ),
    ),
    "likeness": (*of_likeness(), *of_likeness(2, **_TWO)),
    "memory": (*of_memory(), *of_memory(2, **_TWO)),
}


def guards(name: str, prefix: str = "") -> tuple[Guard, ...]:
    """What the dense net of the recipe `name` has to beat before its gates mean anything."""
    metric = {"lobacheva-char": "test_bpc", "lobacheva-word": "test_perplexity"}.get(name, "test_accuracy")
    texts = metric != "test_accuracy"
    simple, said = ("bigram", "a smoothed bigram") if texts else ("linear", "a linear model of the bag of words")
    return (beats(metric, f"{prefix}dense", simple, said, more=not texts, by=0.05),)


def _guarded(name: str, kinds: Kinds) -> Kinds:
    return {
        about: tuple(
            replace(c, guards=(*guards(name, "two-" if c.text.startswith("two layers") else ""), *c.guards))
            for c in claims
        )
        for about, claims in kinds.items()
    }


_KINDS = {"lobacheva-imdb": TEXTS, "lobacheva-agnews": TEXTS, "lobacheva-char": CHARACTERS, "lobacheva-word": WORDS}
OF: Mapping[str, Kinds] = {name: _guarded(name, kinds) for name, kinds in _KINDS.items()}


def all_of(name: str) -> tuple[Claim, ...]:
    """The claims about the recipe `name`."""
    return tuple(claim for claims in OF[name].values() for claim in claims)
