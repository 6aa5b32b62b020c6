"""What every layer of this package offers to surgery, files and the runtime."""

from __future__ import annotations

import json
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn.nn.packing import packing_of
from sparsernn.nn.protocol import LAYERS, Kept, Layer, Misfit
from sparsernn.structure.cells import MODES

GRAPH = nx.DiGraph([(0, 2), (1, 2), (2, 3), (1, 3)])
MADE: dict[str, Any] = {
    "Ragged": lambda kind: kind(3, [[4, 2], [3, 5]], bidirectional=True),
    "Gated": lambda kind: kind(3, [4, 2], [[[1] * len(kind.cell.gates)], [[2] * len(kind.cell.gates)]]),
    "Split": lambda kind: kind(4, 6, 2, blocks=2, input_density=0.6),
    "Graph": lambda kind: kind(3, GRAPH),
    "FactorisedLinear": lambda kind: kind(4, 6, 2),
    "Factorised": lambda kind: kind(3, [4, 2], [[(2, 1)], [(0, 2)]]),
    "RHN": lambda kind: kind(3, [4, 2], depth=2, num_layers=2),
    "FrequencyEmbedding": lambda kind: kind([9, 5, 3, 1], 4, density=0.6, blocks=2),
}


def made(name: str) -> Layer:
    torch.manual_seed(0)
    make = next((make for start, make in MADE.items() if name.startswith(start)), lambda kind: kind(3, [4, 2]))
    return make(LAYERS[name]).double().eval()


def example(layer: Any) -> torch.Tensor:
    if isinstance(layer, srn.nn.FrequencyEmbedding):
        return torch.tensor([[0, 3], [2, 1]])
    size = layer.in_features if isinstance(layer, srn.nn.FactorisedLinear) else layer.input_size
    return torch.randn(5, 2, size, dtype=torch.float64)


def output(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found = layer(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", LAYERS)
def test_a_config_is_json_that_gives_the_same_shapes_without_memory(name):
    layer = made(name)
    again = LAYERS[name].from_config(json.loads(json.dumps(layer.config())), layer)
    assert again is not layer and type(again) is type(layer)
    for before, after in zip(layer._parameters.values(), again._parameters.values(), strict=True):
        assert before is not None and after is not None and after.is_meta and after.shape == before.shape
    assert again.config() == layer.config()


@pytest.mark.parametrize("name", LAYERS)
def test_a_config_of_another_class_of_layer_is_refused_by_field(name):
    with pytest.raises(Misfit, match=r"class: .* but the model has a Conv1d"):
        LAYERS[name].from_config(made(name).config(), nn.Conv1d(2, 2, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_narrowing_by_nothing_changes_nothing_and_the_dense_form_is_the_same_function(name):
    layer = made(name)
    x = example(layer)
    with torch.no_grad():
        want = output(layer, x)
        assert torch.allclose(output(layer.to_dense().double(), x), want, rtol=0, atol=1e-12)
        assert torch.equal(output(layer.narrowed(Kept({}, {})), x), want)


@pytest.mark.parametrize("name", LAYERS)
def test_a_packing_names_each_parameter_once_with_its_shape(name):
    layer = made(name)
    packing = packing_of(layer) or packing_of(layer.to_dense())
    if packing is None:
        assert not hasattr(layer, "cell")
        return
    dense = layer if layer.packing() is not None else layer.to_dense()
    assert {n: tuple(p.shape) for n, p in dense.named_parameters()} == dict(packing.shapes)
    assert packing.mode in MODES
