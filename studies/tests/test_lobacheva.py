"""The recipes after Lobacheva: rows on a made-up text, which gates live, likeness against permuted units, the page."""

from __future__ import annotations

import dataclasses
import io
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev

import pytest
import torch
from rich.console import Console
from torch import nn

import sparsernn as srn
from sparsernn_studies.claims import judged
from sparsernn_studies.lobacheva import gates as gates_module
from sparsernn_studies.lobacheva.char import Characters
from sparsernn_studies.lobacheva.claims import all_of
from sparsernn_studies.lobacheva.figures import as_sums, from_sums, structure_figures
from sparsernn_studies.lobacheva.gates import Gates
from sparsernn_studies.lobacheva.settings import TextSettings, WordSettings
from sparsernn_studies.lobacheva.similarity import (
    gate_norms,
    gate_overlap,
    gate_overlap_within,
    overlap,
    size_overlap_within,
)
from sparsernn_studies.lobacheva.tasks import SymbolTask
from sparsernn_studies.lobacheva.units import Survivors
from sparsernn_studies.lobacheva.word import Words
from sparsernn_studies.models import OneHotLSTM, TextClassifier, WordScores
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.runs import Run
from sparsernn_studies.tasks.text import Text

ROOT = Path(__file__).resolve().parents[2]
TEXT = Text(
    tuple("abcdefg"), *(torch.randint(7, (n,), generator=torch.Generator().manual_seed(n)) for n in (400, 90, 120))
)
SMOKE: WordSettings = RECIPES["lobacheva-word"].at("smoke")


pytestmark = pytest.mark.usefixtures("one_thread")


def make_run(folder: Path, scale: str = "smoke", name: str = "lobacheva-char", **changes) -> Run:
    settings = dataclasses.replace(SMOKE, **changes)
    console = Console(file=io.StringIO())
    run = Run(name, scale, 0, settings, folder / "run", folder / "results", console=console)
    run.begin()
    return run


def work_of(run: Run, two_layers: bool = False) -> Gates:
    work = Words(run) if two_layers else Characters(run)
    work.tasks = {
        net: SymbolTask(run, lambda: TEXT, words=two_layers, two_layers=bool(net)) for net in work.nets(run.settings)
    }
    return work


def planted(*, dead: int = 0) -> OneHotLSTM:
    """Four units: full, leaky, vanilla, and one whose readers are zero (`dead`)."""
    torch.manual_seed(3)
    model = OneHotLSTM(7, 4)
    with torch.no_grad():
        model.lstm.bias_ih_l0.uniform_(0.5, 1)  # a vanilla unit whose g is 0 would be dead
        for gate, unit in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2)):
            model.lstm.weight_ih_l0[gate * 4 + unit] = 0
            model.lstm.weight_hh_l0[gate * 4 + unit] = 0
        model.lstm.weight_hh_l0[:, dead] = 0
        model.head.weight[:, dead] = 0
    return model


# --- the models


def test_one_hot_words_read_columns_and_the_state_is_carried():
    model = OneHotLSTM(7, 4, forget=1.0).double()
    x_TB = TEXT.test[:12].view(6, 2)
    columns_TBG = model.lstm.weight_ih_l0.t()[x_TB]
    identity = nn.LSTM(16, 4).double()
    identity.load_state_dict({**model.lstm.state_dict(), "weight_ih_l0": torch.eye(16)})
    assert torch.allclose(model(x_TB), model.head(identity(columns_TBG)[0]), atol=1e-12)
    first, state = model(x_TB[:3], model.zero_state(2))
    second, _ = model(x_TB[3:], state)
    assert torch.allclose(torch.cat([first, second]), model(x_TB), atol=1e-12)
    assert model.lstm.bias_ih_l0.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    gate = model.lstm.weight_hh_l0[4:8]
    assert torch.allclose(gate @ gate.T, torch.eye(4).double(), atol=1e-6)


def test_word_scores_of_two_classes_are_one_number_and_of_more_one_each():
    x_TB = torch.tensor([[0, 4], [3, 4]])
    two, four = WordScores(5), WordScores(5, 4)
    with torch.no_grad():
        two.embedding.weight[3:] = torch.tensor([[1.0], [3.0]])
        four.embedding.weight[4] = torch.arange(4.0)
    assert torch.allclose(two(x_TB), torch.tensor([[-1.0, 1.0], [-6 / 2**0.5, 6 / 2**0.5]]))
    assert torch.allclose(four(x_TB)[1], 2 * torch.arange(4.0) / 2**0.5)


# --- which gates live


def test_figures_of_planted_gates():
    model = planted()
    survivors = Survivors.of(model, TEXT.test[:40].view(10, 4))
    found = structure_figures(model, TEXT.test[:40].view(10, 4), survivors, lags=5)
    assert found["units"] == [3] and found["gates"] == [2 + 1 + 4]
    assert [found[f"gates_{gate}"] for gate in "ifgo"] == [[1], [1], [2], [3]]
    assert [found[kind] for kind in ("full", "leaky", "vanilla", "partial")] == [[1], [1], [1], [0]]
    assert found["layer0_units"] == [1, 2, 3] and found["layer0_gates"] == [4 + 8, 8, 15]
    assert found["mult_adds_units"] == (7 + 4) * 16 and found["mult_adds_gates"] == (7 + 4) * 7
    assert len(found["layer0_lag_vanilla"]) == 6 and found["layer0_meanlag_full"] > 0


def test_living_gates_as_numbers_come_back():
    alive = [[True, False, True], [False, False, True], [True, False, False], [True, False, True]]
    sums = as_sums(alive, [True, False, True])
    assert sums == [13, 11] and from_sums(sums, 4) == [[row[0], row[2]] for row in alive]


def test_survivors_keep_their_numbers_through_rounds_of_compaction():
    x = TEXT.test[:40].view(10, 4)
    model = planted(dead=1)
    survivors = Survivors.of(model, x)
    small = srn.compact(model, x)
    survivors = survivors.after(model, small)
    assert survivors.numbers["lstm.l0"].tolist() == [0, 2, 3]
    with torch.no_grad():
        small.lstm.weight_hh_l0[:, 1] = 0
        small.head.weight[:, 1] = 0
    smaller = srn.compact(small, x)
    assert survivors.after(small, smaller).numbers["lstm.l0"].tolist() == [0, 3]


def test_figures_of_any_model_whose_gates_are_folded():
    """What users call: both figures, before and after units and gates were taken out."""
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    x = torch.randint(1, 20, (9, 3))
    model = TextClassifier(20, 5, 8)
    srn.Prune(model, x, 0.5, level="gate", include="lstm.*").finish()
    srn.Prune(model, x, 0.25, level="unit").finish()
    for each in (model, srn.compact(model, x), srn.compact(model, x, gates=True)):
        report = srn.inspect(each, x)
        report.plot_gates().savefig(io.BytesIO())
        report.plot_gradient_lag(lags=4).savefig(io.BytesIO())


# --- likeness


def test_the_chance_of_an_overlap_is_that_of_all_permutations():
    among = set(range(7))
    for first, second in (({0, 1, 2}, {1, 2, 3, 4}), ({5}, {5}), (set(), {1}), ({0, 1}, {2, 3})):
        found = overlap(first, second, among)
        drawn = [len(first & set(chosen)) for chosen in combinations(range(7), len(second))]
        assert found.both == len(first & second)
        assert found.p_value == pytest.approx(sum(n >= found.both for n in drawn) / len(drawn))
        assert found.expected == pytest.approx(sum(drawn) / len(drawn))
        assert found.deviation == pytest.approx(pstdev(drawn))
        assert not found.deviation or found.excess == pytest.approx((found.both - fmean(drawn)) / pstdev(drawn))
    with pytest.raises(KeyError):
        overlap({1}, {1}, set())


def test_gates_are_compared_by_the_numbers_of_their_units():
    dense = {"layer0_units": list(range(10))}
    a = {"layer0_units": [1, 4, 7], "layer0_gates": [4, 15, 8]}
    b = {"layer0_units": [0, 4, 7], "layer0_gates": [4, 5, 12]}
    found = gate_overlap(dense, a, b, 0, "g")
    assert (found.first, found.second, found.both, found.population) == (2, 3, 1, 10)
    inner = gate_overlap_within(a, b, 0, "g")
    assert (inner.first, inner.second, inner.both, inner.population) == (1, 2, 1, 2)


def test_a_net_is_compared_with_the_largest_gates_of_the_dense_one():
    model = planted()
    norms = gate_norms(model)
    assert set(norms) == {f"layer0_norms_{gate}" for gate in "ifgo"}
    ih, hh = (getattr(model.lstm, f"weight_{kind}_l0").detach() for kind in ("ih", "hh"))
    assert norms["layer0_norms_f"] == pytest.approx(torch.cat([ih[4:8], hh[4:8]], 1).norm(dim=1).tolist(), rel=1e-5)
    dense = {"layer0_norms_g": [1.0, 9.0, 3.0, 5.0, 4.0]}
    a = {"layer0_units": [1, 2, 3, 4], "layer0_gates": [4, 0, 4, 0]}
    b = {"layer0_units": [0, 2, 3, 4], "layer0_gates": [4, 8, 4, 4]}
    found = size_overlap_within(dense, a, b, 0, "g")  # of 2, 3, 4 the largest two are 3 and 4
    assert (found.first, found.second, found.both, found.population) == (1, 2, 1, 3)


def test_a_gate_that_all_units_have_says_nothing_of_likeness():
    claim = next(c for c in all_of("lobacheva-char") if c.text.startswith("Bayes and pruning agree about gate g"))
    units = list(range(6))
    a, some = (
        {"layer0_units": units, "layer0_gates": [4] * 6},
        {"layer0_units": units, "layer0_gates": [4] * 3 + [8] * 3},
    )
    dense = {"dense": {"test_bpc": 1.0}, "bigram": {"test_bpc": 2.0}}
    for first, second, answer in ((a, some, "not answered"), (some, some, "holds")):
        rows = {**dense, "bayes-wgn": first, "prune-wgn": second}
        [verdict] = judged([claim], [rows] * 3)
        assert verdict.answer == answer
        assert ("in all of these units, or in none" in verdict.why) == (answer == "not answered")


# --- the rows


def test_settings_that_cannot_be_are_named():
    for changes, said in (
        ({"rows": ("bayes-x",)}, "rows is 'bayes-x', expected some of bayes-wgn"),
        ({"rounds": (1.0,)}, "expected one a round"),
        ({"symbols": -1}, "expected a whole number from 0 on"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(SMOKE, **changes)
    with pytest.raises(ValueError, match="at least 1"):
        TextSettings(words=0)


@pytest.mark.parametrize("two_layers", [False, True])
def test_rows_are_made_timed_and_computed_as_measured(tmp_path, two_layers):
    run = make_run(tmp_path, rows=("bayes-wgn", "prune-wgn"), two_layers=5, strengths=(0.5, 0.5, 0.5))
    work = work_of(run, two_layers)
    rows = work.results()
    prefix = "two-" if two_layers else ""
    made = [
        f"{net}{row}"
        for net in dict.fromkeys(("", prefix))
        for row in ("dense", "dense-longer", "bayes-wgn", "prune-wgn")
    ]
    assert list(rows) == ["unigram", "bigram", *made]
    for row in made[-4:]:
        measured, model = rows[row].measured, work.load(work.named(row))
        assert measured["nonzero"] == sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() > 1)
        assert len(measured["units"]) == 1 + two_layers
        for name, value in work.tasks[prefix].quality(model).items():
            assert measured[name] == pytest.approx(value)
        if "dense" not in row:
            assert measured["epochs"][-1] == 2.0 and measured["max_error"] < 1e-4
            assert measured["compression_by_epoch"][-1] <= 1.05 * measured["compression"]
    assert rows[f"{prefix}prune-wgn"].measured["compression"] > 1.2
    table = RECIPES["lobacheva-word"].columns
    assert all(column.cell(rows[f"{prefix}bayes-wgn"].measured) != "-" for column in table if column.title == "units")


def test_a_run_that_was_killed_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    def figures(rows) -> dict:
        timed = ("ms_", "gain_", "spread_", "gates_gain", "train_seconds")
        return {row: {k: v for k, v in r.measured.items() if not k.startswith(timed)} for row, r in rows.items()}

    whole = work_of(make_run(tmp_path / "whole", rows=("bayes-wgn",))).results()
    run = make_run(tmp_path / "killed", rows=("bayes-wgn",))
    compacted = gates_module.compact

    def killed(*args, **options):
        raise KeyboardInterrupt

    work_of(run).result(work_of(run).named("dense"))
    monkeypatch.setattr(gates_module, "compact", killed)
    with pytest.raises(KeyboardInterrupt):
        work_of(run).results()
    monkeypatch.setattr(gates_module, "compact", compacted)
    again = work_of(run).results()
    assert figures(again) == figures(whole)


def test_the_page_is_made_from_the_results(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import gate_study

    assert "Not run yet" in gate_study.gates_page(tmp_path / "results", tmp_path / "none")
    work = work_of(make_run(tmp_path, scale="cpu", strengths=(0.5, 0.5, 0.5)))
    work.results()
    pages = [gate_study.gates_page(tmp_path / "results", tmp_path / name) for name in ("one", "two")]
    assert pages[0] == pages[1] and "Not run yet" in pages[0]
    for drawn in ("gates", "lag", "course"):
        name = f"figures/lobacheva-char-{drawn}.svg"
        assert f"({name})" in pages[0]
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for claim in all_of("lobacheva-char")[:5]:
        assert claim.text in pages[0]
    for module in ("gate_study", "studies"):
        sys.modules.pop(module, None)
