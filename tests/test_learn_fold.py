"""Folding: units go and the rest makes up for them, without training. Oracles in float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

import sparsernn as srn
from sparsernn.learn.batches import shortened
from sparsernn.learn.least_squares import Reader
from sparsernn.structure.sites import Moments, SiteRecorder

pytestmark = pytest.mark.filterwarnings("ignore:fold. [0-9]+ positions")


class Tagger(nn.Module):
    def __init__(self, cell=nn.LSTM, hidden=12, bias=True, **options):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.rnn = cell(6, hidden, bias=bias, **options)
        self.head = nn.Linear(
            options.get("proj_size", hidden) * (2 if options.get("bidirectional") else 1), 4, bias=bias
        )

    def forward(self, x_TB, state=None):
        return self.head(self.rnn(self.embedding(x_TB), state)[0])


def made(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep states alive."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1)
    return model.double().eval()


def batches(number: int = 6, steps: int = 10, batch: int = 8, seed: int = 1) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randint(9, (steps, batch), generator=source) for _ in range(number)]


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}, {"proj_size": 2}], ids=str
)
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_folded_model_compacts_to_the_same_function(cell, options):
    if "proj_size" in options and cell is not nn.LSTM:
        pytest.skip("only LSTM projects")
    model, data = made(Tagger(cell, **options)), batches()
    before = copy.deepcopy(model.state_dict())
    sizes = srn.fold(model, data, to=(0.75, 0.5, 0.3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(folded.kept for folded in sizes)
    for share, folded in zip((0.75, 0.5, 0.3), sizes):
        assert folded.share <= share
        small = srn.compact(folded.model, data[0])
        torch.testing.assert_close(small(data[1]), folded.model(data[1]), rtol=1e-10, atol=1e-10)
        traced = srn.trace(folded.model, data[0]).dead(dict(folded.model.named_parameters()))
        assert all(torch.equal(traced[name], gone) for name, gone in folded.removed.items())
        matrices = [name for layer in srn.trace(small, data[0]).layers for name in layer.matrices()]
        whole = sum(p.numel() for name, p in model.named_parameters() if name.startswith("rnn.weight"))
        left = sum(p.numel() for name, p in small.named_parameters() if name in matrices)
        assert left == pytest.approx(folded.share * whole) or options.get("num_layers") or options.get("bidirectional")
    changes = [folded.measured for folded in sizes]
    assert changes == sorted(changes)
    assert "units left" in str(sizes)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_of_twins_one_goes_and_nothing_changes(cell):
    """Each unit stands twice: half of them go at no loss, the weights of the pair added up."""
    single = made(Tagger(cell, 5))
    model = made(Tagger(cell, 10))
    gates = 4 if cell is nn.LSTM else 3
    with torch.no_grad():
        model.embedding.weight.copy_(single.embedding.weight)
        for name, p in model.rnn.named_parameters():
            value = single.rnn.get_parameter(name)
            doubled = value.view(gates, 5, -1).repeat_interleave(2, 1).reshape(10 * gates, -1)
            p.copy_(doubled.repeat_interleave(2, 1) / 2 if name == "weight_hh_l0" else doubled.view(p.shape))
        model.head.weight.copy_(single.head.weight.repeat_interleave(2, 1) / 2)
        model.head.bias.copy_(single.head.bias)
    data = batches()
    torch.testing.assert_close(model(data[0]), single(data[0]), rtol=1e-12, atol=1e-12)
    folded = srn.fold(model, data, to=0.4, ridge=1e-13)
    assert int((~folded.removed["rnn.l0"]).sum()) == 5
    assert sorted(n // 2 for n in torch.nonzero(~folded.removed["rnn.l0"])[:, 0].tolist()) == list(range(5))
    torch.testing.assert_close(folded.model(data[1]), model(data[1]), rtol=1e-9, atol=1e-9)
    assert folded.measured < 1e-9


def test_the_readers_are_the_least_squares_solution_over_what_stays():
    model, data = made(Tagger(nn.LSTM, 8)), batches()
    folded = srn.fold(model, data, to=0.5, ridge=0.0)
    gone = folded.removed["rnn.l0"]
    with torch.no_grad():
        h_NI = torch.cat([model.rnn(model.embedding(x))[0].flatten(0, 1) for x in data])
        before_NI = torch.cat(
            [nn.functional.pad(model.rnn(model.embedding(x))[0][:-1], (0, 0, 0, 0, 1, 0)).flatten(0, 1) for x in data]
        )
    for inputs_NI, weight, bias in (
        (h_NI, "head.weight", "head.bias"),
        (before_NI, "rnn.weight_hh_l0", "rnn.bias_hh_l0"),
    ):
        old, new = model.state_dict(), folded.model.state_dict()
        wanted = inputs_NI @ old[weight].T + old[bias]
        seen = torch.cat([inputs_NI[:, ~gone], torch.ones(len(inputs_NI), 1).double()], 1)
        solution = torch.linalg.lstsq(seen, wanted).solution
        torch.testing.assert_close(new[weight][:, ~gone], solution[:-1].T, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(new[bias], solution[-1], rtol=1e-8, atol=1e-8)
        assert not bool(new[weight][:, gone].any())


def test_the_first_to_go_is_the_one_that_brute_force_finds():
    source = torch.Generator().manual_seed(0)
    x_NI = torch.randn(300, 6, generator=source).double() @ torch.randn(6, 6, generator=source).double()
    readers = [torch.randn(rows, 6, generator=source).double() for rows in (3, 5)]
    seen = torch.cat([x_NI, torch.ones(300, 1).double()], 1)
    moment = seen.T @ seen / 300
    groups = torch.tensor([0, 1, 2, 3, 3, 4, -1])  # group 3 has two inputs; the constant stays
    work = [Reader(torch.cat([r, torch.zeros(len(r), 1)], 1), moment, groups, 0.0, bias=True) for r in readers]

    def error(out: tuple[int, ...]) -> float:
        stay = ~torch.isin(groups, torch.tensor(out))
        total = 0.0
        for r in readers:
            wanted = x_NI @ r.T
            found = torch.linalg.lstsq(seen[:, stay], wanted).solution
            total += float((seen[:, stay] @ found - wanted).square().sum()) / 300
        return total

    spent = 0.0
    for gone in itertools.accumulate([(3,), (0,), (4,)]):
        errors = sum(reader.errors(5) for reader in work)
        left = [g for g in range(5) if g not in gone[:-1]]
        brute = torch.tensor([error((*gone[:-1], g)) for g in left], dtype=torch.float64) - spent
        torch.testing.assert_close(errors[left], brute, rtol=1e-8, atol=1e-8)
        spent = error(gone)
        for reader in work:
            reader.remove(gone[-1])
    mask = torch.tensor([True, False, False, True, True])
    assert sum(r.change(r.solved(mask)) for r in work) == pytest.approx(spent, rel=1e-8)


class Several(nn.Module):
    """A unit read by itself, a head, a convolution, a transposed one, and another layer."""

    def __init__(self):
        super().__init__()
        self.rnn, self.next = nn.GRU(5, 8, batch_first=True), nn.LSTM(8, 6, batch_first=True)
        self.head, self.conv = nn.Linear(8, 3), nn.Conv1d(8, 2, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose1d(8, 2, 4, stride=2)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.next(y)[0], self.head(torch.relu(y)), self.conv(y.mT), self.up(y.mT)


def test_every_reader_of_a_unit_makes_up_for_it():
    model = made(Several())
    source = torch.Generator().manual_seed(1)
    data = [torch.randn(8, 12, 5, generator=source).double() for _ in range(5)]
    folded = srn.fold(model, data, to=0.7)
    assert folded.kept == {} or set(folded.kept) == {"next.l0"}  # the caller gets the states of the last layer
    gone = folded.removed["rnn.l0"]
    assert 0 < int(gone.sum()) < 8
    state = folded.model.state_dict()
    for name in ("rnn.weight_hh_l0", "next.weight_ih_l0", "head.weight", "conv.weight"):
        assert not bool(state[name][:, gone].any()), name
    assert not bool(state["up.weight"][gone].any())
    # Taking the same units out without making up for them is worse.
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("rnn.weight_hh_l0", "next.weight_ih_l0", "head.weight", "conv.weight"):
            plain.get_parameter(name)[:, gone] = 0
        plain.up.weight[gone] = 0

    @torch.no_grad()
    def change(other: nn.Module) -> float:
        return sum(float((a - b).square().sum()) for x in data for a, b in zip(other(x), model(x)))

    assert change(folded.model) < 0.5 * change(plain)
    small = srn.compact(folded.model, data[0])
    for a, b in zip(small(data[1]), folded.model(data[1])):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


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


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = self.rnn(x)[0]
        weights = torch.softmax((y * y[-1:]).sum(-1, keepdim=True), 0)
        return self.head((weights * y).sum(0))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(9, 6), nn.GRU(6, 6)

    def forward(self, x):
        return self.rnn(self.embedding(x))[0] @ self.embedding.weight.t()


def test_what_no_solution_can_make_up_for_stays_and_says_why():
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    for model, data, words in (
        (Attentive(), [x], "multiplied with another activation|No unit"),
        (Tied(), batches(2), "embedding.weight is used by embedding"),
    ):
        with pytest.raises(ValueError, match=words):
            srn.fold(made(model), data)


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


def test_costs_of_other_kinds():
    model, data = made(Tagger(nn.LSTM, 12)), batches()
    counted = srn.fold(model, data, to=0.5, cost="mult-adds")
    units = int((~counted.removed["rnn.l0"]).sum())
    size = lambda h: 4 * h * (6 + h) + 4 * h  # noqa: E731
    assert size(units) <= 0.5 * size(12) < size(units + 1)
    assert counted.share == pytest.approx(size(units) / size(12))
    bought = srn.fold(model, data, to=0.34, cost=lambda widths: float(widths["rnn.l0"]))
    assert int((~bought.removed["rnn.l0"]).sum()) == 4


def test_bad_input_is_told():
    model, data = made(Tagger()), batches()
    nan = made(Tagger())
    with torch.no_grad():
        nan.embedding.weight[0, 0] = torch.nan
    for call, kind, words in (
        (lambda: srn.fold(model, []), ValueError, "batches is empty"),
        (lambda: srn.fold(model, data[0]), TypeError, "batches is Tensor, expected an iterable of batches"),
        (lambda: srn.fold(model, data, to=1.5), ValueError, "to is 1.5, expected a share between 0 and 1"),
        (lambda: srn.fold(model, data, to=()), ValueError, "expected a share"),
        (lambda: srn.fold(model, data, to=0.001), ValueError, "can't be reached"),
        (lambda: srn.fold(model, data, cost="bytes"), ValueError, "cost is 'bytes'"),
        (lambda: srn.fold(model, [torch.zeros(2, 3)]), ValueError, "could not run on example"),
        (lambda: srn.fold(nan, data), ValueError, "NaN"),
        (lambda: srn.fold(model, iter([])), ValueError, "batches is empty"),
        (lambda: srn.fold(model, [x[:, :0] for x in data]), ValueError, "hold no position"),
        (lambda: srn.fold("model", data), TypeError, "expected a torch.nn.Module"),
    ):
        with pytest.raises(kind, match=words):
            call()


@pytest.mark.filterwarnings("error")
def test_few_positions_are_told():
    with pytest.warns(UserWarning, match=r"24 positions .* were seen for 12 units a layer; give at least 120"):
        srn.fold(made(Tagger()), batches(1, 6, 4))


def test_training_mode_and_requires_grad_stay():
    model = made(Tagger()).train()
    model.head.weight.requires_grad_(False)
    folded = srn.fold(model, batches()).model
    assert folded.training and model.training and type(folded) is Tagger
    assert not folded.head.weight.requires_grad and folded.rnn.weight_hh_l0.requires_grad
