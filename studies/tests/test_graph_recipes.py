"""The recipes on graphs: a smoke run, what it writes, and that it goes on where it was."""

from __future__ import annotations

import pytest
import torch

from sparsernn_studies.claims import judged
from sparsernn_studies.darji.graphs import Settings
from sparsernn_studies.graphs.claims import OF_GRAPHS
from sparsernn_studies.graphs.properties import PROPERTIES
from sparsernn_studies.graphs.study import SYMBOLS
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.runs import Run


def make_run(tmp_path, name: str) -> Run:
    settings = RECIPES[name].at("smoke")
    run = Run(name, "smoke", 0, settings, tmp_path / "run", tmp_path / "results", command=f"sparsernn run {name}")
    run.begin()
    return run


def test_darji_graphs_writes_lists_over_all_graphs_and_resumes(tmp_path, capsys):
    run = make_run(tmp_path, "darji-graphs")
    recipe = RECIPES["darji-graphs"]
    recipe(run).complete()
    out = capsys.readouterr().out
    assert recipe.labels["lstm"] in out or "lstm" in out
    rows = {r.row: r for r in collect(run.results)}
    nets = [cell + ending for cell in run.settings.cells for ending in ("", "-all")]
    assert set(rows) == {"graphs", *nets}
    count = run.settings.graphs + 2 * run.settings.nulls
    described = rows["graphs"].measured
    assert all(len(described[name]) == count for name in (*PROPERTIES, "family", "null", "graph_seed"))
    for name in nets:
        measured = rows[name].measured
        assert len(measured["test_accuracy"]) == len(measured["weights"]) == count
        assert all(0 <= a <= 1 for a in measured["test_accuracy"])
    weights = {name: rows[name].measured["weights"] for name in nets}
    assert all(weights[f"lstm{ending}"] == [4 * n for n in weights[f"tanh{ending}"]] for ending in ("", "-all"))
    further = [SYMBOLS * (nodes - sources) for nodes, sources in zip(described["nodes"], described["source_nodes"])]
    assert weights["tanh-all"] == [n + m for n, m in zip(weights["tanh"], further)]
    # Without one row's file and one chunk, only these are made again, and to the same figures.
    (run.results / "darji-graphs" / "smoke" / "tanh-seed0.json").unlink()
    (run.folder / "parts" / "tanh-1.json").unlink()
    recipe(run).complete()
    again = {r.row: r for r in collect(run.results)}
    assert again["tanh"].measured == rows["tanh"].measured
    assert (run.folder / "report.html").is_file()


def test_models_of_a_run_are_the_first_graphs(tmp_path):
    run = make_run(tmp_path, "darji-graphs")
    found = RECIPES["darji-graphs"](run).loaded()
    assert set(found.models) == {cell + ending for cell in run.settings.cells for ending in ("", "-all")}
    with torch.no_grad():
        assert found.models["lstm"](*found.example_inputs).shape == (8, 2)


def test_darji_prune_graphs_compares_at_equal_numbers_of_weights(tmp_path, capsys):
    run = make_run(tmp_path, "darji-prune-graphs")
    recipe = RECIPES["darji-prune-graphs"]
    recipe(run).complete()
    assert "graph, pruned to half" in capsys.readouterr().out
    weights = {r.row: r.measured["nonzero"] for r in collect(run.results)}
    assert weights["gru-pruned"] == weights["gru-graph"] < weights["gru-dense"]
    assert weights["gru-both"] == weights["gru-fewer"] == round(run.settings.keep * weights["gru-graph"])
    assert abs(weights["gru-small"] - weights["gru-graph"]) < 0.5 * weights["gru-graph"]
    assert (run.folder / "report.html").is_file()


@pytest.mark.parametrize(
    "changes", [{"cells": ("rnn",)}, {"families": ()}, {"nulls": 99}, {"nodes": (3, 9)}, {"steps": 0}, {"longest": 4}]
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=r"expected|at least"):
        Settings(**{"graphs": 8, "nulls": 2, **changes})


def rows_of(accuracy: list[float], sources: list[float]) -> dict:
    described = {"null": [0] * len(sources), "graph_seed": list(range(len(sources))), "source_nodes": sources}
    return {"graphs": described, "gru": {"test_accuracy": accuracy, "accuracy": sum(accuracy) / len(accuracy)}}


def test_claims_about_graphs_hold_over_seeds_and_over_graphs():
    [claim] = [c for c in OF_GRAPHS if c.text == "GRU: more sources go with more accuracy"]
    sources = [float(n % 5) for n in range(40)]
    clear = [0.8 + 0.03 * s + 0.01 * (-1) ** n for n, s in enumerate(sources)]
    faint = [0.8 + 0.001 * s + 0.05 * (-1) ** n for n, s in enumerate(sources)]
    assert judged([claim], [rows_of(clear, sources)] * 3)[0].said == "holds"
    assert "over the graphs r may be zero" in judged([claim], [rows_of(faint, sources)] * 3)[0].said
    guess = judged([claim], [rows_of([a - 0.35 for a in clear], sources)] * 3)[0].said
    assert guess.startswith("not answered: the mean net") and guess.endswith("clearly beat a guess (0.5)")
    assert judged([claim], [rows_of(clear, [1.0] * 40)] * 3) == []  # all graphs have as many
    assert judged([claim], [rows_of(clear[:30], sources)] * 3) == []  # the accuracies of other graphs
