"""Contract 2: readers are found, not declared, through any forward; what can't be followed is kept and named."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch

from sparsernn.structure.channels import Because
from sparsernn.structure.trace import Structure, trace

from .architecture import HAND, Slice, cast, difference, leaves, run, set_slices
from .architectures import ARCHITECTURES
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


@pytest.mark.parametrize(("name", "units"), [("highway_before", "rnn.l0"), ("gaussian_policy", "cell")])
def test_what_is_not_recurrent_is_no_unit_and_no_note(name, units):
    assert list(structure_of(name).unit_sets) == [units] and not structure_of(name).notes
