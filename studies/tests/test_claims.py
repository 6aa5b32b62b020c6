"""When a claim may be judged, and the figures that a net has to beat."""

import math
from dataclasses import replace

import pytest
import torch

from sparsernn_studies.baselines import bigram_bits, commonest_span, linear_bag, majority, unigram_bits
from sparsernn_studies.claims import (
    Claim,
    Control,
    beats,
    interval,
    judged,
    lines,
    more,
    percent_more,
    stands_out,
    table,
)
from sparsernn_studies.lobacheva.claims import OF
from sparsernn_studies.tasks import squad


def rows(value: float, dense: float = 50.0, simple: float | None = 90.0) -> dict:
    simple_row = {} if simple is None else {"bigram": {"test_perplexity": simple}}
    return {"dense": {"test_perplexity": dense}, "net": {"x": value}, **simple_row}


BEATS = beats("test_perplexity", "dense", "bigram", "a smoothed bigram", more=False, by=0.05)
BELOW = Claim("below one", "x", lambda r: r["net"]["x"], at_most=1.0, guards=(BEATS,))
ABOVE = Claim("above one", "x", lambda r: r["net"]["x"], at_least=1.0)


@pytest.mark.parametrize(
    ("seeds", "below", "above"),
    [
        ([rows(0.5), rows(0.6), rows(0.55)], "holds", "refuted"),
        ([rows(1.5), rows(1.6), rows(1.55)], "refuted", "holds"),
        ([rows(0.5), rows(1.4), rows(0.9)], "not answered: the interval holds the limit", None),
        ([rows(0.5), rows(0.5)], "not answered: 2 seeds of 3", "not answered: 2 seeds of 3"),
        ([rows(0.5)], "not answered: 1 seed of 3", "not answered: 1 seed of 3"),
        (
            [rows(0.5, dense=88.0)] * 3,
            "not answered: the dense net (88) does not clearly beat a smoothed bigram (90)",
            "refuted",
        ),
        ([rows(0.5, simple=None)] * 3, "not answered: a smoothed bigram was not measured", "refuted"),
    ],
)
def test_a_claim_is_judged_only_where_its_data_carry_it(seeds, below, above):
    first, second = judged([BELOW, ABOVE], seeds)
    assert first.said == below and second.said == (above or first.said)
    assert below in lines([first])


def test_what_no_seed_has_is_left_out():
    assert judged([Claim("lacking", "x", lambda r: r["other"]["x"], at_most=1.0)], [rows(0.5)] * 3) == []


def test_what_lacks_a_control_alone_is_not_answered_and_has_no_number():
    guard = Control("longer", "net", "the net was not trained on")
    claim = Claim("less than trained on", "x", more("loss", "net", "longer"), at_most=0.0, guards=(guard,))
    [verdict] = judged([claim], [{"net": {"loss": 1.0}}] * 3)
    assert verdict.said == "not answered: the net was not trained on" and (verdict.mean, verdict.interval) == (
        None,
        None,
    )
    assert lines([verdict]).endswith("less than trained on: -") and table([verdict])[0]["measured"] == "-"
    assert judged([claim], [{"dense": {"loss": 1.0}}] * 3) == [] == judged([claim], [])
    assert judged([claim], [{"net": {"loss": 1.0}, "longer": {"loss": 2.0}}] * 3)[0].answer == "holds"


def test_intervals_are_students():
    assert interval([1.0]) is None
    low, high = interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t of two degrees of freedom at 97.5%, times s / sqrt(n)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_known_figures_and_controls_guard_a_claim():
    seeds = [{"dense": {"loss": loss}, "net": {"loss": 1.2}} for loss in (1.0, 1.0, 1.0)]
    stronger = stands_out("loss", "dense", 1.05, "chance", more=False)
    weaker = stands_out("loss", "dense", 2.0, "chance", more=False)
    claims = [
        Claim("guarded", "x", more("loss", "net", "dense"), at_least=0.0, guards=(guard,))
        for guard in (
            weaker,
            stronger,
            Control("net", "dense", "no net"),
            Control("direct", "net", "no net of that size"),
        )
    ]
    assert [v.said for v in judged(claims, seeds)] == [
        "holds",
        "not answered: the dense net (1) does not clearly beat chance (1.05)",
        "holds",
        "not answered: no net of that size",
    ]
    assert stands_out("loss", "dense", 0.9, "chance", more=True)(seeds[0]) == ""
    assert more("loss", "net", "dense", 100)(seeds[0]) == pytest.approx(20)
    assert percent_more("loss", "net", "dense")(seeds[0]) == pytest.approx(20)


def test_every_claim_about_gates_needs_a_dense_net_that_learnt():
    for kinds in OF.values():
        for claims in kinds.values():
            assert all(claim.guards for claim in claims)


def test_the_bigram_is_a_distribution_and_knows_a_chain():
    generator = torch.Generator().manual_seed(0)
    train_N = torch.randint(0, 7, (400,), generator=generator)
    every = []
    for before in range(8):  # symbol 7 never occurs in training, neither before nor after
        bits = [bigram_bits(train_N, torch.tensor([before, after]), 8) for after in range(8)]
        every.append(sum(2.0**-b for b in bits))
    assert every == pytest.approx([1.0] * 8, abs=1e-12)
    chain_N = torch.arange(300) % 5
    assert bigram_bits(chain_N, chain_N[:100], 5) < 0.05 and unigram_bits(chain_N, chain_N[:100], 5) > 2.2
    assert unigram_bits(train_N, torch.arange(8), 8) > math.log2(7)


def test_baselines_of_classes():
    words = [torch.tensor([n % 2 + 3, 5 + n % 3, 1]) for n in range(60)]
    classes_N = torch.tensor([n % 2 for n in range(60)])
    assert linear_bag(words[:40], classes_N[:40], words[40:], classes_N[40:], 9) == 1.0
    assert majority(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1, 1])) == 0.75


def test_the_commonest_span_ends_with_the_passage():
    train, [test] = list(squad.made(40, 0)), squad.made(1, 1)
    often = replace(train[0], span=(2, 90))
    found = commonest_span([*train, *[often] * 41], [test])
    assert found == [(2, len(test.passage) - 1, 41 / 81)]


def test_a_guard_takes_percent_for_what_they_are():
    guard = beats("f1", "dense", "baseline", "the commonest span", more=True, by=0.1, best=100.0)
    for dense, simple, passes in ((30.0, 10.0, True), (30.0, 25.0, False), (10.0, 30.0, False)):
        assert (guard({"dense": {"f1": dense}, "baseline": {"f1": simple}}) == "") == passes
