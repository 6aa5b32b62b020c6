"""The trials of a sweep in figures and in the report: the front, what is drawn where, and data of another form."""

import pytest
import torch
from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.analysis.trials import best, front, parallel_figure, pareto_figure


def trial(number, quality, size, **settings):
    return {"number": number, "settings": settings, "state": "done", "quality": quality, "size": size}


TRIALS = [
    trial(0, 0.8, 100, hidden=8, cell="gru"),
    trial(1, 0.7, 200, hidden=16, cell="lstm"),
    trial(2, 0.9, 400, hidden=32, cell="lstm"),
    trial(3, 0.9, 300, hidden=64, cell="gru"),
    {"number": 4, "settings": {"hidden": 8, "cell": "gru"}, "state": "failed", "quality": None, "size": None},
]
SWEEP = {"trials": TRIALS, "quality": "test_accuracy", "more": True, "size": "nonzero", "log": ["hidden"]}


def test_the_front_is_what_nothing_as_small_beats():
    assert front(TRIALS, more=True) == [0, 3] and best(TRIALS, more=True) == 3
    assert front(TRIALS, more=False) == [0, 1] and best(TRIALS, more=False) == 1
    assert front(TRIALS[4:], more=True) == [] and best(TRIALS[4:], more=True) is None


def test_parallel_axes_show_each_trial_where_its_values_are():
    (axes,) = parallel_figure(SWEEP).axes
    lines = [[float(y) for y in line.get_ydata()] for line in axes.lines if len(line.get_ydata()) == 3]
    # hidden by its logarithm, cells by their order, accuracy evenly; the axes themselves have two ends.
    expected = [[0, 0, 0.5], [1 / 3, 1, 0], [2 / 3, 1, 1], [1, 0, 1]]
    assert sorted([round(y, 9) for y in line] for line in lines) == sorted([round(y, 9) for y in e] for e in expected)
    texts = {text.get_text() for text in axes.texts}
    assert {"hidden", "cell", "test accuracy", "8", "64", "gru", "lstm", "0.7", "0.9"} <= texts


def test_the_front_is_numbered_and_the_rest_is_drawn():
    (axes,) = pareto_figure(SWEEP).axes
    beaten, leading = (points.get_offsets().tolist() for points in axes.collections)
    assert beaten == [[200, 0.7], [400, 0.9]] and leading == [[100, 0.8], [300, 0.9]]
    assert [text.get_text() for text in axes.texts] == ["0", "3"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.gru(x)[0])


def test_the_report_has_a_section_on_the_sweep(tmp_path):
    report = inspect(Net(), torch.zeros(3, 1, 2))
    page = report.html(tmp_path / "a.html", sweep=SWEEP).read_text(encoding="utf-8")
    assert "Sweep</h2>" in page and "No other trial is as good at its size or smaller: 0 and 3." in page
    assert "Sweep</h2>" not in report.html(tmp_path / "b.html").read_text(encoding="utf-8")
    nothing = {**SWEEP, "trials": TRIALS[4:]}
    assert "failed" in report.html(tmp_path / "c.html", sweep=nothing).read_text(encoding="utf-8")
    for bad, said in (
        ({"trials": TRIALS}, "sweep lacks quality, more, size"),
        ({**SWEEP, "trials": [{"number": 1}]}, r"sweep trials\[0\] is"),
    ):
        with pytest.raises(ValueError, match=said):
            report.html(tmp_path / "d.html", sweep=bad)
    assert not (tmp_path / "d.html").exists()
