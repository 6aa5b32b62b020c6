"""A layout is one file: whatever stands in the folder is found, offered, costed and measured, and needs no list."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from sparsernn.runtime import costs, layouts
from sparsernn.runtime.held import Precision, rounded
from sparsernn.runtime.layouts import LAYOUTS, offered
from sparsernn.runtime.pack import WIDTH, Arrangement, unit_rows
from sparsernn.structure.coded import CodedMatrix, dense

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


def weights(how: str, rows: int, columns: int, seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=source)
    if how == "single":
        weight *= torch.rand(rows, columns, generator=source) < 0.2
    elif how == "blocks":
        weight *= (torch.rand(-(-rows // WIDTH), columns, generator=source) < 0.2).repeat_interleave(WIDTH, 0)[:rows]
    elif how == "few":
        weight[: rows // 2] = 0
    return weight if how != "nothing" else torch.zeros_like(weight)


@pytest.mark.parametrize("how", ["dense", "single", "blocks", "few", "nothing"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_packed_matrix_gives_back_the_numbers_that_were_packed(name: str, how: str) -> None:
    layout = LAYOUTS[name]
    for seed, (hidden, gates, slots, count, columns) in enumerate(
        [(40, 4, (0, 1, 2, 3), 4, 37), (64, 3, (0, 1, 3), 4, 64), (7, 1, (0,), 1, 1), (WIDTH * 9, 1, (0,), 1, 130)]
    ):
        order = torch.cat([torch.randperm(hidden), torch.full((-hidden % WIDTH,), -1)])
        for own in (None, order):
            rows, where = unit_rows(hidden, gates, slots, count, own)
            arrangement = Arrangement(rows, where, torch.zeros(rows.numel() * count), rows.numel() * count)
            weight = weights(how, hidden * gates, columns, seed)
            for precision in layout.precisions:
                source = rounded(weight, precision)
                plain = dense(source).float()
                packed = layout.pack(source if layout.weights == "int8" else plain, arrangement)
                found = layout.unpacked(packed, arrangement, *weight.shape)
                if layout.weights == "int8":
                    assert isinstance(source, CodedMatrix) and torch.equal(found, source.numbers())
                else:
                    want = plain.bfloat16().float() if layout.weights == "bfloat16" else plain
                    left = 0 if layout.weights == "float32" else 2**-8  # single weights may stay in float32
                    assert torch.allclose(found, want, rtol=left, atol=0)
                matrix = costs.Matrix(weight, arrangement, precision)
                assert matrix.packed(name).layout == packed.layout
                again = matrix.source
                assert type(again) is type(source) and torch.equal(dense(again), dense(source))
                for part, want in zip(parts(again), parts(source), strict=True):
                    assert part.dtype == want.dtype and torch.equal(part, want)


def parts(weight: torch.Tensor | CodedMatrix) -> list[torch.Tensor]:
    return [weight] if isinstance(weight, torch.Tensor) else list(weight.parts.values())
