"""What a sweep covers: settings and their values, where trials lie, and by what they are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import Result, collect
from sparsernn_studies.sweeps.sampling import ask, points, sampler
from sparsernn_studies.sweeps.space import Choice, Range, SpaceError, read_over
from sparsernn_studies.sweeps.trial import SweepError, Trial, judged

ROOT = Path(__file__).resolve().parents[2]
REBER = RECIPES["reber"].at("smoke")


def test_lists_and_ranges_are_read_by_the_settings_types():
    axes = read_over(
        REBER, ["hidden=8, 16", "strings=400:800", "learning_rate=log:1e-4:0.1", "cells=gru,lstm+rnn", "embedded=true"]
    )
    assert axes == (
        Choice("hidden", ("8", "16")),
        Range("strings", 400, 800, whole=True, log=False),
        Range("learning_rate", 1e-4, 0.1, whole=False, log=True),
        Choice("cells", ("gru", "lstm,rnn")),
        Choice("embedded", ("true",)),
    )


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ([], "A sweep needs --over key=values"),
        (["hidden"], "--over hidden: expected key=values, for example hidden=16,32,64"),
        (["hidden="], "--over hidden=: expected key=values"),
        (["hiden=3,4"], "--over hiden=3,4: there is no setting 'hiden'; did you mean hidden"),
        (["hidden=3,x"], "--over hidden=3,x: 'x' is not a whole number."),
        (["hidden=3,2+2"], "'2+2' is not a whole number."),
        (["hidden=__import__('os')"], "is not a whole number."),
        (["hidden=3,,4"], "there is an empty value"),
        (["hidden=3,3"], "a value stands there twice"),
        (["hidden=3", "hidden=4"], "--over names hidden twice"),
        (["hidden=8:4"], "expected two numbers, the smaller one first."),
        (["hidden=8:1.5"], "'1.5' is not a whole number."),
        (["hidden=1:2:3"], "expected a range a:b or log:a:b."),
        (["hidden=log:8"], "expected a range a:b or log:a:b."),
        (["learning_rate=log:0:1"], "a logarithmic range begins above zero."),
        (["learning_rate=1:inf"], "expected two numbers"),
        (["cells=gru:lstm"], "cells is 'gru:lstm', expected some of lstm, gru, rnn."),
        (["cells=gru,elman"], "cells is 'elman', expected some of lstm, gru, rnn."),
        (["sparsity=0.5:1.5"], "--over sparsity=0.5:1.5: sparsity is 1.5, expected a share between 0 and 1."),
    ],
)
def test_what_cannot_be_swept_is_said(over, expected):
    with pytest.raises(SpaceError) as caught:
        read_over(REBER, over)
    assert expected in str(caught.value) and str(caught.value).count("\n") <= 2


def test_the_grid_has_every_point_once():
    axes = (Choice("a", ("1", "2", "3")), Choice("b", ("x", "y")))
    drawn = points("grid", axes, 0, 6)
    assert sorted((p["a"], p["b"]) for p in drawn) == [(a, b) for a in "123" for b in "xy"]
    assert drawn == points("grid", axes, 0, 6) != points("grid", axes, 1, 6)


AXES = (
    Choice("cell", ("gru", "lstm")),
    Range("hidden", 4, 64, whole=True, log=True),
    Range("rate", 1e-4, 1.0, whole=False, log=True),
)


def test_random_points_depend_on_seed_and_number_alone():
    drawn = points("random", AXES, 3, 12)
    assert drawn[:5] == points("random", AXES, 3, 5) and drawn != points("random", AXES, 4, 12)
    assert len({p["rate"] for p in drawn}) == 12 and {p["cell"] for p in drawn} == {"gru", "lstm"}
    assert all(4 <= int(p["hidden"]) <= 64 and 1e-4 <= float(p["rate"]) <= 1 for p in drawn)


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_study_that_is_opened_again_asks_for_the_same_points(name):
    """Also for a trial that was cut off after its first setting was noted."""
    import optuna

    def go_on(storage, trials, cut=False):
        study = optuna.create_study(
            study_name="s", storage=storage, sampler=sampler(name, AXES, 0), load_if_exists=True
        )
        for _ in range(trials):
            asked = study.ask()
            point = ask(asked, AXES)
            study.tell(asked, abs(float(point["rate"]) - 0.01) + int(point["hidden"]) / 1000)
        if cut:
            asked = study.ask()
            ask(asked, AXES[:1])
            storage.set_trial_state_values(asked._trial_id, optuna.trial.TrialState.WAITING)
        return [trial.params for trial in study.trials if trial.state.is_finished()]

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        alone = go_on(optuna.storages.InMemoryStorage(), 16)
        storage = optuna.storages.InMemoryStorage()
        go_on(storage, 4, cut=True)
        go_on(storage, 8, cut=True)
        assert go_on(storage, 4) == alone
    finally:
        optuna.logging.set_verbosity(before)


def test_what_a_recipe_is_judged_by_is_measured():
    """Of the results that are there, some row of each recipe is judged, and has a size."""
    found = collect(ROOT / "results")
    for name, recipe in RECIPES.items():
        if recipe.judge is None:
            continue
        for scale in {r.scale for r in found if r.recipe == name}:
            rows = [r for r in found if (r.recipe, r.scale) == (name, scale)]
            outcome = judged(Trial(0, name, scale, 0, (), {}, "", None), recipe, rows)
            assert outcome.quality is not None and outcome.size


def test_where_only_another_row_was_made_that_one_is_judged():
    trial, recipe = Trial(0, "wen-ptb", "smoke", 0, (), {}, "", None), RECIPES["wen-ptb"]
    dense, direct, iss = (
        Result(
            "wen-ptb", "smoke", row, 0, {}, {}, {"valid_perplexity": quality, "nonzero": 5}, {}, "", 1, 0.0, "", None
        )
        for row, quality in (("dense", 3.0), ("direct", 4.0), ("iss", 2.0))
    )
    assert judged(trial, recipe, [dense]).quality == 3.0
    assert judged(trial, recipe, [dense, direct, iss]).quality == 2.0
    bigram = replace(dense, row="bigram", measured={"valid_perplexity": 9.0})
    assert judged(trial, recipe, [dense, bigram]).quality == 3.0
    for rows in ([dense, direct], [bigram]):
        with pytest.raises(SweepError, match="valid_perplexity in a row iss"):
            judged(trial, recipe, rows)
