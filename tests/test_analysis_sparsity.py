"""`inspect` against counts made by hand."""

import copy
import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from analysis_models import TOKENS, Tagger, kill_units, make_constant, tagger
from sparsernn.analysis.sparsity import inspect
from sparsernn.surgery.compact import compact


def layer(report, name):
    return next(row for row in report.to_dict()["layers"] if row["name"] == name)


@pytest.mark.smoke
def test_counts_of_an_lstm_by_hand():
    model = tagger()
    kill_units(model, [1, 4])
    make_constant(model, 0, [0, 2])  # i
    make_constant(model, 1, [0])  # f
    make_constant(model, 2, [0])  # g: unit 0 is vanilla, unit 2 partial
    rnn = layer(inspect(model, TOKENS), "rnn.l0")

    # hidden 6, input 5: 24 x 5 and 24 x 6; four units stay.
    assert rnn["kind"] == "LSTM"
    assert rnn["now"]["weights"] == rnn["now"]["mult_adds"] == 24 * 5 + 24 * 6
    assert rnn["now"]["parameters"] == 24 * 5 + 24 * 6 + 48
    assert rnn["now"]["bytes"] == 4 * rnn["now"]["parameters"]
    assert rnn["compact"]["weights"] == rnn["compact"]["mult_adds"] == 16 * 5 + 16 * 4
    assert rnn["compact"]["parameters"] == 16 * 5 + 16 * 4 + 32
    # Of the 16 rows that stay, 4 are zero (i of 0 and 2, f and g of 0).
    assert rnn["now"]["nonzero"] == rnn["compact"]["nonzero"] == 12 * 5 + 12 * 4
    assert rnn["now"]["density"] == pytest.approx(108 / 264)
    assert rnn["units"] == [
        {"name": "rnn.l0", "size": 6, "dead": 2, "free": 4, "kept": 0, "dead_units": [1, 4], "left": 4}
    ]
    assert (rnn["gates"], rnn["constant_gates"]) == (12, 4)
    assert rnn["kinds"] == {"full": 2, "partial": 1, "vanilla": 1, "dead": 2}
    assert rnn["unused_inputs"] == 0


def test_rows_of_each_gate_by_hand():
    model = tagger()
    make_constant(model, 3, [0, 1, 5])
    matrices = {m["parameter"]: m for m in layer(inspect(model, TOKENS), "rnn.l0")["matrices"]}
    gates = {g["gate"]: g for g in matrices["rnn.weight_ih_l0"]["gates"]}
    assert list(gates) == ["i", "f", "g", "o"]
    assert gates["o"] == {"gate": "o", "rows": 6, "weights": 30, "nonzero": 15, "constant": 3, "density": 0.5}
    assert gates["i"]["constant"] == 0 and gates["i"]["density"] == 1
    assert matrices["rnn.weight_hh_l0"]["part"] == "recurrent"
    assert matrices["rnn.bias_ih_l0"]["now"]["weights"] == 0


def test_other_layers_and_the_whole():
    model = tagger()
    kill_units(model, [0, 1, 2])
    report = inspect(model, TOKENS).to_dict()
    rows = {row["name"]: row for row in report["layers"]}
    assert [(row["name"], row["kind"]) for row in report["layers"]] == [
        ("embedding", "Embedding"), ("rnn.l0", "LSTM"), ("head", "Linear"),
    ]  # fmt: skip
    # A table is looked up, not multiplied.
    assert (rows["embedding"]["now"]["weights"], rows["embedding"]["now"]["mult_adds"]) == (55, 0)
    # The head loses the columns of dead units, its bias stays.
    assert rows["head"]["now"]["parameters"] == 11 * 6 + 11
    assert rows["head"]["compact"]["parameters"] == 11 * 3 + 11
    assert report["now"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert report["now"]["mult_adds"] == 264 + 66
    assert report["compact"]["mult_adds"] == 12 * 5 + 12 * 3 + 33


def test_a_decoder_tied_to_its_embedding_is_a_product():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 6)
            self.rnn = nn.GRU(6, 6)

        def forward(self, tokens):
            return nn.functional.linear(self.rnn(self.embedding(tokens))[0], self.embedding.weight)

    torch.manual_seed(0)
    assert layer(inspect(Tied(), TOKENS), "embedding")["now"]["mult_adds"] == 66


def test_counts_of_a_gru_by_hand():
    model = tagger(nn.GRU)
    kill_units(model, [3])
    make_constant(model, 0, [0, 1])
    make_constant(model, 1, [0])
    rnn = layer(inspect(model, TOKENS), "rnn.l0")
    assert rnn["now"]["mult_adds"] == 18 * 11
    assert rnn["compact"]["mult_adds"] == 15 * 10
    assert rnn["kinds"] == {"full": 3, "partial": 1, "leaky": 1, "dead": 1}


def test_the_candidate_of_a_gru_is_constant_only_if_nothing_in_it_moves():
    model = tagger(nn.GRU)
    make_constant(model, 2, [0, 1, 2, 3])
    make_constant(model, 0, [1])
    with torch.no_grad():
        model.rnn.bias_hh_l0[12 + 2] = 0
        model.rnn.bias_ih_l0[12 + 3] = 0
    alive = inspect(model, TOKENS).snapshot.alive["rnn.l0"]
    # n = tanh(b_in + r b_hn): unit 1 has a constant r, unit 2 no b_hn; in 0 and 3 r still moves it.
    assert alive[2].tolist() == [True, False, False, True, True, True]


def test_directions_have_rows_of_their_own():
    model = tagger(bidirectional=True)
    with torch.no_grad():
        model.head.weight[:, 6 + 2] = 0
        model.rnn.weight_hh_l0_reverse[:, 2] = 0
    report = inspect(model, TOKENS)
    assert layer(report, "rnn.l0")["units"][0]["dead_units"] == []
    assert layer(report, "rnn.l0_reverse")["units"][0]["dead_units"] == [2]
    assert layer(report, "rnn.l0_reverse")["compact"]["mult_adds"] == 20 * 5 + 20 * 5


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own remark on its speed
def test_a_projection_has_two_kinds_of_units():
    model = tagger(proj_size=3)
    with torch.no_grad():
        model.head.weight[:, 1] = 0
        model.rnn.weight_hh_l0[:, 1] = 0
        model.rnn.weight_hr_l0[:, [0, 4]] = 0
    rnn = layer(inspect(model, TOKENS), "rnn.l0")
    assert [(u["name"], u["size"], u["dead_units"]) for u in rnn["units"]] == [
        ("rnn.l0", 6, [0, 4]), ("rnn.l0.projected", 3, [1]),
    ]  # fmt: skip
    assert rnn["now"]["mult_adds"] == 24 * 5 + 24 * 3 + 3 * 6
    assert rnn["compact"]["mult_adds"] == 16 * 5 + 16 * 2 + 2 * 4


def test_units_that_are_handed_to_the_caller_are_kept_with_their_reason():
    torch.manual_seed(0)
    report = inspect(nn.LSTM(5, 6), torch.randn(7, 4, 5))
    found = report.to_dict()
    assert layer(report, "l0")["units"][0]["kept"] == 6
    assert {reason["unit_set"] for reason in found["kept"]} == {"l0"}
    assert all(reason["reason"] for reason in found["kept"])
    assert "can be removed" in found["verdict"]


def test_stacked_layers_shrink_where_the_layer_below_shrinks():
    model = tagger(num_layers=2)
    with torch.no_grad():
        model.rnn.weight_hh_l0[:, [0, 5]] = 0
        model.rnn.weight_ih_l1[:, [0, 5]] = 0
    rows = {row["name"]: row for row in inspect(model, TOKENS).to_dict()["layers"]}
    assert rows["rnn.l0"]["compact"]["weights"] == 16 * 5 + 16 * 4
    assert rows["rnn.l1"]["compact"]["weights"] == 24 * 4 + 24 * 6
    assert rows["rnn.l1"]["unused_inputs"] == 2


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_sums_agree_with_the_model(cell):
    model = tagger(cell, num_layers=2, bidirectional=True)
    found = inspect(model, TOKENS).to_dict()
    assert found["now"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["now"]["nonzero"] == sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() > 1)
    assert found["compact"] == found["now"]
    for row in found["layers"]:
        for matrix in row["matrices"]:
            if matrix["gates"]:
                assert sum(g["weights"] for g in matrix["gates"]) == matrix["now"]["weights"]
                assert sum(g["nonzero"] for g in matrix["gates"]) == matrix["now"]["nonzero"]


def test_inspection_changes_nothing_and_outlives_the_model():
    model = tagger().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    report = inspect(model, TOKENS)
    first = report.to_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.rnn.weight_hh_l0.zero_()
    assert report.to_dict() == first
    assert bool(report.snapshot.masks["rnn.weight_hh_l0"].all())


def test_to_dict_is_json():
    model = tagger()
    kill_units(model, [1, 4])
    found = inspect(model, TOKENS).to_dict()
    assert json.loads(json.dumps(found)) == found


def test_verdict_tells_what_goes_and_what_that_saves():
    model = tagger()
    assert inspect(model, TOKENS).verdict.startswith("No unit of 6 units can be removed yet: 6 may go")
    kill_units(model, [1, 4])
    # 264 + 66 multiply-adds before, 144 + 44 after.
    assert "2 of 6 units can go" in inspect(model, TOKENS).verdict
    assert "1.76x fewer multiply-adds" in inspect(model, TOKENS).verdict


def test_text_shows_layers_and_reasons_at_any_width():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("[bold]x[", nn.Linear(5, 5))
    model.add_module("rnn", nn.LSTM(5, 6))
    report = inspect(model, torch.randn(7, 4, 5))
    text = str(report)
    assert "LSTM" in text and "What can't go, and why" in text
    assert repr(report) == text
    assert "\x1b" not in text
    for width in (50, 60, 80, 100, 200):
        console = Console(width=width, file=io.StringIO())
        console.print(report)
        shown = console.file.getvalue()
        assert "[bold]x[" in shown and "rnn.l0" in shown and "264" in shown
        assert max(map(len, shown.splitlines())) <= width


def test_a_hand_written_cell_shows_its_units():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.again, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = torch.zeros(x.shape[1], 6)
            for step in x:
                h = torch.tanh(self.enter(step) + self.again(h))
            return self.head(h)

    torch.manual_seed(0)
    model = Loop()
    with torch.no_grad():
        model.again.weight[:, 2] = 0
        model.head.weight[:, 2] = 0
    found = inspect(model, torch.randn(7, 4, 5)).to_dict()
    assert sum(units["dead"] for row in found["layers"] for units in row["units"]) == 1
    # Row 2 of both matrices, column 2 of the recurrent one and of the head.
    assert found["now"]["weights"] - found["compact"]["weights"] == 5 + 11 + 2


def test_a_model_that_lies_on_no_example_path_is_still_counted():
    class Branches(Tagger):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3, 3)

    torch.manual_seed(0)
    with pytest.warns(UserWarning):
        found = inspect(Branches(), TOKENS).to_dict()
    assert found["compact"]["parameters"] == found["now"]["parameters"]
    assert any("unused" in note for note in found["notes"])


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


def test_gated_stacks_show_the_units_of_each_layer_behind_their_module():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(4, 6, 2), First(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for weight in (model[0].weight_ih_l0, model[0].weight_hh_l0):
            weight[:6] = 0
        model[2].weight[:, 2] = model[0].weight_hh_l1[:, 2] = 0
    x = torch.randn(5, 2, 4)
    report = inspect(compact(model, x, gates=True), x).to_dict()
    assert [(row["name"], [u["size"] for u in row["units"]]) for row in report["layers"]] == [
        ("0", []),
        ("0.l0", [6]),
        ("0.l1", [5]),
        ("2", []),
    ]
    assert not report["notes"]
