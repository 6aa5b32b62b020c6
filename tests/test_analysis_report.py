"""The one-file report: it says what was given, and nothing in it can do harm."""

import io
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from analysis_models import TOKENS, kill_units, make_constant, tagger
from report_pages import EXTRAS, Page
from sparsernn.analysis import plots
from sparsernn.analysis.sparsity import inspect

EVIL = "<script>alert('1')</script> & $\\frac{1}$ \"quoted\""


@pytest.fixture(scope="module")
def report():
    model = tagger()
    kill_units(model, [1, 4])
    make_constant(model, 0, [0])
    return inspect(model, TOKENS)


def written(report, folder, **extras):
    return report.html(folder / "report.html", **extras).read_text(encoding="utf-8")


@pytest.mark.smoke
def test_page_is_well_formed_and_has_every_section_with_data(report, tmp_path):
    text = written(report, tmp_path, **EXTRAS, gradient_lag=report.gradient_lag(3))
    page = Page(text)
    assert page.wrong == [] and page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', text):
        assert reference in ids
    headings = re.findall(r"<h2[^>]*><span>\d+</span>([^<]+)</h2>", text)
    assert headings == [
        "Quality against size and speed",
        "Layers",
        "Weights and units",
        "Kinds of cells",
        "Training",
        "Times",
        "Checks",
    ]
    words = " ".join(page.text)
    for shown in ("2 of 6 units can go", "sparsernn run shakespeare --seed 0", "2.3 ± 0.07071", "paper 2.1", "14.2x"):
        assert shown in words
    # 0.4 of 0.7 ms are the head's: it has become the layer to look at.
    assert "After compaction head takes 57% of the time" in words


def test_sections_without_data_are_absent(report, tmp_path):
    headings = re.findall(r"<h2[^>]*><span>\d+</span>([^<]+)</h2>", written(report, tmp_path))
    assert headings == ["Layers", "Weights and units", "Kinds of cells"]


def test_reasons_have_a_section_of_their_own(tmp_path):
    torch.manual_seed(0)
    report = inspect(nn.LSTM(5, 6), torch.randn(7, 4, 5))
    words = " ".join(Page(written(report, tmp_path)).text)
    assert "What can't go, and why" in words
    assert report.snapshot.kept[0].reason in words


def test_page_needs_no_network_and_no_script(report, tmp_path):
    text = written(report, tmp_path, **EXTRAS, gradient_lag=report.gradient_lag(3))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"https?://|//[a-z]|@import|javascript:", text)
    for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
        assert all(value.startswith(("#", "data:image/png;base64,")) for value in page.values(name))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert text.isprintable() or all(c.isprintable() or c in "\n\t" for c in text)


def test_every_string_is_escaped(tmp_path):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module(EVIL, nn.LSTM(5, 6))

        def forward(self, x):
            return self._modules[EVIL](x)[0]

    torch.manual_seed(0)
    report = inspect(Holder(), torch.randn(7, 4, 5))
    extras = {
        "title": EVIL,
        "verdict": EVIL,
        "command": EVIL,
        "runs": [{"row": EVIL, "measured": {EVIL: EVIL, "test_bpc": 1.0, "weights": 10}, "paper": {EVIL: 3}}] * 2,
        "layer_times": {EVIL: {"before": 1.0, "after": 1.0}},
        "gradient_lag": {**report.gradient_lag(2), EVIL: {"skipped": EVIL}},
        "history": {"loss": [1.0, 2.0], EVIL: [1.0, 2.0]},
        "benchmark": [{EVIL: EVIL}],
        "checks": {EVIL: EVIL},
    }
    page = Page(written(report, tmp_path, **extras))
    assert page.wrong == [] and page.open == []
    assert "script" not in page.tags
    assert any(EVIL in text for text in page.text)
    for figure in (report.plot_weights(), report.plot_groups(), report.plot_gates(), report.plot_gradient_lag(2)):
        figure.savefig(io.BytesIO(), format="png")


def test_figures_are_described_and_pages_fit_a_phone(report, tmp_path):
    text = written(report, tmp_path, **EXTRAS)
    page = Page(text)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert page.tags.count("figure") == page.tags.count("figcaption") > 0
    described = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(described) == page.tags.count("svg") and all(described)
    # A table may be wider than the screen; then its own box scrolls, which the keyboard can reach.
    assert text.count("<table>") == len(
        re.findall(r'<div class="scroll" tabindex="0" role="region"[^>]*>\s*<table>', text)
    )
    assert page.tags.count("caption") == page.tags.count("table")
    assert "prefers-color-scheme: dark" in text
    # Colours of figures are names that the style sheet defines for light and dark surroundings.
    names = set(re.findall(r"var\(--([a-z]+)\)", text))
    for name in names:
        assert text.count(f"--{name}: #") == 2


def test_text_has_contrast_in_both_schemes(report, tmp_path):
    text = written(report, tmp_path)
    schemes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)
    ]
    assert len(schemes) == 2
    for scheme in schemes:
        for name in ("ink", "muted", "accent"):
            for ground in ("ground", "sheet"):
                assert contrast(scheme[name], scheme[ground]) >= 4.5  # WCAG 2.2, AA
        for name in ("second", "third", "fourth"):
            assert contrast(scheme[name], scheme["ground"]) >= 3


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_same_report_same_bytes(report, tmp_path):
    assert written(report, tmp_path, **EXTRAS) == written(report, tmp_path, **EXTRAS)


def test_a_failed_write_leaves_the_old_file(report, tmp_path):
    path = report.html(tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lengths"):
        report.html(path, history={"step": [1, 2], "loss": [1.0]})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("extras", "fragment"),
    [
        ({"runs": ["dense"]}, "runs[0] is str"),
        ({"runs": [{"row": "dense", "measured": 3}]}, "expected a dict of metrics"),
        ({"layer_times": {"rnn.l0": 3.0}}, "layer_times['rnn.l0']"),
        ({"layer_times": {"rnn.l0": {"before": float("nan")}}}, "layer_times['rnn.l0']"),
        ({"history": {"loss": [1.0, "two"]}}, "history['loss'] contains 'two'"),
        ({"history": {"loss": [1.0], "kept": []}}, "lengths"),
        ({"gradient_lag": {"rnn.l0": 3}}, "report.gradient_lag()"),
        ({"benchmark": [3]}, "benchmark[0] is int"),
        ({"checks": ["fine"]}, "checks[0] is str"),
    ],
)
def test_data_of_another_form_is_refused_in_a_sentence(report, tmp_path, extras, fragment):
    with pytest.raises(ValueError) as caught:
        report.html(tmp_path / "report.html", **extras)
    assert fragment in str(caught.value) and "expected" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(report, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        report.html(tmp_path / "nowhere" / "report.html")


def test_a_missing_extra_is_a_sentence(report, tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *rest):
        if name.split(".")[0] in ("matplotlib", "jinja2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    for call in (lambda: report.html(tmp_path / "report.html"), report.plot_weights, report.plot_gates):
        with pytest.raises(ImportError, match=r"pip install 'sparsernn\[plots\]'"):
            call()
    assert "units can go" in str(report)


def test_figures_leave_pyplot_alone(report):
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    before, backend = dict(mpl.rcParams), mpl.get_backend(auto_select=False)
    figures = [report.plot_weights(), report.plot_weights(sort=True), report.plot_groups(), report.plot_gates()]
    for figure in (*figures, report.plot_gradient_lag(3)):
        for form in ("png", "svg"):
            out = io.BytesIO()
            figure.savefig(out, format=form)
            assert len(out.getvalue()) > 1000
    assert dict(mpl.rcParams) == before and mpl.get_backend(auto_select=False) == backend
    assert _pylab_helpers.Gcf.get_all_fig_managers() == []


def test_weights_figure_draws_each_weight_in_its_place(report):
    (layer,) = report.snapshot.recurrent
    drawn = plots._matrix_of(layer, report.snapshot, torch.arange(6), sort=False)
    masks = report.snapshot.masks
    assert torch.equal(drawn[:5], masks["rnn.weight_ih_l0"].T)
    assert torch.equal(drawn[5:], masks["rnn.weight_hh_l0"].T)
    order = torch.tensor([5, 3, 2, 0, 4, 1])
    moved = plots._matrix_of(layer, report.snapshot, order, sort=True)
    columns = torch.cat([gate * 6 + order for gate in range(4)])
    assert torch.equal(moved[:5], drawn[:5, columns])
    assert torch.equal(moved[5:], drawn[5:, columns][order])


@pytest.mark.parametrize("weights", [0, "many", None, [3, 4]])
def test_rows_without_a_place_are_left_out_of_the_chart(report, tmp_path, weights):
    rows = [{"row": str(n), "measured": {"test_bpc": 2.0 + n, "weights": w}} for n, w in enumerate((10, 20, weights))]
    assert written(report, tmp_path, runs=rows).count("Test bits per character over weights") >= 1
    assert "Test bits per character over weights" not in written(report, tmp_path, runs=rows[1:])


def test_speed_and_spread_stand_under_their_time(report, tmp_path):
    rows = [
        {"row": "dense", "measured": {"ms_step": 0.4, "speedup_step": 1.0, "spread_step": 0.02}},
        {"row": "fast", "measured": {"ms_step": 0.04, "speedup_step": 10.0, "spread_step": 0.03}},
    ]
    text = written(report, tmp_path, runs=rows)
    assert "0.04<small>10.0x, spread 3.0%</small>" in text
    assert "Speedup" not in text


def test_a_long_history_is_thinned_without_moving_its_mean(report, tmp_path):
    from sparsernn.analysis.charts import _thinned

    steps = list(range(100_000))
    values = [math.sin(s / 1e4) if s % 3 else None for s in steps]
    at, thinned = _thinned(steps, values)
    assert len(at) == len(thinned) <= 500
    assert np.abs(thinned - np.sin(at / 1e4)).max() < 0.02
    text = written(report, tmp_path, history={"step": steps, "loss": values})
    assert len(text) < 600_000
