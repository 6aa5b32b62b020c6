"""Models that keep something on `self` from call to call: a state, an activation, a mode of their own."""

from __future__ import annotations

import collections
import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn._modules import copied

from .architecture import difference, run
from .compacted import dead_units


class Inner(nn.Module):
    """A module inside that holds the state for its parent."""

    kept = None


class Keeper(nn.Module):
    """An LSTM whose state goes on at the next call; `where` it is kept differs."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.rnn, self.fc, self.inner = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2), Inner()
        self.where, self._own, self.things, self.queue = where, None, {}, collections.deque(maxlen=1)
        self.object, self.listed = SimpleNamespace(state=None), []
        for name in "hc":
            self.register_buffer(name, torch.zeros(1, 2, 8) if where == "buffer" else None)

    def get(self):
        return {
            "attribute": lambda: self._own,
            "new attribute": lambda: getattr(self, "fresh", None),
            "dict": lambda: self.things.get("state"),
            "list": lambda: tuple(self.listed) or None,
            "deque": lambda: self.queue[0] if self.queue else None,
            "object": lambda: self.object.state,
            "inner module": lambda: self.inner.kept,
            "buffer": lambda: (self.h, self.c),
        }[self.where]()

    def put(self, state) -> None:
        if self.where == "attribute":
            self._own = state
        elif self.where == "new attribute":
            self.fresh = state
        elif self.where == "dict":
            self.things["state"] = state
        elif self.where == "list":
            self.listed[:] = state
        elif self.where == "deque":
            self.queue.append(state)
        elif self.where == "object":
            self.object.state = state
        elif self.where == "inner module":
            self.inner.kept = state
        else:
            self.h, self.c = state

    def forward(self, x):
        y, state = self.rnn(x, self.get())
        self.put(state)
        return self.fc(y)


WHERE = ["attribute", "new attribute", "dict", "list", "deque", "object", "inner module", "buffer"]


@pytest.mark.parametrize("where", WHERE)
def test_units_of_a_state_on_self_may_go(where):
    torch.manual_seed(0)
    model, x = Keeper(where).double().eval(), torch.randn(2, 4, 3, dtype=torch.float64)
    assert "8 may go" in srn.trace(model, x).explain()
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5 and type(small.rnn) is nn.LSTM
    for _ in range(3):  # the state goes on alike
        assert difference(run(small, x), run(model, x)) <= 1e-10


@pytest.mark.parametrize("where", WHERE)
def test_a_state_in_use_stays_with_the_model(where):
    """Tracing and compaction after calls: the state at hand is neither lost nor run on."""
    torch.manual_seed(0)
    model, x = Keeper(where).double().eval(), torch.randn(2, 4, 3, dtype=torch.float64)
    run(model, x)
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    twin = copy.deepcopy(model)
    small = srn.compact(model, x)
    expected = run(twin, x)
    assert difference(run(small, x), expected) <= 1e-10 and small.rnn.hidden_size == 5
    assert difference(run(model, x), expected) == 0


class ReadAtTheSecondCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc, self.gate, self.last = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2), nn.Linear(8, 2), None

    def forward(self, x):
        y = self.rnn(x)[0]
        out = self.fc(y) if self.last is None else self.fc(y) * self.gate(self.last)
        self.last = y[:, -1:]
        return out


def test_readers_of_a_kept_state_are_found_at_the_second_call():
    torch.manual_seed(0)
    model, x = ReadAtTheSecondCall().double().eval(), torch.randn(2, 4, 3, dtype=torch.float64)
    readers = srn.trace(model, x).readers("rnn.l0", 2)
    assert ("gate.weight", 1, 2) in readers
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    with pytest.warns(UserWarning, match="no unit is dead"):
        assert srn.compact(model, x).rnn.hidden_size == 8


class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
        self.register_buffer("seen", torch.zeros(2, 4, 8), persistent=False)

    def forward(self, x):
        self.last = self.rnn(x)[0]
        self.seen = self.last
        self.all = {"parts": [(self.last[:, -1],)], "object": SimpleNamespace(y=self.last)}
        self.spread = torch.distributions.Normal(self.fc(self.last), torch.ones(()))
        return self.spread.mean


def test_activations_kept_on_self_after_a_training_step(tmp_path):
    """torch refuses to copy a tensor with a history; every function of ours works on such a model."""
    torch.manual_seed(0)
    model, x = Activations(), torch.randn(2, 4, 3)
    model(x).square().sum().backward()
    model.eval()
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    assert model.last.grad_fn is not None
    small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5
    srn.save(small, tmp_path / "small.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kept activations have no place in a fresh model, and are left out
        others = (small, srn.accelerate(model), srn.load(Activations(), tmp_path / "small.safetensors").eval())
    for other in others:
        with torch.no_grad():
            torch.testing.assert_close(other(x), model(x), rtol=0, atol=1e-5)


class Trainer(nn.Module):
    """`train` or `eval` that return None, or are something else."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(nn.functional.dropout(self.rnn(x)[0], training=self.training))


class ReturnsNone(Trainer):
    def train(self, mode=True):
        super().train(mode)


class EvalReturnsNone(Trainer):
    def eval(self):
        super().eval()


class TrainsItself(Trainer):
    def train(self, batches, epochs):
        raise RuntimeError("no batches")


@pytest.mark.parametrize("kind", [ReturnsNone, EvalReturnsNone, TrainsItself])
def test_models_with_methods_of_their_own_for_the_mode(kind, tmp_path):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 4, 3)
    dead_units(model, "rnn.weight_hh_l0", "fc.weight")
    assert "8 may go" in srn.trace(model, x).explain()
    small = srn.compact(model, x)
    assert small.rnn.hidden_size == 5 and small.training
    assert srn.inspect(model, x).to_dict()


def test_what_cannot_be_copied_is_named():
    model = Keeper("list")
    model.inner.stream = (n for n in range(3))
    with pytest.raises(TypeError, match=r"inner\.stream"):
        srn.trace(model, torch.randn(2, 4, 3))


def test_an_empty_table_that_two_modules_share_is_one_in_the_copy():
    model = Keeper("list")
    model.table = model.inner.table = {}
    other = copied(model)
    assert other.table is other.inner.table is not model.table and other.table == {}


class NoCopies:
    def __deepcopy__(self, memo: dict) -> None:
        raise RuntimeError("there is only one of these")


def test_an_object_that_refuses_to_be_copied_says_why():
    model = Keeper("list")
    model.inner.own = NoCopies()
    with pytest.raises(TypeError, match=r"there is only one of these(.|\n)*inner\.own"):
        srn.trace(model, torch.randn(2, 4, 3))
