"""The numeric check of `trace` is a net of its own: it finds each reader that tracing could have missed."""

from __future__ import annotations

import dataclasses

import pytest

from sparsernn.structure import examples
from sparsernn.structure.check import find_unknown_readers
from sparsernn.structure.classes import PlaneMap
from sparsernn.structure.structure import Structure
from sparsernn.structure.trace import quiet, trace

from .architectures import ARCHITECTURES


def without(structure: Structure, parameter: str, axis: int, index: int) -> Structure:
    """The structure as it would be had tracing missed one plane that reads a unit."""
    plane: PlaneMap = structure.classes.planes[parameter, axis]
    outgoing, classes = plane.outgoing.clone(), plane.classes.clone()
    outgoing[index], classes[index] = False, -1
    planes = {
        **structure.classes.planes,
        (parameter, axis): dataclasses.replace(plane, outgoing=outgoing, classes=classes),
    }
    return dataclasses.replace(structure, classes=dataclasses.replace(structure.classes, planes=planes))


@pytest.mark.parametrize("name", ["tagger", "residual_stack", "general_attention"])
def test_a_reader_left_out_keeps_its_unit(name):
    architecture = ARCHITECTURES[name]
    model, example = architecture.model(), architecture.examples()[0]
    calls = examples.calls(example)
    structure = trace(model, example, check=False)
    with quiet():
        assert not find_unknown_readers(model, calls, structure)
        for unit_set, of_unit in structure.classes.sets.items():
            for unit in (0, len(of_unit) - 1):
                for parameter, axis, index in structure.readers(unit_set, unit):
                    found = find_unknown_readers(model, calls, without(structure, parameter, axis, index))
                    assert int(of_unit[unit]) in found, f"{parameter}, axis {axis}, {index}"
