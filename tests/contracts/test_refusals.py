"""Models in which nothing can be seen, and layers whose weights are computed: a sentence with the cure."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparsernn.learn.prune import Prune
from sparsernn.runtime.layers import accelerate
from sparsernn.structure.channels import Because
from sparsernn.structure.notes import DECLARE
from sparsernn.structure.trace import trace
from sparsernn.surgery.compact import compact

from .architecture import set_slices

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own older interfaces


class Model(nn.Module):
    def __init__(self, layers=1, lazy=False, bidirectional=False):
        super().__init__()
        self.rnn = nn.LSTM(5, 6, layers, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.LazyLinear(3) if lazy else nn.Linear(12 if bidirectional else 6, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


X = torch.randn(2, 4, 5)


def partly_scripted():
    model = Model()
    model.rnn = torch.jit.script(model.rnn)
    return model


UNSEEN = {
    "scripted": (lambda: torch.jit.script(Model()), "compiled by torch.jit.*Pass the model that it was made from"),
    "traced": (lambda: torch.jit.trace(Model().eval(), X), "compiled by torch.jit.*Pass the model"),
    "a scripted layer": (partly_scripted, "rnn was compiled by torch.jit.*Pass the model"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(Model().eval(), {nn.LSTM}),
        "rnn is quantised.*compact the model first",
    ),
    "exported": (lambda: torch.export.export(Model().eval(), (X,)).module(), "exported graph.*pass the model"),
    "unflattened": (
        lambda: torch.export.unflatten(torch.export.export(Model().eval(), (X,))),
        "exported graph.*pass the model",
    ),
    "accelerated": (
        lambda: accelerate(Model().eval()),
        "is accelerated: .*Pass the model that accelerate was given",
    ),
    "meta": (lambda: Model().to("meta"), "rnn.weight_ih_l0 lies on the meta device.*to_empty"),
    "lazy": (lambda: Model(lazy=True), "fc is lazy.*run the model once"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_seen_is_refused_with_the_cure(name):
    build, says = UNSEEN[name]
    with pytest.raises(ValueError, match=f"(?s){says}") as caught:
        trace(build(), X)
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize("door", [lambda m: Prune(m, X, 0.5, level="unit"), lambda m: compact(m, X)])
def test_an_accelerated_model_is_refused_by_all_that_trace(door):
    with pytest.raises(ValueError, match="Pass the model that accelerate was given"):
        door(accelerate(Model().eval()))


def test_an_example_without_numbers_is_refused():
    with pytest.raises(ValueError, match="Example 1 lies on the meta device"):
        trace(Model(), X.to("meta"))


COMPUTED = {
    "weight norm": (lambda rnn, name: parametrizations.weight_norm(rnn, name), "remove_parametrizations"),
    "pruned": (lambda rnn, name: prune.l1_unstructured(rnn, name, 0.5), r"prune.remove\(model.rnn, 'weight_hh_l0"),
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True)])
@torch.no_grad()
def test_units_of_a_layer_with_a_computed_weight_stay_with_the_cure(name, layers, bidirectional):
    attach, cure = COMPUTED[name]
    model = Model(layers, bidirectional=bidirectional).eval()
    attach(model.rnn, "weight_hh_l0")
    if name == "weight norm" and (layers, bidirectional) == (1, False):  # no layer is left
        with pytest.raises(ValueError, match=cure):
            trace(model, X)
        return
    structure = trace(model, X)
    assert structure.kept
    assert {kept.because for kept in structure.kept} <= {Because.NOT_FOLLOWED}, structure.explain()
    assert not any(bool(mask.any()) for mask in structure.removable().values())
    text = structure.explain()
    assert cure.replace("\\", "") in text.replace("\\", "") and "no example reached" not in text
    assert "check failed" not in text and "register_cell" not in text


@torch.no_grad()
def test_a_mask_of_torchs_pruning_on_a_reader_is_cut_with_its_weight():
    torch.manual_seed(0)
    model, x = Model().double().eval(), X.double()
    prune.l1_unstructured(model.fc, "weight", 0.3)
    structure = trace(model, x, strict=True)
    assert structure.removable()["rnn.l0"].all(), structure.explain()
    assert ("fc.weight_orig", 1, 2) in structure.readers("rnn.l0", 2)
    set_slices(dict(model.named_parameters()), frozenset(structure.readers("rnn.l0", 2)), 0.0)
    small = compact(model, x)
    assert small.rnn.hidden_size == 5 and (small(x) - model(x)).abs().max() <= 1e-10
    assert small.fc.weight_mask.shape == small.fc.weight_orig.shape == (3, 5)


class HandCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.x2h, self.h2h, self.fc = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.h2h.in_features)
        for step in x.unbind(1):
            h = torch.tanh(self.x2h(step) + self.h2h(h))
        return self.fc(h)


@torch.no_grad()
def test_a_cell_that_trace_finds_is_pruned_as_the_refusal_says():
    model = HandCell()
    assert trace(model, X).removable()["h2h"].all() and DECLARE in trace(model, X).explain()
    with pytest.raises(ValueError, match=re.escape(DECLARE)):
        Prune(model, X, 0.5, level="unit")
    Prune(model, X, 0.5, level="unit", include="all").finish()
    assert compact(model, X).h2h.in_features == 3
