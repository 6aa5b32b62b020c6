"""What a fold sees: operands at true positions, moments of all of them, and batches in any form."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

import sparsernn as srn
from fold_models import Tagger, batches, made
from sparsernn.learn.batches import shortened
from sparsernn.structure.sites import Moments, SiteRecorder

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 6, num_layers=2, bidirectional=True), nn.Linear(12, 2)

    def forward(self, x_TBI, lengths_B):
        y, _ = self.rnn(pack_padded_sequence(x_TBI, lengths_B, enforce_sorted=False))
        return self.head(pad_packed_sequence(y)[0])


def test_the_operands_are_those_of_true_positions():
    """Against the recurrence written out, one sequence at a time."""
    model = made(Packed())
    lengths = torch.tensor([5, 2, 4])
    x_TBI = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(2)).double()
    planes = frozenset((name, 1) for name, _ in model.named_parameters() if "weight" in name)
    recorder = SiteRecorder(model, planes)
    with torch.no_grad(), recorder:
        model(x_TBI, lengths)
    wanted: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for b, length in enumerate(lengths.tolist()):
            inputs = x_TBI[:length, b]
            for layer in range(2):
                outputs = []
                for end in ("", "_reverse"):
                    own = {
                        n: model.rnn.get_parameter(f"{n}_l{layer}{end}")
                        for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    }
                    cell = nn.LSTMCell(own["weight_ih"].shape[1], 6).double()
                    cell.load_state_dict(own)
                    source = inputs.flip(0) if end else inputs
                    state, states = (torch.zeros(1, 6).double(),) * 2, []
                    for step in source:
                        wanted.setdefault(f"rnn.weight_ih_l{layer}{end}", []).append(step)
                        wanted.setdefault(f"rnn.weight_hh_l{layer}{end}", []).append(state[0][0])
                        state = cell(step[None], state)
                        states.append(state[0][0])
                    outputs.append(torch.stack(states[::-1] if end else states))
                inputs = torch.cat(outputs, 1)
    assert {name for name, _ in recorder.sites} == {*wanted, "head.weight"} and not recorder.others
    for name, rows in wanted.items():
        x_NI = torch.cat([torch.stack(rows), torch.ones(len(rows), 1).double()], 1)
        moments = recorder.sites[name, 1].moments
        assert moments.count == len(rows) == 11
        torch.testing.assert_close(moments.total, x_NI.T @ x_NI, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"proj_size": 3}, {"proj_size": 3, "bias": False, "num_layers": 2}], ids=str)
def test_the_operand_of_a_projection_is_the_cells_output(options):
    model = made(nn.LSTM(4, 6, bidirectional=True, **options))
    lengths = [5, 2, 4]
    x = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in lengths]
    recorder = SiteRecorder(model, frozenset((name, 1) for name, _ in model.named_parameters()))
    with torch.no_grad(), recorder:
        model(nn.utils.rnn.pack_sequence(x, enforce_sorted=False))
    depth, wanted = options.get("num_layers", 1), {}
    with torch.no_grad():
        for inputs in x:
            for layer in range(depth):
                outputs = []
                for end in ("", "_reverse"):
                    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
                    w_ih, w_hh, b_ih, b_hh, w_hr = (getattr(model, f"{n}_l{layer}{end}", None) for n in names)
                    h, c, found = torch.zeros(3).double(), torch.zeros(6).double(), []
                    for step in inputs.flip(0) if end else inputs:
                        gates = w_ih @ step + w_hh @ h + (0 if b_ih is None else b_ih + b_hh)
                        i, f, g, o = gates.chunk(4)
                        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                        u = o.sigmoid() * c.tanh()
                        wanted.setdefault(f"weight_hr_l{layer}{end}", []).append(u)
                        h = w_hr @ u
                        found.append(h)
                    outputs.append(torch.stack(found[::-1] if end else found))
                inputs = torch.cat(outputs, 1)
    assert len(wanted) == 2 * depth
    for name, rows in wanted.items():
        moments = recorder.sites[name, 1].moments
        x_NI = torch.cat([torch.stack(rows), torch.ones(len(rows), 1).double()], 1)
        torch.testing.assert_close(moments.total, x_NI.T @ x_NI, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [3, 512, 700])
def test_moments_are_sums_over_all_positions(size):
    """Blocks and pieces change nothing; float32 inputs err by float32's rounding alone."""
    x_NI = torch.randn(2500, size, generator=torch.Generator().manual_seed(0)).double()
    exact, rounded = Moments(size), Moments(size)
    for part in x_NI.split(1100):
        exact.add(part)
        rounded.add(part.float())
    seen = torch.cat([x_NI, torch.ones(2500, 1).double()], 1)
    torch.testing.assert_close(exact.total, seen.T @ seen, rtol=1e-11, atol=1e-10)
    power = (seen.T @ seen).diagonal()
    assert float(((rounded.total - exact.total).abs() / (power[:, None] * power).sqrt()).max()) < 1e-5
    assert exact.count == rounded.count == 2500


def test_batches_come_in_many_forms():
    model, data = made(Tagger()), batches()
    plain = srn.fold(model, data)
    labels = [torch.zeros(8) for _ in data]
    forms = {
        "a generator": (x for x in data),
        "tuples": [(x,) for x in data],
        "tuples with more than forward takes": [(x, None, y) for x, y in zip(data, labels)],
        "what a DataLoader gives": [[x, y] for x, y in zip(data, labels)],
        "dicts": [{"x_TB": x} for x in data],
        "dicts with labels": [{"x_TB": x, "labels": y} for x, y in zip(data, labels)],
        "a DataLoader": DataLoader([(x, 0) for x in data], batch_size=1, collate_fn=lambda items: [items[0][0], 0]),
        "with an empty batch": [data[0], data[0][:, :0], *data[1:]],
    }
    for name, form in forms.items():
        found = srn.fold(model, form)
        assert all(torch.equal(found.removed[s], gone) for s, gone in plain.removed.items()), name
        torch.testing.assert_close(found.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0, msg=name)
    chosen = srn.fold(model, [{"text": x, "y": 0} for x in data], inputs=lambda batch: batch["text"])
    assert chosen.measured == plain.measured
    packed, x = made(Packed()), torch.randn(5, 3, 3).double()
    assert srn.fold(packed, [(x, torch.tensor([5, 2, 4]))] * 3).share <= 0.5
    assert srn.fold(model, itertools.cycle(data), positions=400).share <= 0.5


class OfSequences(nn.Module):
    """It takes packed sequences as they are."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(pad_packed_sequence(self.rnn(x)[0])[0])


def test_packed_sequences_are_batches():
    model, source = made(OfSequences()), torch.Generator().manual_seed(0)
    data = [
        nn.utils.rnn.pack_sequence(
            [torch.randn(n, 3, generator=source).double() for n in lengths], enforce_sorted=False
        )
        for lengths in ((5, 2, 9), (4, 8), (1, 1, 7, 3))
    ]
    folded = srn.fold(model, data, 0.5)
    assert folded.share <= 0.5 and not folded.kept
    small = srn.compact(folded.model, (data[0],))
    torch.testing.assert_close(small(data[1]), folded.model(data[1]), rtol=1e-10, atol=1e-10)


class Whole(nn.Module):
    """What it gives at a step depends on all sequences: a batch can't be cut."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6), nn.Linear(6, 2)

    def forward(self, x_TBI):
        y = self.rnn(x_TBI - x_TBI.mean((0, 1)))[0]
        return self.head(y)


def test_only_what_changes_nothing_is_cut_before_it_is_traced():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(9, 8, 3, generator=source).double()
    with torch.no_grad():
        model = made(Tagger())
        cut = shortened(model, ((batches()[0],), {}))
        assert cut[0][0].shape == (4, 4) and torch.equal(cut[0][0], batches()[0][:4, :4])
        assert shortened(made(Whole()), ((x,), {}))[0][0].shape == (9, 8, 3)
        assert shortened(made(Packed()), ((torch.randn(5, 6, 3).double(), torch.tensor([5, 2, 4, 1, 3, 3])), {}))[0][
            0
        ].shape == (5, 6, 3)  # lengths go along


@pytest.mark.filterwarnings("error")
def test_few_positions_are_told():
    with pytest.warns(UserWarning, match=r"24 positions .* were seen for 12 units a layer; give at least 120"):
        srn.fold(made(Tagger()), batches(1, 6, 4))
