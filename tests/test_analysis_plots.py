"""Images of weights and rows of charts: each weight in its place, dead units in white, seeds averaged."""

import math

import numpy as np
import pytest
import torch

from analysis_models import TOKENS, tagger
from report_pages import EXTRAS
from sparsernn.analysis import plots
from sparsernn.analysis.columns import label, show
from sparsernn.analysis.extras import merge_seeds
from sparsernn.analysis.sparsity import inspect


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("projection", [0, 3])
def test_dead_units_are_white_strips_whatever_their_own_rows_hold(projection):
    model = tagger(proj_size=projection)
    with torch.no_grad():
        if projection:
            model.rnn.weight_hr_l0[:, [1, 4]] = 0
        else:
            model.head.weight[:, [1, 4]] = 0
            model.rnn.weight_hh_l0[:, [1, 4]] = 0
    found = inspect(model, TOKENS).snapshot
    drawn = plots._matrix_of(found.recurrent[0], found, torch.arange(6), sort=False)
    expected = torch.ones(5 + (projection or 6), 24, dtype=torch.bool)
    expected[:, [gate * 6 + unit for gate in range(4) for unit in (1, 4)]] = False
    if not projection:
        expected[[5 + 1, 5 + 4]] = False
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("size", [10, 97, 400])
def test_reduced_images_keep_the_share_of_weights(size):
    mask = np.random.default_rng(0).random((400, 333)) < 0.1
    shares = plots._shares(mask, size)
    assert max(shares.shape) <= size and shares.min() >= 0 and shares.max() <= 1
    # Pixels differ in area by at most one row and column.
    assert shares.mean() == pytest.approx(mask.mean(), rel=0.15)
    assert (plots._shares(np.ones((400, 333), bool), size) == 1).all()


def test_a_single_dead_unit_stays_visible_in_a_large_layer():
    dead = np.zeros((1, 6000), bool)
    dead[0, 1234] = True
    marks = plots._shares(dead, 900) > 0
    assert marks.sum() == 1
    assert abs(int(np.flatnonzero(marks[0])[0]) - 1234 * 900 / 6000) <= 1


def test_seeds_of_one_row_are_averaged():
    rows = merge_seeds(EXTRAS["runs"])
    assert [(row["number"], row["row"], row["seeds"]) for row in rows] == [
        (1, "dense", 1), (2, "equal size", 1), (3, "sparse", 2),
    ]  # fmt: skip
    assert rows[2]["measured"]["test_bpc"] == pytest.approx(2.3)
    assert rows[2]["spread"]["test_bpc"] == pytest.approx(0.1 / math.sqrt(2))
    assert rows[2]["measured"]["units"] == [3, 4]
    assert rows[0]["paper"] == {"test_bpc": 2.1}


def test_values_are_written_by_their_names():
    assert show("test_accuracy", 0.8387) == "83.9%"
    assert show("max_error", 3.1e-7) == "3.1e-07"
    assert show("weights", 66_034_000) == "66.0M"
    assert show("weights", 9_999) == "9,999"
    assert show("speedup", 10.59) == "10.6x"
    assert show("file_size", 1_500_000) == "1.50 MB"
    assert (show("ok", True), show("ok", None), show("test_bpc", float("nan"))) == ("yes", "–", "nan")
    assert (label("test_bpc"), label("ms_fast"), label("f1")) == ("Test bits per character", "ms, fast", "F1")
