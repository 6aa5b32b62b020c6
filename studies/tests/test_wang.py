"""MNIST by rows: the files, the three schemes of pruning, the rows of the recipe and its claims."""

import dataclasses
import gzip
import hashlib
import runpy
from pathlib import Path

import pytest
import torch

from sparsernn_studies.claims import judged
from sparsernn_studies.data import DataError, DataFile, data_folder
from sparsernn_studies.models import RowClassifier
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.runs import Run
from sparsernn_studies.tasks import mnist_rows
from sparsernn_studies.tasks.mnist_rows import ImageClassification, Images, idx
from sparsernn_studies.wang.claims import CLAIMS
from sparsernn_studies.wang.figures import curves, remaining
from sparsernn_studies.wang.mnist import kept, prune
from sparsernn_studies.wang.rows import grouped, pruned, rows_of

ROOT = Path(__file__).resolve().parents[2]


def idx_bytes(values: torch.Tensor) -> bytes:
    header = b"\0\0\x08" + bytes([values.dim()]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return header + bytes(values.flatten().tolist())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with made-up images, a bright column for each class."""
    generator = torch.Generator().manual_seed(0)
    files = {}
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for part, count in (("train", 96), ("test", 40)):
        classes = torch.arange(count) % 10
        images = torch.randint(40, (count, 28, 28), generator=generator)
        images[torch.arange(count), :, 2 * classes] = 255
        for kind, values in (("images", images), ("labels", classes)):
            content = idx_bytes(values)
            packed = gzip.compress(content)
            path = f"mnist/{part}-{kind}.gz"
            (tmp_path / "data" / path).write_bytes(packed)
            sums = (hashlib.sha256(packed).hexdigest(), hashlib.sha256(content).hexdigest())
            files[f"{part}_{kind}"] = DataFile(path, *sums, "https://example.org")
    monkeypatch.setattr(mnist_rows, "FILES", files)
    return tmp_path / "data"


def test_files_become_images_by_rows(folder):
    train, test = mnist_rows.load(folder)
    assert train.x_TNI.shape == (28, 96, 28) and test.x_TNI.shape == (28, 40, 28)
    assert torch.equal(test.classes_N, torch.arange(40) % 10)
    assert bool((test.x_TNI[:, 7, 14] == 255).all())
    assert test.some(3).x_TNI.shape == (28, 3, 28) and test.some(0) is test


def test_what_is_no_idx_file_is_refused():
    whole = idx_bytes(torch.arange(6).reshape(2, 3))
    assert idx(whole, "a").tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (b"", whole[:-1], whole + b"\0", b"\0\0\x09" + whole[3:], whole[:4]):
        with pytest.raises(DataError, match="a is not an IDX file"):
            idx(wrong, "a")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"lacks mnist/train-images-idx3-ubyte\.gz \(or train-images-idx3-ubyte\)"):
        mnist_rows.load(tmp_path)


@pytest.mark.data
def test_the_published_images():
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SPARSERNN_DATA names no data folder")
    train, test = mnist_rows.load(folder)
    assert train.x_TNI.shape == (28, 60_000, 28) and test.x_TNI.shape == (28, 10_000, 28)
    assert test.classes_N[:5].tolist() == [7, 2, 1, 0, 4]


def test_an_epoch_has_every_image_once():
    images = Images(torch.zeros(28, 12, 28, dtype=torch.uint8), torch.arange(12))
    objective = ImageClassification(images, batch_size=4, seed=3)
    assert objective.epoch == 3
    for epoch in (0, 1):
        seen = torch.cat([objective.batch(3 * epoch + n)[1] for n in range(3)])
        assert sorted(seen.tolist()) == list(range(12))


@pytest.mark.parametrize(
    "part, patterns", [("all", ("ih", "hh", "head")), ("hh", ("hh",)), ("recurrent", ("ih", "hh"))]
)
@pytest.mark.parametrize("scheme", ["blind", "uniform", "distribution"])
def test_the_schemes_take_what_they_say(scheme, part, patterns):
    torch.manual_seed(0)
    model = RowClassifier("gru", 28, 9, 2).double()
    with torch.no_grad():
        model.recurrent.weight_hh_l0 *= 3  # matrices of different spread
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    prune(model, pruned("gru", 2, f"{scheme}-{part}", 80))
    governed = {n: w for n, w in before.items() if w.dim() == 2 and any(p in n for p in patterns)}
    after = dict(model.named_parameters())
    for name, weight in before.items():
        if name not in governed:
            assert torch.equal(after[name], weight)
    gone = {n: after[n] == 0 for n in governed}
    if scheme == "uniform":
        assert [int(g.sum()) for g in gone.values()] == [round(0.8 * w.numel()) for w in governed.values()]
        return
    scale = {n: w.std() if scheme == "distribution" else 1.0 for n, w in governed.items()}
    sizes = torch.cat([(w.abs() / scale[n]).flatten() for n, w in governed.items()])
    flags = torch.cat([g.flatten() for g in gone.values()])
    assert int(flags.sum()) == round(0.8 * len(flags))
    assert sizes[flags].max() <= sizes[~flags].min()  # one threshold for all


def test_shares_left_are_those_of_the_gates():
    model = RowClassifier("lstm", 28, 8)
    with torch.no_grad():
        model.recurrent.weight_ih_l0[8:16] = 0  # the forget gate
        model.recurrent.weight_hh_l0[24:28] = 0  # half of the output gate
        model.head.weight[0] = 0
    found = kept(model)
    assert found["ih0_f"] == 0 and found["ih0_i"] == 1 and found["hh0_o"] == 0.5 and found["head"] == 0.9


def test_a_smoke_run_keeps_its_masks_and_resumes(folder, tmp_path, capsys):
    settings = dataclasses.replace(RECIPES["wang-mnist"].at("smoke"), steps=6, retrain_steps=5)
    run = Run("wang-mnist", "smoke", 0, settings, tmp_path / "run", tmp_path / "results", data=folder)
    run.begin()
    RECIPES["wang-mnist"](run).complete()
    assert "points lost" in capsys.readouterr().out
    rows = {r.row: r.measured for r in collect(tmp_path / "results")}
    assert set(rows) == {row.name for row in rows_of(settings)}
    for layers in (1, 2):
        weights = rows[f"gru{layers}-dense"]["weights"]
        assert rows[f"gru{layers}-dense"]["nonzero"] == weights
        assert rows[f"gru{layers}-blind-all-95"]["nonzero"] == weights - round(0.95 * weights)
    hidden = 3 * 12 * 12
    assert rows["gru1-blind-hh-95"]["nonzero"] == rows["gru1-dense"]["weights"] - round(0.95 * hidden)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Weights remaining and pruned" in page and "retraining closes" in page
    # The pruned net that is shown is the one of the row.
    found = RECIPES["wang-mnist"](run).loaded()
    model = found.models[found.sparsified]
    assert (
        sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() > 1) == rows["gru1-blind-all-95"]["nonzero"]
    )


def made_up(after: float) -> dict:
    rows = {}
    for cell, worth in (("rnn", 0.88), ("lstm", after), ("gru", after)):
        rows[f"{cell}1-dense"], rows[f"{cell}1-longer"] = {"test_accuracy": 0.97}, {"test_accuracy": 0.98}
        gates = {"rnn": ("h",), "lstm": "ifgo", "gru": "rzn"}[cell]
        blocks = {f"kept_{kind}0_{gate}": 0.1 if kind == "ih" else 0.04 for kind in ("ih", "hh") for gate in gates}
        for percent in (80, 90, 95):
            rows[f"{cell}1-blind-all-{percent}"] = {"before": 0.18, "test_accuracy": worth, "kept_head": 0.2, **blocks}
    return rows


def test_claims_are_judged_by_the_interval_over_the_seeds():
    found = {v.claim.text: v for v in judged(CLAIMS, [grouped(made_up(after)) for after in (0.975, 0.965, 0.97)])}
    lstm = "LSTM, one layer: 95% pruned class-blind and retrained costs under 1 point, against the dense net "
    strict = found[lstm + "trained on for as long"]
    assert strict.mean == pytest.approx(1.0) and strict.answer == "not answered"
    # Student's t of two degrees of freedom.
    assert strict.interval == pytest.approx((1 - 4.30265 * 0.5 / 3**0.5, 1 + 4.30265 * 0.5 / 3**0.5), abs=1e-4)
    lenient = found[lstm + "that was pruned"]
    assert lenient.answer == "not answered" and lenient.mean == pytest.approx(0.0)
    assert found["RNN: retraining closes at least nine tenths of the gap at 95%"].answer == "refuted"
    assert found["LSTM: retraining closes at least nine tenths of the gap at 95%"].mean == pytest.approx(100.0)
    hidden = found["GRU: hidden-to-hidden has more redundancy (fewer of its weights survive at 95%)"]
    assert hidden.mean == pytest.approx(6.0) and hidden.answer == "holds"
    z = found["GRU's z gate has less redundancy than its r and n (more of its weights survive at 95%)"]
    assert z.mean == pytest.approx(0.0) and z.answer == "refuted"
    # What no row can answer is left out, not guessed.
    assert len(found) < len(CLAIMS) and not [text for text in found if "layers" in text]


def test_curves_and_bars_are_means_over_the_seeds():
    seeds = [grouped(made_up(0.9)), grouped(made_up(0.8))]
    rows = {net: [seed[net] for seed in seeds] for net in seeds[0]}
    panels, dense = curves(rows)
    percent, mean, spread = panels["LSTM"]["class-blind, retrained"]
    assert percent == [80, 90, 95] and mean == pytest.approx([0.85] * 3) and dense["GRU"] == 0.97
    assert spread == pytest.approx([0.005**0.5] * 3)
    bars = remaining(rows, 95)["LSTM"]
    assert bars["hh f"] == (round(0.04 * 128 * 128), 128 * 128 - round(0.04 * 128 * 128)) and len(bars) == 8


def test_the_page_is_made_from_the_results(folder, tmp_path):
    settings = dataclasses.replace(RECIPES["wang-mnist"].at("smoke"), steps=2, retrain_steps=2, layers=(1,))
    run = Run("wang-mnist", "cpu", 0, settings, tmp_path / "run", tmp_path / "results", data=folder)
    run.begin()
    RECIPES["wang-mnist"](run).complete()
    made = runpy.run_path(str(ROOT / "docs" / "studies.py"))
    pages = [made["wang_page"](tmp_path / "results", tmp_path / name) for name in ("one", "two")]
    assert pages[0] == pages[1] and "| GRU: hidden-to-hidden" in pages[0]
    for drawn in ("accuracy", "remaining"):
        name = f"wang-mnist-{drawn}.svg"
        assert f"({name})" in pages[0]
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
