"""The comparison of methods: every way leaves what it is asked for, and rows count what went into them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsernn_studies.counting import multiply_adds
from sparsernn_studies.runs import Run
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.stories.methods.settings import SMOKE, Settings
from sparsernn_studies.stories.methods.study import Methods, row_name
from sparsernn_studies.stories.methods.tasks import Digits, Reviews
from sparsernn_studies.stories.methods.ways import WAYS
from sparsernn_studies.tasks.labelled import labelled

SIZED = [(way, level) for way, kind in WAYS.items() for level in kind.levels if not kind.by_strength]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Methods:
    """All ways on a series, the dense net trained."""
    folder = tmp_path_factory.mktemp("methods")
    settings = replace(SMOKE, ways=tuple(WAYS), left=(0.3,), hidden=32)
    found = Methods(Run("methods", "smoke", 0, settings, folder, folder / "results"))
    found.fast = lambda row, model: model  # packing is the runtime's own affair
    found.result(found.named("series-dense"))
    return found


@pytest.mark.parametrize(("way", "level"), SIZED)
def test_each_way_leaves_the_share_that_is_asked_for(study, way, level):
    size = None if level.startswith("int") else 30
    measured = study.result(study.named(row_name("series", way, level, size))).measured
    if size is None:
        assert measured["share"] > 0.9
    else:  # whole units, ranks, blocks and words come only so near; a last one may not fit
        assert 0.2 < measured["share"] < (0.34 if level in ("unit", "rank") else 0.32)
    assert measured["held_bytes"] > 0 and measured["file_bytes"] > 0


def test_rows_count_the_training_of_the_dense_net_where_they_begin_with_it(study):
    s = study.settings
    steps = {way: study.result(study.named(name)).measured["steps"] for way, name in _rows().items()}
    assert steps["prune"] == steps["rigl"] == steps["direct"] == s.steps + s.further
    longer = study.model(study.named(_rows()["direct-longer"]))
    assert steps["direct-longer"] * multiply_adds(longer) == pytest.approx(
        (s.steps + s.further) * multiply_adds(study.of_width("series")), rel=0.05
    )


def _rows() -> dict[str, str]:
    levels = {"prune": "weight", "rigl": "weight", "direct": "unit", "direct-longer": "unit"}
    return {way: row_name("series", way, level, 30) for way, level in levels.items()}


def test_rewound_weights_begin_with_those_of_the_early_step_and_hold_what_the_trained_net_chose(study):
    row = study.named(row_name("series", "rewind", "weight", 30))
    study.result(row)
    early, rewound = study.start(row), study.load(row)
    for name, trained in study.matrices("series").items():
        gone = rewound.get_parameter(name) == 0
        assert trained[gone].abs().max() <= trained[~gone].abs().min()
        assert not torch.equal(early.get_parameter(name), trained)


def test_further_steps_read_what_comes_after_that_of_the_dense_net(study):
    task, s = study.tasks["series"].objective(), study.settings
    first = {"prune": s.steps, "rewind": s.early, "rigl": 0, "dense": 0}
    for way, step in first.items():
        name = row_name("series", way) if way == "dense" else row_name("series", way, "weight", 30)
        seen = study.objective(study.named(name)).batch(0)
        assert all(torch.equal(a, b) for a, b in zip(seen, task.batch(step)))


def test_characters_have_twice_the_steps():
    twice, once = Settings(), Settings(characters=1)
    found = {}
    for s in (twice, once):
        study = Methods(Run("methods", "cpu", 0, s, Path("runs"), Path("results")))
        for net in ("lstm", "series"):
            names = (row_name(net, "dense"), row_name(net, "rigl", "weight", 50), row_name(net, "rewind", "weight", 50))
            found[net, s.characters] = [study.training(study.named(name)).steps for name in names]
    assert found["series", 1] == found["series", 2] == found["lstm", 1] == [500, 750, 700]
    assert found["lstm", 2] == [1000, 1500, 1400]


def test_penalties_leave_what_their_strength_does(study):
    for name in ("series-lasso-unit-0.001", "series-l1-weight-0.001"):
        assert 0 < study.result(study.named(name)).measured["share"] <= 1


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises((SettingsError, ValueError), match="expected some of prune, movement"):
        with_changes(Settings(), ["ways=prune,magic"])


def test_digits_are_learnt_and_judged_on_speakers_apart(tmp_path):
    task = Digits(None, tmp_path / "features.json", 1, 4, 0, made=True)
    assert 0 <= task.loss(task.model(8).eval()) <= 1
    assert 0.5 < task.baseline() <= 1
    x_TBF = next(task.seen())
    assert task.model(8)(x_TBF).shape[:2] == x_TBF.shape[:2]


def test_reviews_are_judged_beside_a_bag_of_words():
    parsed = [(["good" if n % 2 else "bad", "film"] * 5, n % 2) for n in range(40)]
    task = Reviews(None, 4, 8, 8, 8, 0)
    task.__dict__["data"] = labelled(parsed, parsed[:10], 4, 8, 0.2)  # in the place of what the folder holds
    assert task.baseline() == 0
    assert 0 <= task.loss(task.model(8).eval()) <= 1
    assert task.model(8)(next(task.seen())).shape == (8, 2)
