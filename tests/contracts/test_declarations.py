"""The declarations of the architectures are true of the models themselves, by numbers alone (no trace here)."""

from __future__ import annotations

import pytest
import torch

from sparsernn.structure.cells import recurrent_layers

from .architecture import HAND, Architecture, Slice, difference, run, set_slices
from .architectures import ARCHITECTURES

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

DECLARED = [name for name, one in ARCHITECTURES.items() if one.readers]


def sizes(architecture: Architecture, model: torch.nn.Module) -> dict[str, int]:
    """Number of units of each unit set, from the layout of the cells or the readers of a hand-written one."""
    found = {}
    for layer in recurrent_layers(model):
        found[layer.name] = layer.hidden_size
        if layer.proj_size:
            found[f"{layer.name}.projected"] = layer.proj_size
    if HAND in architecture.owns:
        found[HAND] = 4 if architecture.name == "conv_lstm" else 6
    return found


def owned(architecture: Architecture, model: torch.nn.Module, unit_set: str, unit: int) -> set[Slice]:
    """What `unit` computes its value from."""
    found = set().union(*(read.slices(unit) for read in architecture.owns.get(unit_set, ())))
    for layer in recurrent_layers(model):
        if layer.name == unit_set:
            found |= {(rows.parameter, 0, rows.start + unit) for rows in layer.rows}
        if f"{layer.name}.projected" == unit_set:
            assert layer.projection is not None
            found.add((layer.projection, 0, unit))
    assert found, f"{architecture.name} does not say what {unit_set} is computed from"
    return found


def perturb(parameters: dict[str, torch.Tensor], slices: set[Slice]) -> None:
    with torch.no_grad():
        for name, axis, index in slices:
            part = parameters[name].select(axis, index)
            part.add_(torch.randn(part.shape, dtype=part.dtype))


def test_there_are_enough_of_them():
    assert len(ARCHITECTURES) >= 100


@pytest.mark.parametrize("name", DECLARED)
def test_declared_readers_are_all_of_them_and_each_matters(name):
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = architecture.model()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    size = sizes(architecture, model)
    everyone = [(s, k) for s in architecture.readers for k in range(size[s])]
    examples = architecture.examples()[:2]
    assert set(architecture.readers) | set(architecture.kept) >= set(size), "a unit set without a declaration"
    for unit_set in architecture.readers:
        free = [k for k in range(size[unit_set]) if k not in architecture.kept_units(unit_set, size[unit_set])[1]]
        for unit in sorted({free[0], free[-1]}):
            slices = architecture.slices(unit_set, unit)
            tied = [(s, k) for s, k in everyone if architecture.slices(s, k) == slices]
            own = set().union(*(owned(architecture, model, s, k) for s, k in tied))

            def moves(zeroed, tries, own=own):
                """Whether the output moves when the unit changes; a few tries, as relu and max hide some changes."""
                for _ in range(tries):
                    model.load_state_dict(start)
                    set_slices(parameters, zeroed, 0.0)
                    before = run(model, examples)
                    perturb(parameters, own)
                    set_slices(parameters, zeroed, 0.0)
                    if difference(run(model, examples), before) > 1e-12:
                        return True
                return False

            assert not moves(slices, 2), f"{unit_set} {unit} has readers that aren't declared"
            for one in slices:
                if one[0] not in architecture.silent:
                    assert moves(slices - {one}, 24), f"{one} does not read {unit_set} {unit}"


@pytest.mark.parametrize("name", [name for name, one in ARCHITECTURES.items() if one.kept])
def test_kept_units_do_matter(name):
    """With every parameter that could read the layer left as it is, a change of a kept unit reaches the output."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = architecture.model()
    size = sizes(architecture, model)
    before = run(model, architecture.examples())
    for unit_set in architecture.kept:
        if unit_set not in size:
            continue
        start = {key: value.clone() for key, value in model.state_dict().items()}
        for unit in architecture.kept_units(unit_set, size[unit_set])[1]:
            perturb(dict(model.named_parameters()), owned(architecture, model, unit_set, unit))
            assert difference(run(model, architecture.examples()), before) > 1e-9
            model.load_state_dict(start)
