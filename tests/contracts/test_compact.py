"""Contract 1: `compact` returns the same function in smaller modules, for any dead set of any architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.surgery.compact import compact

from .architecture import HAND, Architecture, difference, run, set_slices
from .architectures import ARCHITECTURES
from .compacted import Units, floor, kill, quiet_compact, widths
from .test_declarations import sizes

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

REMOVABLE = [name for name, one in ARCHITECTURES.items() if set(one.readers) - one.either]


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
