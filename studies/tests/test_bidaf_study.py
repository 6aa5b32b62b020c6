"""The study wen-bidaf: its rows and settings, runs that are taken up, and `sparsernn answer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsernn.cli import main
from sparsernn_studies.data import DataError
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.runs import Run
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.tasks import squad
from sparsernn_studies.tasks.reading import Vocabulary
from sparsernn_studies.wen.bidaf import Bidaf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a smoke run."""
    where = tmp_path_factory.mktemp("bidaf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.delenv("SPARSERNN_DATA", raising=False)
        assert main(["run", "wen-bidaf", "--scale", "smoke"]) == 0
    return where / "runs" / "wen-bidaf" / "smoke-seed0"


def test_a_smoke_run_makes_all_rows(smoke):
    rows = {r.row: r.measured for r in collect(smoke / "results")}
    assert tuple(row.name for row in RECIPES["wen-bidaf"].at("smoke").nets) == (
        *("dense", "tuned-0.5", "iss-0.5", "target-tuned", "target", "direct"),
    )
    baseline = rows.pop("baseline")
    assert set(baseline) == {"em", "f1"} and 0 <= baseline["em"] <= baseline["f1"] <= 100
    assert len(rows) == 6 and set(rows) <= set(Bidaf.labels)
    for row, m in rows.items():
        assert m["same_answers"] == m["questions"] == 60, row
        assert 0 <= m["em"] <= m["f1"] + 1e-9 <= 100 and len(m["units"]) == 6
        assert all(
            m[f"ms_{form}"] > 0 and 0 < m[f"share_{form}"] < 1 for form in ("dense", "dense_fast", "compact", "fast")
        )
    assert rows["dense"]["units"] == [8] * 6
    assert "harmless_threshold" not in rows["dense"]  # asked for by threshold=0
    assert rows["direct"]["units"] == rows["target"]["units"] != [8] * 6
    assert rows["direct"]["weights"] == rows["target"]["weights"] < rows["dense"]["weights"]
    assert sum(rows["iss-0.5"]["units"]) < 48 and sum(rows["tuned-0.5"]["units"]) < 48
    inside = {row: sum(4 * o * (i + o) for i, o in _shapes(m["units"])) for row, m in rows.items()}
    for row in ("target", "target-tuned"):
        assert inside[row] <= 0.4 * inside["dense"] < 1.4 * inside[row]
    page = (smoke / "report.html").read_text(encoding="utf-8")
    assert page.count("dead units as white strips") >= 3 and all(Bidaf.labels[row] in page for row in rows)


def _shapes(found: list[int]) -> list[tuple[int, int]]:
    """(inputs, units) of the six LSTMs behind an attention of 64 columns."""
    a, b, c, d, e, f = found
    begun = 64 + 3 * (c + d)
    return [(64, a), (64, b), (a + b, c), (a + b, d), (begun, e), (begun, f)]


def test_a_run_is_taken_up_where_it_was_left(smoke, monkeypatch, capsys):
    monkeypatch.chdir(smoke.parents[2])
    monkeypatch.setattr("sparsernn_studies.study.train", None)
    assert main(["bench", "wen-bidaf"]) == 0
    out = capsys.readouterr().out
    assert "60/60" in out and all(
        Bidaf.labels[row] in out for row in (each.name for each in RECIPES["wen-bidaf"].at("smoke").nets)
    )
    assert main(["inspect", "wen-bidaf"]) == 0
    assert "units can go" in capsys.readouterr().out


TEXT = "Anna lives in Oslo. Ben drinks green tea! Clara works as\na pilot, somewhere far away."


def test_answer_tells_the_span_and_its_sentence(smoke, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    for question in ("Where does Anna live ?", "Qwxyz vbnm", "¿"):
        assert main(["answer", str(smoke), "--context", str(tmp_path / "text.txt"), "--question", question]) == 0
        first, second, third, *rest = capsys.readouterr().out.splitlines()
        span, _, share = first.rpartition(" (")
        assert span in " ".join(TEXT.split()) and second in " ".join(TEXT.split()) and not rest
        assert 0 <= int(share.removesuffix("%)")) <= 100 and span.split()[0] in second and second[-1] in ".!"
        counts = {r.row: r.measured["parameters"] for r in collect(smoke / "results") if r.row != "baseline"}
        smallest = min(counts, key=lambda row: counts[row])
        assert third == f"Read by {Bidaf.labels[smallest]!r}, {counts[smallest]:,} parameters beside the word vectors."


def test_answer_says_what_it_cannot_read(smoke, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fine.txt").write_text(TEXT)
    Path("empty.txt").write_text(" \n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("large.txt").write_text("a " * (1 << 19) + "a")
    half = tmp_path / "half"
    half.mkdir()
    (half / "run.json").write_text((smoke / "run.json").read_text())
    for run, file, question, code, words in (
        ("nothing", "fine.txt", "Who ?", 2, "There is no run nothing"),
        ("wen-bidaf", "fine.txt", "Who ?", 2, "There is no run wen-bidaf"),
        ("half", "fine.txt", "Who ?", 1, "half has no net yet, so the run is not done"),
        (str(smoke), "none.txt", "Who ?", 2, "There is no file none.txt; name a text with --context."),
        (str(smoke), "empty.txt", "Who ?", 1, "empty.txt has no words"),
        (str(smoke), "binary.txt", "Who ?", 1, "binary.txt is no text in UTF-8"),
        (str(smoke), "large.txt", "Who ?", 1, "large.txt has 1048577 bytes, expected at most 1048576"),
        (str(smoke), "fine.txt", "  ", 1, "The question '  ' has no words"),
    ):
        assert main(["answer", run, "--context", file, "--question", question]) == code
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said and said.count("\n") <= 3
    assert main(["answer", str(smoke), "--context", "fine.txt"]) == 2


def test_answer_needs_the_words_of_the_training(smoke, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    kept = smoke / "vocabulary.json"
    content = kept.read_text(encoding="utf-8")
    asked = ["answer", str(smoke), "--context", str(tmp_path / "text.txt"), "--question", "Who ?"]
    try:
        kept.write_text("{")
        assert main(asked) == 1
        assert "vocabulary.json cannot be read" in capsys.readouterr().err
        shorter = {**json.loads(content), "words": ["anna"]}
        kept.write_text(json.dumps(shorter))
        assert main(asked) == 1
        assert "modules.words.num_embeddings: got" in capsys.readouterr().err
    finally:
        kept.write_text(content, encoding="utf-8")


def test_other_recipes_do_not_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run("reber", "smoke", 0, RECIPES["reber"].at("smoke"), Path("runs/reber/a"), Path("results")).begin()
    Path("fine.txt").write_text(TEXT)
    assert main(["answer", "reber", "--context", "fine.txt", "--question", "Who ?"]) == 2
    assert "answers nothing; name a run of wen-bidaf." in capsys.readouterr().err


def test_the_settings_are_the_papers():
    settings = RECIPES["wen-bidaf"].at("paper")
    training = settings.training(settings.nets[0])
    assert (settings.hidden, settings.vector, settings.filters, settings.batch, training.steps) == (
        100,
        100,
        100,
        60,
        10_000,
    )
    assert [training.learning_rate * training.rate(step) for step in (0, 9_999)] == [1e-3, 1e-3]
    assert (settings.dropout, settings.sparse_dropout, settings.threshold) == (0.2, 0.1, 4e-4)
    assert 1e-3 in settings.strengths and len(settings.nets) == 1 + 4 + 4 + 3


@pytest.mark.parametrize(
    "change, words",
    [
        ("hidden=0", "hidden is 0"),
        ("strengths=-1", "strengths is .*, expected a number above 0"),
        ("target=1", "target is 1.0, expected a share from 0 to below 1"),
        ("dropout=1", "share from 0 to below 1"),
        ("corpus=news", "one of squad, subset, made"),
        ("optimizer=sgd", "one of adamw, adadelta"),
        ("learning_rate=0", "learning_rate"),
        ("bench_rounds=0", "bench_rounds is 0, expected a whole number, at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, words):
    with pytest.raises(SettingsError, match=words):
        with_changes(RECIPES["wen-bidaf"].at("cpu"), [change])


def test_word_vectors_are_read_from_the_data_folder_and_not_trained(tmp_path):
    words = Vocabulary.of(squad.made(240, 0)).words[:30]
    (tmp_path / "v.txt").write_text("".join(f"{word} {n} 0.5 -1\n" for n, word in enumerate(words)), encoding="utf-8")

    def work(data: Path | None, *changes: str) -> Bidaf:
        smoke = RECIPES["wen-bidaf"].at("smoke")
        settings = with_changes(smoke, ["vectors=v.txt", "vector=3", "steps=3", "questions=30", *changes])
        run = Run("wen-bidaf", "smoke", 0, settings, tmp_path / "run", tmp_path / "results", data)
        run.begin()
        return Bidaf(run)

    def make(study: Bidaf) -> None:
        study.make(study.named("dense"))

    with pytest.raises(DataError, match=r"v.txt is needed and no data folder is given"):
        make(work(None))
    made = work(tmp_path)
    make(made)
    assert set(made.vocabulary.words) <= set(words)
    found = made.load(made.named("dense")).words.weight.detach()[2:]
    assert [row[0] for row in found.tolist()] == [float(words.index(word)) for word in made.vocabulary.words]
    assert (found[:, 1:] == torch.tensor([0.5, -1.0])).all()
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(DataError, match=r"v.txt has vectors of 3 numbers, expected 4: --set vector=3."):
        make(work(tmp_path, "vector=4"))
