"""Models whose work or whose state is in functions that they hold: each copy has its own."""

from __future__ import annotations

import functools
import weakref

import pytest
import torch
from torch import nn

import sparsernn as srn

from .architecture import difference
from .compacted import dead_units


class Tapped(nn.Module):
    """Functions that hold the module they were made in do the work."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
        if how == "hook":
            self.rnn.register_forward_hook(lambda m, i, o: setattr(self, "kept", o[0]))
            self.encode = lambda x: (self.rnn(x), self.kept)[1]
        elif how == "pre-hook":
            self.fc.register_forward_pre_hook(lambda m, i: (self.rnn(i[0])[0],))
            self.encode = nn.Identity()
        elif how == "lambda":
            self.encode = lambda x: self.rnn(x)[0]
        elif how == "default":
            self.encode = lambda x, *, rnn=self.rnn: rnn(x)[0]
        elif how == "partial":
            self.encode = functools.partial(lambda owner, x: owner.rnn(x)[0], self)
        elif how == "nested":
            self.steps = {"first": [(lambda x: self.rnn(x)[0],)]}
            self.encode = lambda x: self.steps["first"][0][0](x)
        elif how == "closed list":
            parts = [self.rnn]
            self.encode = lambda x: parts[0](x)[0]
        elif how == "weakref":
            there = weakref.ref(self)
            self.there, self.encode = there, lambda x: self.there().rnn(x)[0]
        elif how == "patched forward":
            self.forward = lambda x: self.fc(self.rnn(x)[0])

    def forward(self, x):
        return self.fc(self.encode(x))


HOLDING = "hook, pre-hook, lambda, default, partial, nested, closed list, weakref, patched forward".split(", ")


@pytest.mark.parametrize("how", HOLDING)
@torch.no_grad()
def test_functions_that_hold_the_model_hold_its_copy(how):
    torch.manual_seed(0)
    model, x = Tapped(how).double().eval(), torch.randn(2, 4, 3, dtype=torch.float64)
    assert ("fc.weight", 1, 2) in srn.trace(model, x).readers("rnn.l0", 2)
    assert not hasattr(model, "kept")  # the original was not run
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5
    for shape in ((1, 9, 3), (3, 2, 3)):
        y = torch.randn(shape, dtype=torch.float64)
        expected = model(y)
        model(x)  # nothing that the original keeps comes up in the copy
        assert difference(small(y), expected) <= 1e-10
    fast, other = srn.accelerate(model.float()), Tapped(how)
    fast.load_state_dict(other.state_dict())
    y = torch.randn(3, 5, 3)
    torch.testing.assert_close(fast(y), other(y), rtol=0, atol=1e-5)


class Recurring(nn.Module):
    """A function that `make` returns runs the layer and keeps its state outside of the model."""

    def __init__(self, make) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
        self.encode = make(self.rnn)

    def forward(self, x):
        return self.fc(self.encode(self.rnn, x))


def in_a_variable(rnn):
    state = None

    def encode(rnn, x):
        nonlocal state
        y, state = rnn(x, state)
        return y

    return encode


def in_a_list(rnn):
    kept = []

    def encode(rnn, x):
        y, kept[:] = rnn(x, tuple(kept) or None)
        return y

    return encode


def in_a_default(rnn):
    def encode(rnn, x, *, kept={}):  # noqa: B006
        y, kept["state"] = rnn(x, kept.get("state"))
        return y

    return encode


def in_tensors(rnn):
    h, c = torch.zeros(1, 2, 8, dtype=torch.float64), torch.zeros(1, 2, 8, dtype=torch.float64)

    def encode(rnn, x):
        y, (h_n, c_n) = rnn(x, (h, c))
        h.copy_(h_n), c.copy_(c_n)
        return y

    return encode


def by_two_functions(rnn):
    state = None

    def put(new):
        nonlocal state
        state = new

    def encode(rnn, x):
        y, new = rnn(x, state)
        put(new)
        return y

    return encode


def in_a_method(rnn):
    state = None

    class Encoder(nn.Module):
        def forward(self, rnn, x):
            nonlocal state
            y, state = rnn(x, state)
            return y

    return Encoder()


@pytest.mark.parametrize("used", [False, True], ids=["new", "in use"])
@pytest.mark.parametrize("make", [in_a_variable, in_a_list, in_a_default, in_tensors, by_two_functions, in_a_method])
@torch.no_grad()
def test_a_state_that_a_function_keeps_is_each_copys_own(make, used):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    models = [Recurring(make).double().eval() for _ in range(2)]
    for model in models:
        model.load_state_dict(models[0].state_dict())
        dead_units(model, "rnn.weight_hh_l0", "fc.weight")
        if used:
            model(x)
    model, twin = models
    small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5
    expected = [twin(x) for _ in range(3)]
    assert not torch.equal(expected[0], expected[1])
    for kept in (small, model):
        for one in expected:
            assert difference(kept(x), one) <= 1e-10


@pytest.mark.parametrize("holds", [False, True], ids=["watches", "holds the model"])
@torch.no_grad()
def test_what_a_hook_notes_is_for_who_made_it(holds):
    torch.manual_seed(0)
    model, seen, x = Recurring(in_a_list).double().eval(), [], torch.randn(2, 4, 3, dtype=torch.float64)

    def note(module, args, result, *, also=seen):
        seen.append(model.fc if holds else None)
        also.append(result.shape)

    model.fc.register_forward_hook(note)
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    small = srn.compact(model, x)
    seen.clear()
    small(x)
    assert seen == [small.fc if holds else None, (2, 4, 2)]


def test_what_holds_the_model_and_cannot_be_made_anew_is_named():
    model, x = Tapped("lambda"), torch.randn(2, 4, 3)
    object.__setattr__(model.fc, "parent", weakref.proxy(model))
    with pytest.raises(TypeError, match=r"`fc\.parent` holds the model it was made in"):
        srn.trace(model, x)
    model = Tapped("lambda")
    model.encode = functools.lru_cache(lambda x: model.rnn(x)[0])
    with pytest.raises(TypeError, match=r"`encode` holds the model it was made in"):
        srn.trace(model, x)
    for kind, held in (("WeakKeyDictionary", lambda m: {m: 1}), ("WeakValueDictionary", lambda m: {"fc": m})):
        model = Tapped("hook")
        model.kept = getattr(weakref, kind)(held(model.fc))
        with pytest.raises(TypeError, match=rf"`kept` holds the model it was made in: a {kind}"):
            srn.trace(model, x)
