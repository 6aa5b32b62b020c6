"""Contract 1: `compact` returns the same function in smaller modules, for any dead set of any architecture."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsernn as srn
from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.structure.cells import recurrent_layers
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import HAND, Architecture, Slice, difference, run, set_slices
from .architectures import ARCHITECTURES
from .test_declarations import sizes

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

REMOVABLE = [name for name, one in ARCHITECTURES.items() if set(one.readers) - one.either]
Units = dict[str, set[int]]


def removable(architecture: Architecture, model: nn.Module) -> Units:
    """The units that may go, by the declarations."""
    size = sizes(architecture, model)
    return {
        s: set(range(size[s])) - architecture.kept_units(s, size[s])[1]
        for s in architecture.readers
        if s not in architecture.either
    }


def kill(architecture: Architecture, model: nn.Module, share: float, seed: int) -> tuple[Units, set[Slice]]:
    """Zero every reader of a random `share` of the removable units; the units that are dead by that."""
    generator = torch.Generator().manual_seed(seed)
    free = removable(architecture, model)
    zeroed: set[Slice] = set()
    for unit_set, units in free.items():
        for unit in units:
            if torch.rand((), generator=generator) < share:
                zeroed |= architecture.slices(unit_set, unit)
    set_slices(dict(model.named_parameters()), frozenset(zeroed), 0.0)
    dead = {s: {k for k in units if architecture.slices(s, k) <= zeroed} for s, units in free.items()}
    return dead, zeroed


def quiet_compact(model: nn.Module, example: Any, **options: Any) -> nn.Module:
    """`compact` where it may have to say that nothing can go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compact(model, example, **options)


def widths(model: nn.Module) -> dict[str, int]:
    found = {}
    for layer in recurrent_layers(model):
        found[layer.name] = layer.hidden_size
        if layer.proj_size:
            found[f"{layer.name}.projected"] = layer.proj_size
    return found


def floor(after: dict[str, int], unit_set: str) -> int:
    """The least width of a unit set: one; for cells with a projection more than projected units (torch's own rule)."""
    return after.get(f"{unit_set}.projected", 0) + 1


def assert_sizes(architecture: Architecture, model: nn.Module, small: nn.Module, dead: Units) -> None:
    """Every dead unit is gone, and nothing else; the last unit of a layer and direction stays."""
    before, after = sizes(architecture, model), widths(small)
    used_up = {s for s, units in dead.items() if len(units) == before[s]}
    for unit_set, width in after.items():
        gone = dead.get(unit_set, set())
        shown = unit_set not in architecture.readers or any(
            one[0] not in architecture.silent for one in architecture.slices(unit_set, 0)
        )
        # Of each layer and direction that is dead as a whole one unit stays, and with it the units tied to that one.
        staying = [_most_tied(architecture, s, before[s], unit_set, gone) for s in used_up]
        most = max(floor(after, unit_set), before[unit_set] - len(gone) + sum(staying))
        least = max(floor(after, unit_set), before[unit_set] - len(gone)) if shown else 1
        assert least <= width <= most, f"{unit_set}: {width} units of {before[unit_set]}, {len(gone)} dead"
    if used_up or any(after.get(s, before[s]) > before[s] - len(units) for s, units in dead.items()):
        return
    ours, theirs = dict(model.named_parameters()), dict(small.named_parameters())
    assert list(ours) == list(theirs)
    gone_slices = {one for s, units in dead.items() for k in units for one in architecture.slices(s, k)}
    for parameter, axis in {(p, a) for p, a, _ in gone_slices if p not in architecture.silent}:
        count = len({index for p, a, index in gone_slices if (p, a) == (parameter, axis)})
        assert theirs[parameter].shape[axis] == ours[parameter].shape[axis] - count, f"{parameter}, axis {axis}"


def _most_tied(architecture: Architecture, unit_set: str, size: int, other: str, units: set[int]) -> int:
    """How many of `units` of `other` one unit of `unit_set` may have tied to it."""
    theirs = [architecture.slices(other, j) for j in units]
    return max(theirs.count(architecture.slices(unit_set, k)) for k in range(size))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_same_function_in_smaller_modules(name, share):
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    dead, _ = kill(architecture, model, share, seed=1)
    examples = architecture.examples()
    expected = run(model, examples)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = (quiet_compact if architecture.literal or not any(dead.values()) else compact)(model, examples[0])
    assert small is not model
    assert difference(run(small, examples), expected) <= 1e-10
    if not architecture.literal:
        assert_sizes(architecture, model, small, dead)
    if HAND in dead and any(dead.values()) and not architecture.literal:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    # The model that was given is as it was.
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert difference(run(model, examples), expected) == 0
    if not any(dead.values()):
        return
    # A second time there is nothing left to do.
    again = quiet_compact(small, examples[0])
    assert [(n, p.shape) for n, p in again.named_parameters()] == [(n, p.shape) for n, p in small.named_parameters()]
    assert difference(run(again, examples), expected) <= 1e-10


@pytest.mark.parametrize("name", REMOVABLE)
def test_in_float32_names_modes_and_flags_stay(name):
    architecture = ARCHITECTURES[name]
    model = architecture.model(torch.float32)
    dead, _ = kill(architecture, model, 0.4, seed=2)
    if not any(dead.values()):
        dead, _ = kill(architecture, model, 1.0, seed=2)
    examples = architecture.examples(torch.float32)
    expected = run(model, examples)
    frozen = list(dict(model.named_parameters()))[::2]
    for key, p in model.named_parameters():
        p.requires_grad_(key not in frozen)
    model.train()
    next(model.children(), model).eval()  # a part of the model that the user holds in eval mode
    modes = {path: module.training for path, module in model.named_modules()}
    small = (quiet_compact if architecture.literal else compact)(model, examples[0])
    ours = {path: module.training for path, module in small.named_modules()}
    assert all(ours[path] == mode for path, mode in modes.items())
    assert {path: module.training for path, module in model.named_modules()} == modes
    assert {key: p.requires_grad for key, p in small.named_parameters()} == {
        key: key not in frozen for key in dict(model.named_parameters())
    }
    assert set(small.state_dict()) == set(model.state_dict())
    assert type(small) is type(model) or isinstance(model, nn.LSTM | nn.GRU | nn.RNN)
    assert all(p.dtype == torch.float32 and p.is_leaf for p in small.parameters())
    small.eval()
    assert difference(run(small, examples), expected) <= 1e-5
    assert difference(run(copy.deepcopy(small), examples), expected) <= 1e-5


@pytest.mark.parametrize("name", ["tagger", "layer_norm_head", "plain_lstm"])
def test_nothing_to_remove_is_said(name):
    architecture = ARCHITECTURES[name]
    with pytest.warns(UserWarning) as caught:
        compact(architecture.model(), architecture.examples()[0])
    assert any("unit" in str(one.message) for one in caught)


def test_tied_weights_stay_tied():
    architecture = ARCHITECTURES["tied_language_model"]
    model = architecture.model()
    kill(architecture, model, 0.5, seed=3)
    small: Any = compact(model, architecture.examples()[0])
    assert small.encoder.weight is small.decoder.weight
    assert small.encoder.weight.shape[1] < 7


@pytest.mark.parametrize(("name", "path"), [("last_step", "gru"), ("tagger", "lstm")])
def test_hooks_of_the_user_stay(name, path):
    """On a layer that stays what it is, and on one that becomes a ragged stack."""
    architecture = ARCHITECTURES[name]
    model: Any = architecture.model()
    kill(architecture, model, 0.5, seed=4)
    seen: list[tuple[int, int]] = []  # no modules: a list of the model's own would be the copy's in the copy
    getattr(model, path).register_forward_hook(lambda module, args, out: seen.append((id(module), out[0].shape[-1])))
    run(model, architecture.examples()[0])
    small = compact(model, architecture.examples()[0])
    run(small, architecture.examples()[0])
    (before, wide), (after, narrow) = seen[0], seen[-1]
    assert before == id(getattr(model, path)) and after == id(getattr(small, path)) and narrow < wide
    assert isinstance(getattr(small, path), RaggedLSTM) == (name == "tagger")


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(5, 6, 2)
        self.again = self.first
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(self.first(x)[0] + self.again(x.flip(0))[0])


def test_a_module_of_two_names_keeps_both():
    torch.manual_seed(0)
    model, x = TwoNames().double().eval(), torch.randn(4, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        for weight in (model.first.weight_hh_l1, model.fc.weight):
            weight[:, 2] = 0.0
    small: Any = compact(model, x)
    assert isinstance(small.first, RaggedLSTM) and small.again is small.first
    assert difference(run(small, x), run(model, x)) <= 1e-10


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x, state):
        return self.fc(self.gru(x, state)[0])


def test_states_of_the_first_width_pass_through_two_compactions():
    torch.manual_seed(0)
    model: Any = WithState().double().eval()
    x, dense = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64)
    left, once = [0, 1, 2, 3, 4, 5], model
    for unit in (1, 3):  # 3 counts what the first compaction left: unit 4
        for one, k in ((model, left.pop(unit)), (once, unit)):
            set_slices(dict(one.named_parameters()), [("gru.weight_hh_l0", 1, k), ("fc.weight", 1, k)], 0.0)
        once = compact(once, (x, dense))
    expected = run(model, (x, dense))
    assert left == [0, 2, 3, 5] and widths(once) == {"gru.l0": 4}
    assert difference(run(once, (x, dense)), expected) <= 1e-10
    assert difference(run(once, (x, dense[..., left])), expected) <= 1e-10


@pytest.mark.parametrize("name", ["tagger", "residual_stack", "hand_lstm", "general_attention", "batch_norm_features"])
def test_gradients_are_those_of_the_large_model(name):
    """The norm of the gradient at what is left is the same in both: dead units take no part in it."""
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    _, zeroed = kill(architecture, model, 0.4, seed=5)
    example = architecture.examples()[0]
    arguments = example if isinstance(example, tuple) else (example,)
    small = compact(model, example)
    for one in (model, small):
        one(*arguments).square().sum().backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    set_slices(gradients, frozenset(one for one in zeroed if one[0] in gradients), 0.0)
    for key, p in small.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad.norm(), gradients[key].norm(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
@pytest.mark.parametrize("name", ["tagger", "residual_from_second"])
def test_training_goes_on_where_it_was(name, make):
    """A step of the small model with the carried-over optimizer is the masked step of the large one."""
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    example = architecture.examples()[0]
    optimizer = make(model.parameters())

    def step(one: nn.Module, opt: torch.optim.Optimizer) -> None:
        opt.zero_grad()
        one(example).square().mean().backward()
        opt.step()

    step(model, optimizer)
    _, zeroed = kill(architecture, model, 0.4, seed=6)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    small = compact(model, example, optimizer=optimizer)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in small.parameters()}
    for _ in range(3):
        step(twin, twin_optimizer)
        set_slices(dict(twin.named_parameters()), frozenset(zeroed), 0.0)
        step(small, optimizer)
    assert difference(run(small, architecture.examples()), run(twin, architecture.examples())) <= 1e-10


class OwnLSTM(nn.LSTM):
    """A user's own subclass: compact can't exchange it for another class."""

    def forward(self, x, hx=None):
        return super().forward(x, hx)


class OnOwn(nn.Module):
    def __init__(self, proj=0, hidden=6):
        super().__init__()
        self.rnn = OwnLSTM(3, hidden, num_layers=2, bidirectional=True, proj_size=proj)
        self.fc = nn.Linear(2 * (proj or hidden), 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


@pytest.mark.parametrize(
    ("proj", "hidden", "unit_set", "left"),
    [(0, 6, "", 5), (4, 7, "", 6), (4, 6, ".projected", 3)],  # torch's LSTM needs more cell units than projected ones
    ids=["plain", "cells", "projected"],
)
def test_layers_of_a_subclass_keep_one_width(proj, hidden, unit_set, left):
    torch.manual_seed(0)
    model, x = OnOwn(proj, hidden).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    structure = srn.trace(model, x)
    assert "one width" in structure.explain()
    parameters = dict(model.named_parameters())
    for end, units in (("l0", (1,)), ("l0_reverse", (0, 2)), ("l1", (2, 0, 3)), ("l1_reverse", (1, 3))):
        for unit in units:
            for name, axis, index in structure.readers(f"rnn.{end}{unit_set}", unit):
                parameters[name].data.select(axis, index).zero_()
    assert {int(mask.sum()) for s, mask in structure.dead(parameters).items() if s.endswith(unit_set)} >= {1}
    with pytest.warns(UserWarning, match=r"dead units stay .*one width"):
        small = compact(model, x)
    assert type(small.rnn) is OwnLSTM
    assert (small.rnn.proj_size if unit_set else small.rnn.hidden_size) == left
    assert difference([small(x)], [model(x)]) <= 1e-10


def test_nothing_goes_from_a_subclass_of_which_one_layer_needs_all():
    torch.manual_seed(0)
    model, x = OnOwn().double(), torch.randn(5, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        model.rnn.weight_hh_l1[:, 2] = 0
        model.fc.weight[:, 2] = 0
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of rnn.l1\)"):
        small = compact(model, x)
    assert small.rnn.hidden_size == 6


class ByNumbers(nn.Module):
    """A cell written by hand whose weight is sliced at columns written as numbers, after a layer of torch's own."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(5, 6, batch_first=True)
        self.w_in = nn.Parameter(torch.randn(7, 6))
        self.wide = nn.Parameter(torch.randn(7, 10))
        self.fc = nn.Linear(7, 2)

    def forward(self, x):
        y, _ = self.first(x)
        h = y.new_zeros(len(y), 7)
        for step in y.unbind(1):
            h = torch.tanh(F.linear(step, self.w_in) + F.linear(h, self.wide[:, 2:9]))
        return self.fc(h)


def test_what_cannot_be_cut_stays_by_name_and_the_rest_goes():
    torch.manual_seed(0)
    model, x = ByNumbers().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    slices = [("first.weight_hh_l0", 1, 2), ("w_in", 1, 2), ("wide", 1, 2 + 4), ("fc.weight", 1, 4)]
    set_slices(dict(model.named_parameters()), slices, 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of wide\): no smaller form of ByNumbers runs") as said:
        small: Any = compact(model, x)
    assert said[0].filename == __file__
    assert widths(small) == {"first.l0": 5} and small.wide.shape == (7, 10)
    assert difference([small(x[:1, :2])], [model(x[:1, :2])]) <= 1e-10


class ByNumbersFirst(nn.Module):
    """The same cell before another one written by hand, which can be cut."""

    def __init__(self):
        super().__init__()
        self.cell = ByNumbers()
        self.cell.fc = nn.Identity()
        self.hidden_size = 4
        self.w_in = nn.Parameter(torch.randn(4, 7))
        self.w_h = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), self.hidden_size)
        for end in (2, 3, 4):
            h = torch.tanh(F.linear(self.cell(x[:, :end]), self.w_in) + F.linear(h, self.w_h))
        return self.head(h)


def test_what_cannot_be_cut_does_not_keep_what_comes_after_it():
    torch.manual_seed(0)
    model, x = ByNumbersFirst().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    slices = [("cell.wide", 1, 2 + 4), ("w_in", 1, 4), ("w_h", 1, 1), ("head.weight", 1, 1)]
    set_slices(dict(model.named_parameters()), slices, 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of cell\.wide\)"):
        small: Any = compact(model, x)
    assert small.cell.wide.shape == (7, 10) and small.w_h.shape == (3, 3) and small.w_in.shape == (3, 7)
    assert difference([small(x[:1])], [model(x[:1])]) <= 1e-10


def test_strict_raises_where_dead_units_would_stay():
    torch.manual_seed(0)
    model, x = ByNumbers().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    set_slices(dict(model.named_parameters()), [("first.weight_hh_l0", 1, 2), ("w_in", 1, 2)], 0.0)
    assert widths(compact(model, x, strict=True)) == {"first.l0": 5}
    set_slices(dict(model.named_parameters()), [("wide", 1, 2 + 4), ("fc.weight", 1, 4)], 0.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match=r"dead units stay \(1 of wide\).*\n.*strict=True") as caught:
        compact(model, x, optimizer=optimizer, strict=True)
    assert str(caught.value).count("\n") <= 2
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    own = OnOwn().double()
    set_slices(dict(own.named_parameters()), [("rnn.weight_hh_l1", 1, 2), ("fc.weight", 1, 2)], 0.0)
    with pytest.raises(RuntimeError, match="one width"):
        compact(own, torch.randn(5, 2, 3, dtype=torch.float64), strict=True)


class ByHand(nn.Module):
    """A sum with a tensor of the dense width, and a weight used without its module: the layer alone can shrink."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return F.linear(self.rnn(x)[0] + torch.zeros(6, dtype=x.dtype), self.fc.weight, self.fc.bias)


def test_an_optimizer_follows_what_was_cut_and_no_more():
    torch.manual_seed(0)
    model, x = ByHand().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).square().sum().backward()
    optimizer.step()
    set_slices(dict(model.named_parameters()), [("rnn.weight_hh_l0", 1, 2), ("fc.weight", 1, 2)], 0.0)
    small: Any = compact(model, x, optimizer=optimizer, strict=True)
    assert widths(small) == {"rnn.l0": 5} and small.fc.weight.shape == (2, 6)
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in small.parameters())
    small(x).square().sum().backward()
    optimizer.step()


class SharedWidth(nn.Module):
    """Two cells written by hand, whose states the model makes from one number."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.first_ih, self.first_hh = nn.Parameter(torch.randn(hidden, 5)), nn.Parameter(torch.randn(hidden, hidden))
        self.second_ih, self.second_hh = (nn.Parameter(torch.randn(hidden, hidden)) for _ in range(2))
        self.fc = nn.Linear(hidden, 2)

    def forward(self, x):
        first, second = (torch.zeros(len(x), self.hidden, dtype=x.dtype) for _ in range(2))
        for step in x.unbind(1):
            first = torch.tanh(F.linear(step, self.first_ih) + torch.mm(first, self.first_hh.t()))
            second = torch.tanh(F.linear(first, self.second_ih) + torch.mm(second, self.second_hh.t()))
        return self.fc(second)


def test_layers_that_share_one_number_lose_as_many_units():
    torch.manual_seed(0)
    model, x = SharedWidth().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    dead = [("first_hh", k) for k in (0, 1, 4)] + [("second_ih", k) for k in (0, 1, 4)]
    dead += [("second_hh", k) for k in (2, 5)] + [("fc.weight", k) for k in (2, 5)]
    set_slices(dict(model.named_parameters()), [(name, 1, k) for name, k in dead], 0.0)
    with pytest.warns(UserWarning, match=r"dead units stay \(1 of first\w*\).* one width of all layers"):
        small: Any = compact(model, x)
    assert small.hidden == 4 and small.first_hh.shape == small.second_hh.shape == (4, 4)
    assert difference([small(x[:2, :3])], [model(x[:2, :3])]) <= 1e-10


class LightLayer(nn.Module):
    """A LiGRU (arXiv 1803.10225): its first state is a buffer, its bias bare, its width stands in a configuration."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.options = {"hidden": hidden}
        self.w, self.u = nn.Linear(inputs, 2 * hidden), nn.Linear(hidden, 2 * hidden, bias=False)
        self.bias = nn.Parameter(torch.randn(2 * hidden))
        self.register_buffer("start", torch.zeros(1, hidden))

    def forward(self, x):
        h, w, outputs = self.start.to(x), self.w(x) + self.bias, []
        mask = torch.ones(self.options["hidden"], dtype=x.dtype)
        for t in range(x.size(1)):
            a, z = (w[:, t] + self.u(h)).chunk(2, 1)
            z = torch.sigmoid(z)
            h = z * h + (1 - z) * torch.relu(a) * mask
            outputs.append(h)
        return torch.stack(outputs, 1)


def test_adapters_round_a_cell_leave_its_bias_and_the_buffer_of_its_first_state():
    torch.manual_seed(0)
    model = nn.Sequential(LightLayer(5, 6), LightLayer(6, 6), nn.Linear(6, 2)).double()
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    dead = [("0.u.weight", 1), ("1.w.weight", 1), ("0.u.weight", 4), ("1.w.weight", 4), ("1.u.weight", 2)]
    set_slices(dict(model.named_parameters()), [(name, 1, k) for name, k in [*dead, ("2.weight", 2)]], 0.0)
    small: Any = compact(model, x, strict=True)
    assert [tuple(layer.u.weight.shape) for layer in (small[0], small[1])] == [(8, 4), (10, 5)]
    assert difference([small(x[:2, :3])], [model(x[:2, :3])]) <= 1e-10


class TiedModel(nn.Module):
    """A stacked language model whose decoder is its embedding, with a zero state made by hand."""

    def __init__(self):
        super().__init__()
        self.width, self.encoder = 12, nn.Embedding(11, 12)
        self.rnn, self.decoder = nn.LSTM(12, 12, 2), nn.Linear(12, 11)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        zero = torch.zeros(2, x.shape[1], self.width, dtype=self.encoder.weight.dtype)
        return self.decoder(self.rnn(self.encoder(x), (zero, zero))[0])


@pytest.mark.parametrize("dead", [(8, 3), (3, 8)])
@torch.no_grad()
def test_layers_of_a_tied_model_become_as_narrow_as_each_of_them_can(dead):
    torch.manual_seed(0)
    model, x = TiedModel().double().eval(), torch.randint(0, 11, (5, 3))
    structure = trace(model, x)
    for layer, count in enumerate(dead):
        for unit in range(count):
            slices = frozenset(structure.readers(f"rnn.l{layer}", unit))
            set_slices(dict(model.named_parameters()), slices, 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_sizes == ((12 - dead[0],), (12 - dead[1],))
    assert small.encoder.embedding_dim == small.rnn.input_size == 12 - dead[1]
    assert (small(x) - model(x)).abs().max() <= 1e-10
