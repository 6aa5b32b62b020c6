"""The recipe of targets: what it makes at smoke scale, and what it says of a sweep."""

import dataclasses
import sys
from pathlib import Path

import pytest

from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import Result, collect, write
from sparsernn_studies.runs import Run
from sparsernn_studies.settings import SettingsError, with_changes

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_way_to_the_target_ends_at_one_size(tmp_path, capsys):
    recipe = RECIPES["targets"]
    settings = dataclasses.replace(recipe.at("smoke"), nets=("lstm", "stack"), strengths=(1e-3,))
    run = Run("targets", "smoke", 0, settings, tmp_path / "run", tmp_path / "results", command="sparsernn run targets")
    run.begin()
    recipe(run).complete()
    rows = {r.row: r.measured for r in collect(tmp_path / "results")}
    assert set(rows) <= set(recipe.labels)
    out = capsys.readouterr().out
    assert "characters, LSTM: target by hard-concrete" in out and "trained directly" in out
    sizes = {rows[f"lstm-{how}"]["recurrent_weights"] for how in ("target", "shrink", "hard-concrete", "direct")}
    assert sizes == {4 * rows["lstm-target"]["units"][0] * (64 + rows["lstm-target"]["units"][0])}
    for net in ("lstm", "stack"):
        assert 0.2 < rows[f"{net}-target"]["share"] <= 0.25 and rows[f"{net}-dense"]["share"] == 1
        assert -0.2 < rows[f"{net}-target"]["off_target"] <= 0
        assert abs(rows[f"{net}-direct"]["share"] - rows[f"{net}-target"]["share"]) < 0.05
    found = recipe(run).loaded()
    assert found.sparsified in found.models and (tmp_path / "run" / "report.html").is_file()


def test_settings_are_checked():
    settings = RECIPES["targets"].at("cpu")
    for change, words in (("nets=rnn", "some of lstm, stack, gru"), ("target=1", "between 0 and 1")):
        with pytest.raises(SettingsError, match=words):
            with_changes(settings, [change])


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import target_study

    yield target_study
    for module in ("target_study", "studies"):
        sys.modules.pop(module, None)


def test_the_page_is_that_of_the_results(study, tmp_path):
    study.targets_page(tmp_path, tmp_path)
    assert not (tmp_path / "targets.md").exists()
    study.targets_page(ROOT / "results", tmp_path)
    page = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    assert page == (tmp_path / "targets.md").read_text(encoding="utf-8")


def test_the_page_says_how_the_target_compares(study, tmp_path):
    losses = {"target": (1.0, 1.2), "direct": (1.1, 1.1), "strength0": (0.5, 0.5), "strength1": (1.5, 1.6)}
    shares = {"target": 0.248, "direct": 0.25, "strength0": 0.9, "strength1": 0.26}
    for way, by_seed in losses.items():
        for seed, loss in enumerate(by_seed):
            measured = {"test_loss": loss, "share": shares[way], "units": [5 + seed]}
            measured |= {"off_target": -0.004 * (seed + 1)} if way == "target" else {}
            settings = {"target": 0.25, "strengths": [1e-3, 1e-2]}
            around = ({"torch": "2"}, "cpu", 1, 0.0, "2026-01-01", None)
            write(tmp_path, Result("targets", "cpu", f"gru-{way}", seed, settings, {}, measured, *around))
    study.targets_page(tmp_path, tmp_path)
    page = (tmp_path / "targets.md").read_text(encoding="utf-8")
    assert "Off the target by 0.80% at most, in 2 runs" in page
    assert "0.000 (not answered: 2 of 3 seeds) against a net of that size trained for as many steps" in page
    assert "not measured against one trained for as many multiply-adds" in page
    assert "| target (soft top-k) | 1.1000 ± 0.1414 | 0.2480 ± 0.0000 | -0.80% | 5; 6 |" in page
    assert "| strength 0.01 | 1.5500 ± 0.0707 |" in page
