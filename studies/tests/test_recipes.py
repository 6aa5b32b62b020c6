"""Recipes: a smoke run of each, what it writes, and the tables made from it."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest
import torch

from sparsernn.runtime.processor import processor
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import FIELDS, Result, ResultError, collect, place, read, sizes, write
from sparsernn_studies.runs import Run, RunError, describe
from sparsernn_studies.settings import SettingsError, with_changes

ROOT = Path(__file__).resolve().parents[2]


def make_run(tmp_path: Path, name: str, **changes) -> Run:
    settings = dataclasses.replace(RECIPES[name].at("smoke"), **changes)
    run = Run(name, "smoke", 0, settings, tmp_path / "run", tmp_path / "results", command=f"sparsernn run {name}")
    run.begin()
    return run


pytestmark = pytest.mark.usefixtures("one_thread")


def test_shakespeare_from_dense_to_fast(tmp_path, capsys):
    run = make_run(tmp_path, "shakespeare")
    recipe = RECIPES["shakespeare"]
    recipe(run).complete()
    out = capsys.readouterr().out
    for label in recipe.labels.values():
        assert label in out
    rows = {r.row: r for r in collect(tmp_path / "results")}
    assert set(rows) == set(recipe.labels)
    measured = {row: r.measured for row, r in rows.items()}
    # The accelerated model is the compact one, in bits and in numbers.
    assert measured["fast"]["test_bpc"] == pytest.approx(measured["compact"]["test_bpc"], rel=1e-5)
    assert measured["fast"]["max_error"] < 1e-4
    assert measured["compact"]["units"][0] <= measured["dense"]["units"][0] // 2
    for row in ("folded", "direct-longer"):
        assert measured[row]["weights"] == measured["compact"]["weights"] < measured["dense"]["weights"]
        assert measured[row]["units"] == measured["compact"]["units"]
    # Seconds of a row hold those of the rows that it came from; a smoke run's own can round to nothing.
    assert measured["dense"]["cpu_seconds"] <= measured["folded"]["cpu_seconds"] <= measured["compact"]["cpu_seconds"]
    assert measured["compact"]["file_bytes"] < measured["dense"]["file_bytes"] / 2
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for label in recipe.labels.values():
        assert label in page
    found = recipe(run).loaded()
    x = found.example_inputs
    assert found.models["folded"].lstm.hidden_size == measured["dense"]["units"][0]  # before anything is cut
    torch.testing.assert_close(found.models["compact"](x), found.models["fast"](x), rtol=1e-5, atol=1e-5)


def test_shakespeare_counts_all_steps_and_multiply_adds(tmp_path):
    from sparsernn_studies import checkpoint
    from sparsernn_studies.counting import multiply_adds

    work = RECIPES["shakespeare"](make_run(tmp_path, "shakespeare", steps=20, further=10))
    trained = ("dense", "compact", "direct-longer")
    found = {row.name: work.result(row).measured for row in work.order if not row.precision}
    did = {row: checkpoint.read(tmp_path / "run" / row / "checkpoint.safetensors")["step"] for row in trained}
    assert (did["dense"], did["compact"]) == (20, 10)
    assert [found[row]["steps"] for row in ("dense", "folded", "compact")] == [20, 20, 30]
    assert found["direct-longer"]["steps"] == did["direct-longer"]
    each = {row: multiply_adds(work.load(work.named(row))) for row in trained}
    assert did["direct-longer"] * each["direct-longer"] == pytest.approx(
        did["dense"] * each["dense"] + did["compact"] * each["compact"], rel=0.02
    )


def test_blocks_from_dense_to_every_precision(tmp_path, capsys):
    run = make_run(tmp_path, "blocks", steps=30, keep_diagonal=True)
    recipe = RECIPES["blocks"]
    recipe(run).complete()
    out = capsys.readouterr().out
    made = {row: label for row, label in recipe.labels.items() if row != "int8" or processor().vnni}
    for label in made.values():
        assert label in out
    assert "as fast as onnxruntime on the dense net in int8" in out
    rows = {r.row: r.measured for r in collect(tmp_path / "results")}
    assert set(rows) == set(made)
    # One block in ten is kept of either matrix, and the diagonals of the recurrent one beside them.
    sparse = recipe(run).loaded().models["sparse"].lstm
    for name, columns in (("weight_ih_l0", 16), ("weight_hh_l0", 32)):
        weight = getattr(sparse, name).detach().view(4, 2, 16, columns).clone()
        if name == "weight_hh_l0":
            diagonal = weight.view(4, 32, 32).diagonal(dim1=1, dim2=2)
            assert diagonal.count_nonzero() == diagonal.numel()
            diagonal.zero_()
        assert weight.any(2).sum() <= round(0.1 * 8 * columns) and weight.any()
    for row in ("compact", "float32"):
        assert rows[row]["test_bpc"] == pytest.approx(rows["sparse"]["test_bpc"], rel=1e-5)
        assert rows[row]["max_error"] < 1e-4
    assert rows["onnx"]["test_bpc"] == pytest.approx(rows["dense"]["test_bpc"], rel=0.02)
    assert rows["direct"]["weights"] == pytest.approx(rows["sparse"]["nonzero"], rel=0.1)
    found = recipe(run).loaded()
    with torch.no_grad():
        whole = found.models["onnx"](found.example_inputs[:, :1])
        stream = found.models["onnx"].stream()
        steps = torch.stack([stream.step(x).clone() for x in found.example_inputs[:, :1]])
        want = found.models["dense"](found.example_inputs[:, :1])
        forgetful = torch.stack([found.models["onnx"](x[None])[0] for x in found.example_inputs[:, :1]])
    # Quantised at every call, so only near; but much nearer than without a state that is carried.
    whole_off, off, far_off = ((got - want).abs().mean() for got in (whole, steps, forgetful))
    assert max(whole_off, off) < 0.1 and max(whole_off, off) < far_off / 3


def test_blocks_can_do_without_onnxruntime(tmp_path, capsys, monkeypatch):
    from sparsernn_studies.stories import blocks

    monkeypatch.setattr(blocks.importlib.util, "find_spec", lambda name: None)
    RECIPES["blocks"](make_run(tmp_path, "blocks", steps=4, bench_rounds=1)).complete()
    assert "onnxruntime is not installed" in capsys.readouterr().out
    assert "onnx" not in {r.row for r in collect(tmp_path / "results")}


def test_reber_rows_have_the_sparsity_asked_for(tmp_path):
    run = make_run(tmp_path, "reber", cells=("lstm", "rnn"), sparsity=0.75, target=0.2, steps=20)
    RECIPES["reber"](run).complete()
    rows = {r.row: r.measured for r in collect(tmp_path / "results")}
    for cell, gates in (("lstm", 4), ("rnn", 1)):
        hidden, embedding = 16, 16
        dense, prune, target = (rows[f"{cell}-{method}"] for method in ("dense", "prune", "target"))
        matrices = (gates * hidden * embedding, gates * hidden * hidden)
        gone = sum(round(0.75 * n) for n in matrices)
        assert dense["nonzero"] - prune["nonzero"] == gone
        units = target["units"][0]
        assert units < hidden and gates * units * (units + embedding) <= 0.2 * sum(matrices)
        assert target["weights"] == 8 * embedding + gates * units * (embedding + units) + 2 * units
    assert rows["lstm-dense"].keys() >= {"test_accuracy", "units", "weights", "nonzero", "parameters"}


def test_results_follow_the_schema_and_keep_no_path(tmp_path):
    run = make_run(tmp_path, "reber", steps=4)
    RECIPES["reber"](run).complete()
    path = place(tmp_path / "results", "reber", "smoke", "gru-dense", 0)
    content = json.loads(path.read_text())
    assert tuple(content) == FIELDS
    assert str(tmp_path) not in path.read_text()
    assert content["threads"] == 1 and content["settings"]["steps"] == 4 and content["paper"]["test_accuracy"] == 1.0
    again = read(path)
    assert write(tmp_path / "other", again).read_text() == path.read_text()


def test_results_of_other_settings_are_not_taken_together(tmp_path):
    common = dict.fromkeys(FIELDS) | {"recipe": "reber", "scale": "cpu", "row": "dense", "paper": {}, "measured": {}}
    common |= {"seconds": 0.0, "versions": {}}
    for seed, settings in enumerate(
        ({"steps": 4, "rows": ["dense"]}, {"steps": 4, "rows": ["dense", "prune"], "new": 1})
    ):
        write(tmp_path, Result(**{**common, "seed": seed, "settings": settings}))
    assert [r.seed for r in collect(tmp_path)] == [0, 1]  # which rows were asked for says nothing of how one was made
    write(tmp_path, Result(**{**common, "seed": 2, "settings": {"steps": 8, "rows": ["dense"]}}))
    with pytest.raises(ResultError, match=r"reber: the row dense has steps = 4 at seed 0 and 8 at seed 2.*two folders"):
        collect(tmp_path)


def test_rows_of_other_settings_are_made_anew(tmp_path):
    run = make_run(tmp_path, "reber")
    assert run.row("a", lambda: {"x": 1}).measured == {"x": 1}
    assert run.row("a", lambda: {"x": 2}).measured == {"x": 1}
    other = dataclasses.replace(run, settings=dataclasses.replace(run.settings, hidden=5))
    assert other.row("a", lambda: {"x": 3}).measured == {"x": 3}
    with pytest.raises(RunError, match="holds another run"):
        other.begin()


def test_foreign_files_are_named(tmp_path):
    path = tmp_path / "r" / "s" / "a-seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ResultError, match=r"a-seed0\.json cannot be read"):
        collect(tmp_path)
    path.write_text('{"recipe": "r"}')
    with pytest.raises(ResultError, match="is not a result: it lacks commit, date, device"):
        read(path)
    (tmp_path / "run.json").write_text('{"recipe": "reber"}')
    with pytest.raises(RunError, match="lacks command, scale, seed, settings"):
        describe(tmp_path)


def test_a_figure_that_is_not_finite_is_never_written(tmp_path):
    run = make_run(tmp_path, "reber")
    with pytest.raises(ValueError, match="JSON"):
        run.row("a", lambda: {"x": float("nan")})
    assert not place(run.results, "reber", "smoke", "a", 0).exists()


@pytest.mark.smoke
def test_settings_are_typed_and_never_evaluated():
    settings = RECIPES["shakespeare"].at("smoke")
    changed = with_changes(settings, ["hidden=48", "learning_rate=1e-2", "precision=bfloat16"])
    assert (changed.hidden, changed.learning_rate, changed.precision) == (48, 0.01, "bfloat16")
    for bad in ("hidden=__import__('os').getpid()", "hidden=1.5", "hidden=", "precision=", "nothing=1"):
        with pytest.raises(SettingsError):
            with_changes(settings, [bad])


def test_sizes_count_each_stored_number_once():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4), "b": torch.nn.Linear(3, 4)})
    model["b"].weight = model["a"].weight
    with torch.no_grad():
        model["a"].weight[0] = 0
    assert sizes(model) == {"weights": 12, "nonzero": 9, "parameters": 20}


def test_documents_are_made_from_results_the_same_each_time(tmp_path):
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    common = dict.fromkeys(FIELDS) | {"settings": {}, "paper": {}, "versions": {"torch": "2"}, "device": "cpu"}
    common |= {"seconds": 0.0, "threads": 1}
    for seed, bits in ((0, 2.0), (1, 3.0)):
        for row in ("folded", "dense"):
            figures = {"test_bpc": bits, "units": [8 + 2 * seed], "file_bytes": 10}
            more = {"recipe": "shakespeare", "scale": "cpu", "row": row, "seed": seed, "measured": figures}
            write(tmp_path, Result(**{**common, **more, "date": "2026-01-01"}))
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "b.json").write_text('{"rows": [{"work": "a|b", "against": "torch", "ratio": 2.5}]}')
    for name in ("one.md", "two.md"):
        generate["main"](tmp_path, tmp_path / name)
    text = (tmp_path / "one.md").read_text()
    assert text == (tmp_path / "two.md").read_text()
    assert text.index("| dense | 2.500 | 9 |") < text.index("| folded, no training | 2.500 | 9 |")
    assert "Seeds 0, 1" in text and "| a\\|b | torch | 2.5 |" in text


def test_the_documents_are_up_to_date(tmp_path):
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    generate["main"](ROOT / "results", tmp_path / "results.md")
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()
