"""What every study does: a smoke run makes its rows and its report, gives its models back, and is not made twice."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparsernn_studies import study as study_module
from sparsernn_studies.data import DataError, data_folder
from sparsernn_studies.opened import open_run
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.runs import Run
from sparsernn_studies.word_training import WordTrainer

# Those whose smoke run has a closer look in a test file of its own.
ELSEWHERE = {"shakespeare", "blocks", "spoken-digits", "targets", "darji-prune", "wang-mnist", "wen-bidaf"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ELSEWHERE])
def test_a_study_runs_reports_gives_its_models_back_and_is_not_made_twice(name, tmp_path, monkeypatch):
    settings = RECIPES[name].at("smoke")
    run = Run(name, "smoke", 0, settings, tmp_path / "run", tmp_path / "run" / "results", data_folder(None))

    def said(do: Callable[[Any], None]) -> str:
        text = io.StringIO()
        object.__setattr__(run, "console", Console(file=text, width=140))
        do(RECIPES[name](run))
        return text.getvalue()

    run.begin()
    try:
        table = said(lambda study: study.show(study.results()))
    except DataError:
        if os.environ.get("SPARSERNN_DATA"):
            raise
        pytest.skip("SPARSERNN_DATA is not set")
    rows = {result.row for result in collect(run.results)}
    assert rows == {row.name for row in RECIPES[name].rows_of(settings)}
    monkeypatch.setattr(study_module, "train", None)
    monkeypatch.setattr(WordTrainer, "train", None)
    again, _, _ = said(lambda study: study.complete()).rpartition("Report: ")
    assert table.endswith(again) and again.count("\n") > 2  # without the lines of what was made on the way
    assert (tmp_path / "run" / "report.html").is_file()
    if name != "darji-graphs":  # which keeps figures only
        study, opened = open_run(str(run.folder), tmp_path)
        assert opened.settings == settings
        found = study(opened).loaded()
        assert found.sparsified in found.models and found.sparsified in rows


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_study_says_of_itself_is_whole(name):
    study = RECIPES[name]
    assert study.name == name and study.summary and study.title and study.columns
    assert {"smoke", "cpu"} <= set(study.scales) == set(study.minutes)
    assert len({type(settings) for settings in study.scales.values()}) == 1
    for settings in study.scales.values():
        rows = [row.name for row in study.rows_of(settings)]
        assert len(set(rows)) == len(rows) > 1
        assert study.judge is None or any(fnmatchcase(row, study.judge.rows) for row in rows)


def test_no_paper_imports_from_another_ones_folder():
    package = Path(study_module.__file__).parent
    papers = {study.__module__.split(".")[1] for study in RECIPES.values()}
    found = [
        f"{path.relative_to(package)} imports {name}"
        for paper in papers
        for path in (package / paper).glob("*.py")
        for name in re.findall(r"from \.\.(\w+)", path.read_text(encoding="utf-8"))
        if name in papers - {paper}
    ]
    assert found == []
