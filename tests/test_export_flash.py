"""`flash_bytes`: what `export_c` will write is known before, so that a model can be made to fit."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.export.footprint import estimated_code
from test_export_c import Tagger


class Words(nn.Module):
    """Tokens, two kinds of layers, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.gru = nn.GRU(12, 40, num_layers=2, batch_first=True)
        self.lstm = nn.LSTM(40, 33, batch_first=True)
        self.head = nn.Linear(33, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.gru(self.embedding(x))[0])[0])


def flash(report: dict) -> int:
    return report["flash"]["tables"] + report["flash"]["code"]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_bytes_of_a_model_and_of_a_compact_one_are_those_of_the_file(tmp_path, precision):
    torch.manual_seed(0)
    model, x = Words().eval(), torch.randint(50, (2, 30))
    cost = srn.flash_bytes(model, x, precision=precision)
    assert cost({}) == flash(srn.export_c(model, tmp_path, example=x, precision=precision))
    folded = srn.fold(model, [torch.randint(50, (20, 40)) for _ in range(4)], to=0.4)
    small = srn.compact(folded.model, x)
    widths = {name: int((~gone).sum()) for name, gone in folded.removed.items()}
    report = srn.export_c(small, tmp_path, example=x, precision=precision)
    assert cost(widths) == pytest.approx(flash(report), abs=200)  # the code differs by a few statements


@pytest.mark.parametrize("precision, budget", [("float32", 24 * 1024), ("int8", 10 * 1024)])
def test_a_model_folded_to_a_number_of_bytes_makes_a_file_that_fits_and_fills_it(tmp_path, precision, budget):
    torch.manual_seed(0)
    model, x = Words().eval(), torch.randint(50, (2, 30))
    batches = [torch.randint(50, (20, 40)) for _ in range(4)]
    cost = srn.flash_bytes(model, x, precision=precision)
    assert cost({}) > 1.5 * budget
    folded = srn.fold(model, batches, to=budget, cost=cost)
    report = srn.export_c(srn.compact(folded.model, x), tmp_path, example=x, precision=precision)
    assert 0.9 * budget < flash(report) <= budget
    assert report == json.loads((tmp_path / "model.json").read_text())


def test_training_towards_a_number_of_bytes_reaches_it(tmp_path):
    torch.manual_seed(0)
    model, x = Tagger(), torch.randn(8, 12, 6)
    cost = srn.flash_bytes(model, x)
    budget = 0.6 * cost({})
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = srn.Shrink(model, x, to=budget, cost=cost, steps=20).attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    small = srn.compact(sparsifier.finish().eval(), x)
    assert 0.8 * budget < flash(srn.export_c(small, tmp_path, example=x)) <= budget


def test_a_model_that_fits_is_left_whole_and_one_that_cannot_is_refused():
    model, batches = Tagger().eval(), [torch.randn(4, 40, 6) for _ in range(2)]
    cost = srn.flash_bytes(model, batches[0])
    assert not any(gone.any() for gone in srn.fold(model, batches, to=10**6, cost=cost).removed.values())
    with pytest.raises(ValueError, match="can't be reached"):
        srn.fold(model, batches, to=100, cost=cost)
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        srn.fold(model, batches, to=1000)


def test_a_layer_of_zeros_is_counted_with_all_its_weights(tmp_path):
    model, x = Tagger().eval(), torch.randn(1, 9, 6)
    with torch.no_grad():
        model.rnn.weight_hh_l0 *= 0
    assert srn.flash_bytes(model, x)({}) > flash(srn.export_c(model, tmp_path, example=x))


def test_code_is_estimated_by_its_statements_and_not_by_its_tables():
    text = "static const float t[2] = {\n 1.0f, 2.0f,\n};\nint f(void)\n{\n    int x = 1;\n    return x;\n}\n"
    assert estimated_code(text) == 40


def test_inspect_shows_what_the_c_file_takes(tmp_path):
    model, x = Tagger().eval(), torch.randn(1, 9, 6)
    report = srn.export_c(model, tmp_path, example=x)
    shown = srn.inspect(model, x, footprint=report)
    assert json.loads(json.dumps(shown.to_dict()))["footprint"] == json.loads(json.dumps(report))
    assert f"{report['flash']['tables']:,} bytes of tables" in str(shown)
    assert "footprint" not in srn.inspect(model, x).to_dict()
