"""The study on Reber strings: its flawed data, generators, what is pruned, rows, claims and page."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from sparsernn_studies.claims import judged
from sparsernn_studies.darji.claims import CLAIMS
from sparsernn_studies.darji.figures import curves, distributions
from sparsernn_studies.darji.paper import paper
from sparsernn_studies.darji.prune import Darji
from sparsernn_studies.darji.pruning import Course, histogram, prune, share_below
from sparsernn_studies.darji.settings import FLAWS, Net, Settings, rows_of
from sparsernn_studies.darji.stacks import STACKS, PaddedStackClassifier, StackClassifier, StackGenerator
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.runs import Run
from sparsernn_studies.tasks import reber
from sparsernn_studies.tasks.generation import NextLetter, sample, share
from sparsernn_studies.tasks.reber_flaws import ALPHABET, generate_flawed, relettered, turned
from sparsernn_studies.tasks.sequences import padded

ROOT = Path(__file__).resolve().parents[2]


def make_run(tmp_path: Path, scale: str = "smoke", **changes) -> Run:
    settings = dataclasses.replace(RECIPES["darji-prune"].at("smoke"), **changes)
    run = Run("darji-prune", scale, 0, settings, tmp_path / "run", tmp_path / "results", command="again")
    run.begin()
    return run


def test_flawed_strings_are_mixed_as_in_the_original():
    made = generate_flawed(1000, 3)
    assert made == generate_flawed(1000, 3) and len(set(made.strings)) == 1000 and sum(made.valid) == 500
    assert all(reber.accepts(s) is right for s, right in zip(made.strings, made.valid))
    wrong = [s for s, right in zip(made.strings, made.valid) if not right]
    foreign = [s for s in wrong if set(s) - set(reber.LETTERS)]
    assert len(foreign) == 280  # 7000 of 12500
    assert sum(reber.accepts(turned(s)) for s in wrong) >= 60  # 1500 of 12500, and mis-wired ones that come to the same
    assert all(s[0] == "B" and s[-1] == "E" and len(s) >= 11 for s in made.strings)
    with pytest.raises(ValueError, match="multiple of 4"):
        generate_flawed(6, 0)


def test_an_automaton_over_other_letters_keeps_its_wiring():
    import random

    other = relettered(random.Random(0))
    assert {s: [to for _, to in steps] for s, steps in other.items()} == {
        s: [to for _, to in steps] for s, steps in reber.REBER.items()
    }
    inner = {letter for state in range(1, 6) for letter, _ in other[state]}
    assert not inner & set(reber.LETTERS) and inner <= set(ALPHABET) and len(inner) == 5


@pytest.mark.parametrize("cell", STACKS)
def test_classifiers_read_the_last_letter_and_the_flaw_the_padding(cell):
    torch.manual_seed(0)
    right, flawed = (kind(cell, 8, 5, 6).double() for kind in (StackClassifier, PaddedStackClassifier))
    flawed.load_state_dict(right.state_dict())
    x_TB, lengths_B = padded(["BTXSE", "BPTVVE"], reber.LETTERS)
    alone = torch.cat([right(x_TB[:n, [b]], torch.tensor([n])) for b, n in enumerate(lengths_B.tolist())])
    assert torch.allclose(right(x_TB, lengths_B), alone, atol=1e-12)
    seen = flawed(x_TB, lengths_B)
    assert torch.allclose(seen[1], alone[1], atol=1e-12) and not torch.allclose(seen[0], alone[0], atol=1e-6)


@pytest.mark.parametrize("cell", STACKS)
def test_a_generator_steps_as_it_reads(cell):
    torch.manual_seed(0)
    model = StackGenerator(cell, 8, 5, 6).double()
    x_TB = torch.randint(1, 8, (7, 3))
    state, steps = None, []
    for x_B in x_TB:
        logits_BV, state = model.step(x_B, state)
        steps.append(logits_BV)
    assert torch.allclose(torch.stack(steps), model(x_TB), atol=1e-12)


class Wired(torch.nn.Module):
    """A generator that follows the automaton: its state is the automaton's, the branch is left to chance."""

    def step(self, x_B, state):
        state = [0] * len(x_B) if state is None else state
        after, logits_BV = [], torch.full((len(x_B), 8), -torch.inf)
        for n, (letter, at) in enumerate(zip(x_B.tolist(), state)):
            at = dict(reber.REBER.get(at, ())).get(reber.LETTERS[letter - 1], 6)
            after.append(at)
            for following, _ in reber.REBER.get(at, (("E", 0),)):
                logits_BV[n, reber.LETTERS.index(following) + 1] = 0.0
        return logits_BV, after


def test_what_the_automaton_generates_is_valid():
    strings = sample(Wired(), reber.LETTERS, 40, 60, seed=1)
    assert strings == sample(Wired(), reber.LETTERS, 40, 60, seed=1) and len(set(strings)) > 10
    assert share(strings, reber.accepts) == 1.0
    # Cut where it has not ended, which no automaton takes for a sentence.
    cut = sample(Wired(), reber.LETTERS, 40, 4, seed=1)
    assert all(len(s) <= 4 for s in cut) and share(cut, reber.accepts) == 0.0


def test_next_letters_leave_padding_out():
    x_TN, lengths_N = padded(["BTXSE", "BPTVVE"], reber.LETTERS)
    objective = NextLetter(x_TN, lengths_N, 2)
    torch.manual_seed(0)
    model = StackGenerator("gru", 8, 4, 5).double()
    batch = objective.batch(0)
    assert sorted(map(tuple, batch.T.tolist())) == sorted(map(tuple, x_TN.T.tolist()))
    ways = [model(x_TN[: n - 1, [b]]).log_softmax(-1)[:, 0] for b, n in enumerate(lengths_N.tolist())]
    parts = [-way[torch.arange(len(way)), x_TN[1 : len(way) + 1, b]] for b, way in enumerate(ways)]
    assert torch.allclose(objective.loss(model, batch, None)[0], torch.cat(parts).mean(), atol=1e-12)


@pytest.mark.parametrize("part, patterns", [("both", ("ih", "hh")), ("hh", ("hh",)), ("ih", ("ih",)), ("head", ())])
def test_a_part_is_pruned_by_one_threshold_for_all_layers(part, patterns):
    torch.manual_seed(0)
    model = StackClassifier("lstm", 8, 6, 7).double()
    with torch.no_grad():
        model.recurrent.weight_hh_l1 *= 3
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    prune(model, part, 0.7)
    after = dict(model.named_parameters())
    governed = {n for n, w in before.items() if w.dim() == 2 and any(f"weight_{p}" in n for p in patterns)}
    governed = governed or {"head.weight"}
    assert all(torch.equal(after[n], w) for n, w in before.items() if n not in governed)
    sizes = torch.cat([before[n].abs().flatten() for n in governed])
    gone = torch.cat([(after[n] == 0).flatten() for n in governed])
    assert int(gone.sum()) == round(0.7 * len(gone)) and sizes[gone].max() <= sizes[~gone].min()


def test_a_threshold_takes_what_lies_below_it():
    torch.manual_seed(0)
    model = StackClassifier("gru", 8, 6, 20)
    weights = [p for n, p in model.recurrent.named_parameters() if "weight" in n]
    below = [w.abs() < 0.1 for w in weights]
    prune(model, "threshold", share_below(model, 0.1))
    assert all(torch.equal(w == 0, gone) for w, gone in zip(weights, below)) and any(b.any() for b in below)


def test_histograms_count_every_weight_that_is_left():
    model = StackClassifier("tanh", 8, 6, 5)
    with torch.no_grad():
        model.recurrent.weight_hh_l0[0] = 0
        model.recurrent.weight_hh_l1[0, 0] = 9
    found = histogram(model)
    assert sum(found["hh"]) == 3 * 25 - 5 and found["hh"][-1] == 1 and sum(found["ih"]) == 30 + 50


def test_retraining_ends_when_good_or_hopeless():
    values = iter([0.5, 0.9, 0.97])
    course = Course(lambda: next(values), good=0.95, poor=0.51, epoch=10, patience=2)
    assert [course(step) for step in (5, 10, 20, 25, 30)] == [False, False, False, False, True]
    assert course.values == [0.5, 0.9, 0.97] and course.seconds >= 0
    hopeless = Course(lambda: 0.5, good=0.95, poor=0.51, epoch=10, patience=2)
    assert [hopeless(step) for step in (10, 20)] == [False, True]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """All rows of a smoke run, kept as results of the scale that the page shows."""
    run = make_run(tmp_path_factory.mktemp("finished"), scale="cpu")
    RECIPES["darji-prune"](run).complete()
    return run


def test_a_smoke_run_has_all_rows_holds_its_masks_and_resumes(finished, capsys):
    run, recipe = finished, RECIPES["darji-prune"]
    rows = {r.row: r for r in collect(run.results)}
    assert set(rows) == {row.name for row in rows_of(run.settings)} and len(rows) == 9
    dense, both = rows["gru-strings-dense"].measured, rows["gru-strings-both"].measured
    found = recipe(run).loaded()
    weights = [p for n, p in found.models[found.sparsified].named_parameters() if "weight" in n and "recurrent" in n]
    total, left = sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)
    assert left == total - round(0.9 * total)
    assert sum(both["pruned_ih"]) + sum(both["pruned_hh"]) == left == sum(both["retrained_ih"] + both["retrained_hh"])
    assert sum(dense["histogram_ih"]) + sum(dense["histogram_hh"]) == total
    assert len(dense["histogram_ih"]) == len(dense["histogram_edges"]) - 1
    for percent in (50, 90):
        good = both[f"after_{percent}"] >= dense["test_accuracy"] - run.settings.near
        assert (f"epochs_{percent}" in both) is good and len(both[f"course_{percent}"]) <= 2
    assert rows["gru-wide-threshold"].measured["pruned_0.05"] > 0
    assert {"share_valid", "share_new"} <= set(rows["gru-sentences-dense"].measured)
    assert rows["gru-all-dense"].paper == {"test_accuracy": 1.0} and rows["gru-sentences-both"].paper == {}
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Weights that are not zero" in page and "points lost" in page
    # One row's file gone: it alone is made again, and to the same figures but for the seconds.
    (run.results / "darji-prune" / "cpu" / "gru-strings-head-seed0.json").unlink()
    recipe(run).complete()
    assert "right after pruning" in capsys.readouterr().out
    again = {r.row: r for r in collect(run.results)}["gru-strings-head"].measured
    old = rows["gru-strings-head"].measured
    one, two = ({k: v for k, v in each.items() if "seconds" not in k} for each in (again, old))
    assert one == two


def test_each_flaw_is_what_its_name_says(tmp_path):
    work = Darji(make_run(tmp_path, flaws=FLAWS))
    clean, leaked, letters, every = (work.data(task) for task in ("strings", "leak", "letters", "all"))
    test = {tuple(x) for x in clean.test()[0].T.tolist()}
    train = [tuple(x) for x in clean.x_TN[:, : clean.train].T.tolist()]
    assert not test & set(train)
    assert len(test & {tuple(x) for x in leaked.x_TN[:, : leaked.train].T.tolist()}) == 1
    assert all(torch.equal(a, b) for a, b in zip(clean.test(), leaked.test()))
    assert int(clean.x_TN.max()) <= 7 < int(letters.x_TN.max()) and int(every.x_TN.max()) > 7
    kinds = {task: type(work.model(Net.of("gru", task))) for task in ("strings", "leak", "letters", "padding", "all")}
    assert kinds["padding"] is kinds["all"] is PaddedStackClassifier
    assert kinds["strings"] is kinds["leak"] is kinds["letters"] is StackClassifier


def test_embedded_strings_can_be_taken(tmp_path):
    work = Darji(make_run(tmp_path, embedded=True, longest=28))
    x_TN, lengths_N, classes_N = work.data("strings").test()
    strings = ["".join(reber.LETTERS[n - 1] for n in x[:k]) for x, k in zip(x_TN.T.tolist(), lengths_N.tolist())]
    assert [reber.accepts_embedded(s) for s in strings] == classes_N.bool().tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": ("rnn",)},
        {"flaws": ("mask",)},
        {"parts": ("threshold",)},
        {"percentages": (0,)},
        {"few": ()},
        {"thresholds": (0.0,)},
        {"strings": 17},
        {"longest": 11},
        {"retrain_epochs": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=r"expected|at least"):
        Settings(**changes)


def test_the_originals_figures_stand_with_their_rows():
    assert paper(Net.of("tanh", "strings", "both"))["after_80"] == 0.995
    assert paper(Net.of("lstm", "all", "hh")) == {
        "before_90": 0.953, "first_90": 1.0, "after_90": 1.0, "before_100": 0.521, "first_100": 0.988, "after_100": 1.0,
    }  # fmt: skip
    assert paper(Net.of("lstm", "strings", "both"))["before_60"] == 1.0
    assert paper(Net.of("lstm", "padding", "hh")) == paper(Net.of("lstm", "wide")) == {}


def made_up(after: float) -> dict:
    """Rows of the LSTM: 80% are free, without hidden-to-hidden weights it comes back to `after`."""
    figures = {f"before_{p}": 0.99 if p <= 80 else 0.6 for p in (60, 70, 80, 90, 100)}
    figures |= {f"first_{p}": 0.985 for p in (60, 70, 80, 90)} | {f"after_{p}": 0.99 for p in (60, 70, 80, 90)}
    hidden = {**figures, "first_100": 0.7, "after_100": after}
    inputs = {**figures, "before_80": 0.9, "first_100": 0.52, "after_100": 0.52}
    dense = {"test_accuracy": 0.99, "guess": 0.52}
    return {
        "lstm-strings-dense": dense, "lstm-strings-both": inputs, "lstm-strings-hh": hidden, "lstm-strings-ih": inputs,
        "lstm-all-dense": {"test_accuracy": 1.0, "guess": 0.52}, "lstm-all-hh": {**hidden, "first_100": 0.9},
    }  # fmt: skip


def test_claims_over_those_seeds_that_have_the_rows():
    one, two = made_up(0.97), made_up(0.99)
    del two["lstm-all-hh"]
    found = {v.claim.text: v for v in judged(CLAIMS, [one, two, made_up(0.98)])}
    hidden = found["LSTM: recovers without hidden-to-hidden weights, to under 1 point"]
    assert hidden.mean == pytest.approx(1.0) and hidden.answer == "not answered" and hidden.seeds == 3
    never = found["LSTM: without input-to-hidden weights it never recovers, but stays at least 10 points below"]
    assert never.answer == "holds" and never.mean == pytest.approx(47.0)
    redundant = found["LSTM: hidden-to-hidden has more redundancy (less is lost right after 80% are pruned)"]
    assert redundant.mean == pytest.approx(9.0) and redundant.answer == "holds"
    helped = found["LSTM: the flaws help it to recover without hidden-to-hidden weights (points after one epoch)"]
    assert helped.seeds == 2 and helped.mean == pytest.approx(19.0)
    assert helped.said == "not answered: 2 seeds of 3"
    assert not [text for text in found if "GRU" in text]


def test_curves_are_means_over_those_seeds():
    panels, dense = curves([made_up(0.97), made_up(0.99), {}], "strings", {"hh": "hidden-to-hidden"})
    percent, mean, spread = panels["LSTM"]["hidden-to-hidden, retrained"]
    assert percent == [60, 70, 80, 90, 100] and mean[-1] == pytest.approx(0.98) and dense == {"LSTM": 0.99}
    assert spread[-1] == pytest.approx(0.01 * 2**0.5) and set(panels) == {"LSTM"}
    assert distributions([{}]) == ({}, [])


def test_the_page_is_made_from_the_results(finished, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import reber_study

    with pytest.raises(LookupError, match="darji-prune"):
        reber_study.darji_page(tmp_path / "results", tmp_path / "one")
    pages = [reber_study.darji_page(finished.results, tmp_path / name) for name in ("one", "two")]
    assert pages[0] == pages[1] and "## Beside the original" in pages[0] and "all three flaws" in pages[0]
    for drawn in ("accuracy", "generation", "weights"):
        name = f"figures/darji-prune-{drawn}.svg"
        assert f"({name})" in pages[0]
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for module in ("reber_study", "studies"):
        sys.modules.pop(module, None)
