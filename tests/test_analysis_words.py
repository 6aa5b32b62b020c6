"""Numbers in words, and kinds of units."""

import math

import pytest
import torch

from sparsernn.analysis import words
from sparsernn.analysis.gates import kind_counts, sorted_units, unit_kinds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_600, "1.00M"),
        (66_034_000, "66.0M"),
        (0.25, "0.25"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (9.996, "10"),
        (-999.6, "-1.00k"),
        (-0.0, "0"),
        (999_949_999_999, "1.00T"),
        (3.2e15, "3.20P"),
        (1e21, "1.00e+21"),
        (math.inf, "inf"),
    ],
)
def test_counts_keep_three_digits(number, text):
    assert words.count(number) == text


@pytest.mark.parametrize("sign", (1, -1))
def test_rounding_never_carries_into_an_exponent_or_a_fourth_digit(sign):
    near = [edge * (1 + step) for edge in (10.0**n for n in range(-3, 15)) for step in (-1e-2, -4e-3, -4e-4, -1e-6, 0)]
    for number in near:
        text = words.count(sign * number)
        value = float(text.rstrip("kMGTP")) * {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}.get(text[-1], 1)
        assert value == pytest.approx(sign * number, rel=6e-3), text
        assert "e" not in text and len(text.strip("-0.kMGTP").replace(".", "")) <= 3, text
        for digits in (3, 4):
            text = words.figure(sign * number, digits)
            assert "e+" not in text and float(text) == pytest.approx(sign * number, rel=6e-3), text


def test_a_part_is_never_rounded_to_nothing_or_to_the_whole():
    assert [words.percent(share) for share in (0, 1e-6, 0.125, 0.99999, 1)] == [
        "0%",
        "<0.1%",
        "12.5%",
        ">99.9%",
        "100%",
    ]


def test_bytes_and_factors():
    assert [words.size(n) for n in (412, 15_234, 26_400_000)] == ["412 B", "15.2 kB", "26.4 MB"]
    assert [words.times(r) for r in (0.0042, 0.25, 1.041, 7.487, 9.996, 99.96, 128.4)] == [
        "0.0042x",
        "0.25x",
        "1.04x",
        "7.49x",
        "10.0x",
        "100x",
        "128x",
    ]


def test_kinds_of_an_lstm_unit_follow_from_its_gates():
    columns = {
        (1, 1, 1, 1): "full",
        (0, 0, 0, 1): "vanilla",
        (0, 0, 1, 1): "leaky",
        (0, 0, 1, 0): "leaky",
        (0, 0, 0, 0): "constant",
        (1, 0, 1, 1): "partial",
        (0, 1, 0, 1): "partial",
    }
    alive = torch.tensor(list(columns), dtype=torch.bool).T
    none = torch.zeros(len(columns), dtype=torch.bool)
    assert unit_kinds(("i", "f", "g", "o"), alive, none) == tuple(columns.values())
    assert set(unit_kinds(("i", "f", "g", "o"), alive, ~none)) == {"dead"}


def test_a_gru_with_fixed_gates_is_a_leaky_integrator_and_an_rnn_unit_is_full_or_constant():
    gru = torch.tensor([(1, 1, 1), (0, 0, 1), (1, 0, 1), (0, 0, 0)], dtype=torch.bool).T
    assert unit_kinds(("r", "z", "n"), gru, torch.zeros(4, dtype=torch.bool)) == (
        "full",
        "leaky",
        "partial",
        "constant",
    )
    assert unit_kinds(("h",), torch.tensor([[True, False]]), torch.tensor([False, False])) == ("full", "constant")


def test_sorted_units_is_a_permutation_that_joins_kinds():
    alive = torch.rand(4, 40, generator=torch.Generator().manual_seed(0)) < 0.6
    dead = torch.arange(40) % 3 == 0
    kinds = unit_kinds(("i", "f", "g", "o"), alive, dead)
    order = sorted_units(kinds, alive)
    assert torch.equal(order.sort().values, torch.arange(40))
    names = [kinds[k] for k in order]
    assert names == sorted(names, key=list(kind_counts(kinds)).index)
    assert names[-int(dead.sum()) :] == ["dead"] * int(dead.sum())
