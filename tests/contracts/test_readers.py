"""Contract 2: readers are found, not declared, through any forward; what can't be followed is kept and named."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.structure.channels import Because
from sparsernn.structure.trace import Structure, trace

from .architecture import HAND, Slice, cast, difference, leaves, run, set_slices
from .architectures import ARCHITECTURES
from .architectures.unknown import squash
from .test_declarations import owned, perturb, sizes

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

FILES = {path.name for path in (Path(__file__).parent / "architectures").glob("*.py")}


@functools.cache
def structure_of(name: str) -> Structure:
    architecture = ARCHITECTURES[name]
    return trace(architecture.model(), architecture.examples()[0])


def name_in(structure: Structure, unit_set: str) -> str:
    """The name that trace gives to `unit_set`; a hand-written cell's is the only one that no declared layer has."""
    if unit_set != HAND:
        return unit_set
    declared = {own for layer in structure.layers for own in layer.unit_sets}
    (other,) = set(structure.unit_sets) - declared
    return other


def found_slices(structure: Structure, unit_set: str) -> list[frozenset[Slice] | None]:
    """For each unit of `unit_set` the slices that trace says read it; None if it is kept."""
    groups = structure.groups("unit")
    by_group: dict[int, set[Slice]] = {}
    for member in groups.members:
        assert not member.within, "a unit's slices are whole hyperplanes"
        if member.role == "outgoing":
            for index, group in enumerate(member.group.tolist()):
                if group >= 0:
                    by_group.setdefault(group, set()).add((member.parameter, member.axis, index))
    numbers = groups.units[unit_set].tolist()
    assert len(numbers) == structure.unit_sets[unit_set]
    return [frozenset(by_group.get(number, ())) if number >= 0 else None for number in numbers]


def assert_kept(structure: Structure, unit_set: str, pattern: str, units: set[int]) -> None:
    mine = [kept for kept in structure.kept if kept.unit_set == unit_set]
    assert {int(k) for kept in mine for k in kept.units} == units
    hits = [kept for kept in mine if re.search(pattern, f"{kept.reason} {kept.operation}", re.IGNORECASE)]
    assert hits, f"no reason of {unit_set} speaks of {pattern}: {[(k.reason, k.operation) for k in mine]}"
    if "caller" not in pattern:
        for kept in hits:
            file, line = kept.where.split(":")
            assert file in FILES and int(line) > 0, f"{kept.where} is not a line of the user's model"
    for kept in hits:
        assert kept.reason in structure.explain()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_reader_is_found_and_no_other(name):
    architecture, structure = ARCHITECTURES[name], structure_of(name)
    size = sizes(architecture, architecture.model())
    for unit_set, units in size.items():
        if unit_set == HAND and HAND in architecture.either and len(structure.unit_sets) == len(structure.layers):
            continue  # a cell that trace does not take for one
        assert structure.unit_sets[name_in(structure, unit_set)] == units
    for unit_set in architecture.readers:
        if unit_set in architecture.either:
            continue
        stay = architecture.kept_units(unit_set, size[unit_set])[1]
        expected = [architecture.slices(unit_set, k) if k not in stay else None for k in range(size[unit_set])]
        found = found_slices(structure, name_in(structure, unit_set))
        if unit_set == HAND:  # in whatever order trace numbers its units
            expected, found = (sorted(one, key=lambda s: sorted(s or ())) for one in (expected, found))
        for unit, (ours, theirs) in enumerate(zip(expected, found)):
            if ours is None or theirs is None:
                assert ours is theirs is None, f"{unit_set} {unit}: {'kept' if theirs is None else 'not kept'}"
                continue
            # A reader whose influence no output can show may be left out.
            needed = {one for one in ours if one[0] not in architecture.silent}
            assert needed <= theirs <= ours, f"{unit_set} {unit}"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_groups_add_up(name):
    """The groups' sums of squares are those of the slices, taken one by one, and of parameters alone."""
    model, structure = ARCHITECTURES[name].model(), structure_of(name)
    parameters = dict(model.named_parameters())
    groups = structure.groups("unit")
    squares = groups.squares(parameters, ["outgoing"])
    for unit_set in structure.unit_sets:
        for unit, slices in enumerate(found_slices(structure, unit_set)):
            if slices is not None:
                total = sum(float(parameters[p].detach().select(a, k).square().sum()) for p, a, k in slices)
                assert abs(float(squares[groups.units[unit_set][unit]].detach()) - total) <= 1e-9 * max(1.0, total)


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.kept])
def test_what_stays_is_named_with_operation_and_line(name):
    architecture, structure = ARCHITECTURES[name], structure_of(name)
    size = sizes(architecture, architecture.model())
    for unit_set in architecture.kept:
        if unit_set == HAND and len(structure.unit_sets) == len(structure.layers):
            # A cell that isn't taken for one has no units to keep, but the user still has to learn why.
            assert re.search(architecture.kept[HAND], structure.explain(), re.IGNORECASE)
            continue
        pattern, units = architecture.kept_units(unit_set, size.get(unit_set, 6))
        assert_kept(structure, name_in(structure, unit_set), pattern, units)


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.either])
def test_where_two_answers_are_right_the_one_given_is_true(name):
    """Kept with a reason, or: with the slices that trace found at zero, the units have no influence."""
    torch.manual_seed(0)
    architecture, structure = ARCHITECTURES[name], structure_of(name)
    model = architecture.model()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    size = sizes(architecture, model)
    for unit_set in architecture.either:
        if unit_set == HAND and len(structure.unit_sets) == len(structure.layers):
            continue
        found = found_slices(structure, name_in(structure, unit_set))
        everyone = [(k, slices) for k, slices in enumerate(found) if slices is not None]
        if not everyone:
            assert any(kept.unit_set == name_in(structure, unit_set) for kept in structure.kept)
        for k, slices in everyone:
            tied = [j for j, other in everyone if other == slices]
            model.load_state_dict(start)
            set_slices(parameters, slices, 0.0)
            before = run(model, architecture.examples())
            for j in tied:
                perturb(parameters, owned(architecture, model, unit_set, j))
            set_slices(parameters, slices, 0.0)
            assert difference(run(model, architecture.examples()), before) <= 1e-12, f"{unit_set} {k} of {size}"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tracing_leaves_everything_as_it_was(name):
    architecture = ARCHITECTURES[name]
    model = architecture.model(torch.float32).train()
    example = architecture.examples(torch.float32)[0]
    kept_example = cast(example, torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    flags = {key: p.requires_grad for key, p in model.named_parameters()}
    random = torch.random.get_rng_state()
    again = trace(model, example)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    assert {key: p.requires_grad for key, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    for ours, theirs in zip(leaves(example), leaves(kept_example), strict=True):
        assert torch.equal(ours, theirs), "an argument was changed"
    # The same structure in float32 as in float64, and every time.
    first = structure_of(name)
    assert again.unit_sets == first.unit_sets
    for unit_set in again.unit_sets:
        assert found_slices(again, unit_set) == found_slices(first, unit_set)


@pytest.mark.parametrize(
    "name", ["custom_operation", "spectrum_of_units", "through_numpy", "through_lists", "multi_head"]
)
def test_strict_raises_where_something_cannot_be_followed(name):
    architecture = ARCHITECTURES[name]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"(unknown|attention_pooling)\.py:\d+") as caught:
        trace(architecture.model(), architecture.examples()[0], strict=True)
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.kept or one.either])
def test_strict_goes_by_the_kind_of_the_reason(name):
    """Every reason has a kind; strict refuses what tracing could not follow, and nothing that the model means."""
    architecture = ARCHITECTURES[name]
    kept = structure_of(name).kept
    assert all(isinstance(one.because, Because) for one in kept)
    if {Because.NOT_FOLLOWED, Because.CHECK_FAILED} & {one.because for one in kept}:
        with pytest.raises(RuntimeError, match="can't be followed"):
            trace(architecture.model(), architecture.examples()[0], strict=True)
    else:
        assert len(trace(architecture.model(), architecture.examples()[0], strict=True).kept) == len(kept)


class Unfollowed(nn.Module):
    """A layer before a head that tracing knows nothing of."""

    def __init__(self, head):
        super().__init__()
        self.rnn = nn.LSTM(5, 8, batch_first=True)
        self.grouped = nn.Conv1d(8, 4, 2, groups=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)
        self.head = head

    def forward(self, x):
        return self.head(self, self.rnn(x)[0])


UNFOLLOWED = {
    "grouped convolution": lambda m, y: m.grouped(y.mT),
    "attention": lambda m, y: m.fc(m.attention(y, y, y)[0]),
    "outer product": lambda m, y: torch.einsum("bti,btj->bij", y, y),
    "out=": lambda m, y: m.fc(torch.add(y, 1, out=torch.empty_like(y))),
    "python": lambda m, y: m.fc(torch.tensor(y.tolist())),
    "numpy": lambda m, y: m.fc(torch.from_numpy(y.numpy())),
    "broadcast product": lambda m, y: (y.unsqueeze(-1) * y.unsqueeze(-2)).flatten(2),
    "own operation": lambda m, y: m.fc(squash(y)),
    "computed weight": lambda m, y: y @ torch.linalg.matrix_exp(m.fc.weight.T @ m.fc.weight),
}


@pytest.mark.filterwarnings("ignore:trace. no example reached")
@pytest.mark.parametrize("head", UNFOLLOWED)
def test_strict_refuses_whatever_is_not_followed(head):
    model, x = Unfollowed(UNFOLLOWED[head]), torch.randn(2, 4, 5)
    assert {kept.because for kept in trace(model, x).kept} == {Because.NOT_FOLLOWED}
    with pytest.raises(RuntimeError, match=r"rnn\.l0: 8 units can't be followed: .*test_readers\.py:\d+"):
        trace(model, x, strict=True)


class SquashedCell(nn.Module):
    """A cell whose loop goes through an operation of the user's own, so that no unit is found at all."""

    def __init__(self):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(5, 7), nn.Linear(7, 7)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 7)
        for x_t in x.unbind(1):
            h = squash(self.x2h(x_t) + self.h2h(h))
        return h


def test_strict_refuses_a_cell_none_of_whose_units_is_found():
    assert not trace(SquashedCell(), torch.randn(2, 4, 5)).unit_sets
    with pytest.raises(RuntimeError, match=r"can't be followed: .*squash.*test_readers\.py:\d+"):
        trace(SquashedCell(), torch.randn(2, 4, 5), strict=True)


@pytest.mark.parametrize("name", ["tagger", "residual_stack", "hand_lstm", "seq2seq_attention_tutorial"])
def test_strict_accepts_what_is_followed_to_the_end(name):
    architecture = ARCHITECTURES[name]
    structure = trace(architecture.model(), architecture.examples()[0], strict=True)
    assert structure.unit_sets == structure_of(name).unit_sets


@pytest.mark.smoke
def test_dead_follows_from_the_zeros():
    """Units are dead when every slice that reads them is zero, and only then."""
    architecture = ARCHITECTURES["tagger"]
    model = architecture.model()
    parameters = dict(model.named_parameters())
    structure = trace(model, architecture.examples()[0])
    assert not any(bool(dead.any()) for dead in structure.dead(parameters).values())
    killed = {"lstm.l0": {1, 5}, "lstm.l1_reverse": {0, 2, 6}}
    for unit_set, units in killed.items():
        for unit in units:
            slices = sorted(architecture.slices(unit_set, unit))
            set_slices(parameters, slices[:-1], 0.0)
            assert not structure.dead(parameters)[unit_set][unit]
            set_slices(parameters, slices[-1:], 0.0)
            assert structure.dead(parameters)[unit_set][unit]
    for unit_set, dead in structure.dead(parameters).items():
        assert set(dead.nonzero().flatten().tolist()) == killed.get(unit_set, set())


def test_explain_speaks_of_every_layer_and_of_what_to_do():
    for name in ("word_language_model", "actor_critic"):
        assert "carried_states" in structure_of(name).explain()
    text = structure_of("residual_from_second").explain()
    assert "first.l0" in text and "second.l0" in text
    text = structure_of("layer_norm_head").explain()
    assert "layer_norm" in text and re.search(r"norms\.py:\d+", text)


class FourReasons(nn.Module):
    """A layer that LayerNorm reads, two that are added, one whose state is returned, one before an own operation."""

    def __init__(self):
        super().__init__()
        self.normed, self.first = nn.LSTM(5, 6, batch_first=True), nn.LSTM(6, 4, batch_first=True)
        self.second, self.odd = nn.GRU(4, 4, batch_first=True), nn.GRU(4, 3, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(3, 2)

    def forward(self, x):
        y, _ = self.first(self.norm(self.normed(x)[0]))
        z, state = self.second(y)
        return self.fc(squash(self.odd(y + z)[0])), state


def test_explain_names_each_reason_with_operation_and_line():
    text = trace(FourReasons(), torch.randn(2, 4, 5)).explain()
    here = r"test_readers\.py:\d+\)"
    for reason in (
        rf"normed\.l0: 6 units, 0 may go(.*\n)+?  6 stay: LayerNorm: its mean and variance .*\(layer_norm at {here}",
        rf"first\.l0: 4 units, 0 may go(.*\n)+?  tied with second\.l0: they go together \(add at {here}",
        r"second\.l0: 4 units, 0 may go(.*\n)+?  4 stay: a state handed to the caller \(output at FourReasons\); "
        r"if it is only fed back into the model, pass carried_states=True",
        rf"odd\.l0: 3 units, 0 may go(.*\n)+?  3 stay: an operation that is not followed \(squash.* at {here}",
    ):
        assert re.search(reason, text), text


@pytest.mark.parametrize(("name", "units"), [("highway_before", "rnn.l0"), ("gaussian_policy", "cell")])
def test_what_is_not_recurrent_is_no_unit_and_no_note(name, units):
    assert list(structure_of(name).unit_sets) == [units] and not structure_of(name).notes


class _Leaky(nn.Module):
    """A cell that feeds back element by element (a QRNN, a minGRU), or through a LayerNorm."""

    def __init__(self, normalised: bool):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(5, 7), nn.Linear(7, 7)
        self.norm = nn.LayerNorm(7) if normalised else None

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 7)
        for x_t in x.unbind(1):
            if self.norm is None:
                gate = torch.sigmoid(self.h2h(self.x2h(x_t)))
                h = gate * h + (1 - gate) * torch.tanh(self.x2h(x_t))
            else:
                h = torch.tanh(self.x2h(x_t) + self.norm(self.h2h(h)))
        return h


def test_a_cell_without_a_declaration_is_told_of_register_cell():
    x = torch.randn(2, 4, 5)
    gated = trace(_Leaky(normalised=False), x)
    assert list(gated.unit_sets) == ["h2h"] and "handed to the caller" in gated.kept[0].reason
    assert re.search("h2h: a cell without a declaration.*register_cell", gated.explain())
    normalised = trace(_Leaky(normalised=True), x)
    assert not normalised.unit_sets
    assert re.search(r"h2h.weight.*come.* back .*LayerNorm: its mean and variance.*register_cell", normalised.explain())
    with pytest.warns(UserWarning, match="LayerNorm"):
        assert srn.compact(_Leaky(normalised=True), x) is not None


class _Mapped(nn.Module):
    """A loop inside torch.vmap."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.Linear(5 + 6, 6), nn.Linear(6, 2)

    def forward(self, x):
        def one(steps):
            h = steps.new_zeros(6)
            for step in steps.unbind(0):
                h = torch.tanh(self.cell(torch.cat([step, h])))
            return h

        return self.fc(torch.vmap(one)(x))


def test_what_torch_func_wraps_is_named():
    assert "torch.vmap" in trace(_Mapped(), torch.randn(2, 4, 5)).explain()
