"""A layout is one file: whatever stands in the folder is found, offered, costed and measured, and needs no list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from sparsernn.runtime import costs, layouts
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layouts import LAYOUTS, offered
from sparsernn.runtime.pack import Arrangement, unit_rows

FILES = sorted(file.stem for file in Path(layouts.__file__).parent.glob("*.py") if file.stem != "__init__")


def test_every_file_of_the_folder_brings_layouts_under_names_of_their_own() -> None:
    assert {type(layout).__module__.rpartition(".")[2] for layout in LAYOUTS.values()} == set(FILES)
    brought = [layout.name for file in FILES for layout in sys.modules[f"{layouts.__name__}.{file}"].LAYOUTS]
    assert sorted(brought) == sorted(LAYOUTS) and len(brought) == len(set(brought))
    assert not set(LAYOUTS) & {"move", "gates", "call", "bandwidth"}  # their costs stand side by side in one file


@pytest.mark.parametrize("precision", get_args(Precision))
def test_one_layout_of_each_precision_takes_all_matrices_and_comes_first(precision: Precision) -> None:
    known = offered(precision)
    assert [LAYOUTS[name].surest for name in known] == [True] + [False] * (len(known) - 1)


def test_packing_and_choosing_are_done_without_numba() -> None:
    """A process that finds its kernels in the cache never imports it: half a second."""
    code = "import sys; from sparsernn.runtime import costs, matrices; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", LAYOUTS)
def test_costs_are_kept_by_the_names_of_the_layouts_and_predict_more_for_more(name: str) -> None:
    said = json.loads(costs.as_json(costs.Costs()))
    assert tuple(said[name]) == LAYOUTS[name].costs
    rows, where = unit_rows(96, 1, (0,), 1)
    arrangement = Arrangement(rows, where, None, rows.numel())
    torch.manual_seed(0)
    weight = torch.randn(96, 130) * (torch.rand(96, 130) < 0.3)
    few, many = costs.count(weight * (torch.rand(96, 130) < 0.5), arrangement), costs.count(weight, arrangement)
    took = [costs.predict(name, counts, inputs, costs.Costs()) for counts in (few, many) for inputs in (1, 64)]
    assert 0 < took[0] <= took[2] and took[0] < took[1] and took[2] < took[3]
    nothing = costs.count(torch.zeros(96, 130), arrangement)
    assert costs.predict(name, nothing, 1, costs.Costs()) <= 130 * costs.Costs().move


def test_costs_of_a_file_that_lacks_a_layout_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were measured before there was one: what it costs beside the others is not known."""
    monkeypatch.setattr(costs, "tuned_file", lambda: tmp_path / "costs.json")
    said = json.loads(costs.as_json(costs.Costs(move=0.5)))
    without = {name: cost for name, cost in said.items() if name != "rows"}
    try:
        for content, want in ((said, 0.5), ({**said, "left": 0.8}, 0.5), (without, 0.35)):
            (tmp_path / "costs.json").write_text(json.dumps(content))
            costs.current.cache_clear()
            assert costs.current().move == want
    finally:
        costs.current.cache_clear()
