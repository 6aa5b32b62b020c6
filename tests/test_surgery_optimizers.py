"""Every optimizer of torch goes over to the compacted model, its state cut alike, or refuses with nothing changed."""

from __future__ import annotations

import copy
import inspect
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import sparsernn as srn

UNITS = [1, 2, 5]
GATES = [0, 3, 8, 9, 17, 25, 31]  # rows of the LSTM's gates that are constant


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 3, sparse=False)
        self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.rnn(self.words(x))[0])


X = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))


def made(make, gates: bool) -> tuple[nn.Module, Optimizer]:
    """A model after two steps, with dead units or constant gates."""
    torch.manual_seed(0)
    model = Net().double()
    optimizer = make(model.parameters())
    for _ in range(2):
        step(model, optimizer)
    clear(model, gates)
    return model, optimizer


def step(model: nn.Module, optimizer: Optimizer) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def clear(model: nn.Module, gates: bool) -> None:
    with torch.no_grad():
        if gates:
            for weight in (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0):
                weight[GATES] = 0.0
        else:
            for weight in (model.rnn.weight_hh_l0, model.fc.weight):
                weight[:, UNITS] = 0.0


def small_of(model: nn.Module, optimizer: Optimizer, gates: bool) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return srn.compact(model, X, gates=gates, optimizer=optimizer)


EXACT = {
    name: lambda p, name=name: getattr(torch.optim, name)(p, lr=0.01)
    for name in ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "Rprop")
} | {
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam foreach amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True, amsgrad=True),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
}
FITTING = {  # whose steps look at whole matrices, dead units included
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "Muon": lambda p: torch.optim.Muon([one for one in p if one.dim() == 2], lr=0.01),
}
REFUSED = {"LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1)}
ELSEWHERE = {"SparseAdam"}  # takes sparse gradients of embeddings only: below


def test_every_optimizer_of_torch_is_tried():
    found = {n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, Optimizer)}
    assert found - {"Optimizer"} <= {name.split()[0] for name in (*EXACT, *FITTING, *REFUSED, *ELSEWHERE)}


@pytest.mark.parametrize("gates", [False, True], ids=["units", "gates"])
@pytest.mark.parametrize("name", EXACT)
def test_a_step_of_the_small_model_is_the_masked_step_of_the_large_one(name, gates):
    model, optimizer = made(EXACT[name], gates)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    small = small_of(model, optimizer, gates)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    for _ in range(3):
        step(twin, twin_optimizer)
        clear(twin, gates)
        step(small, optimizer)
    torch.testing.assert_close(small(X), twin(X), rtol=0, atol=1e-12)


def fits(optimizer: Optimizer) -> bool:
    return all(
        v.numel() == 1 or (v.dim() == p.dim() and all(a in (1, b) for a, b in zip(v.shape, p.shape)))
        for p, values in optimizer.state.items()
        for v in values.values()
        if isinstance(v, Tensor)
    )


@pytest.mark.parametrize("gates", [False, True], ids=["units", "gates"])
@pytest.mark.parametrize("name", FITTING)
def test_factors_and_momentum_of_matrices_are_cut_alike(name, gates):
    model, optimizer = made(FITTING[name], gates)
    before = {n: optimizer.state[p] for n, p in model.named_parameters() if p in optimizer.state}
    small = small_of(model, optimizer, gates)
    weight = dict(small.named_parameters())["rnn.weight_hh_l0"]
    rows = (
        small.rnn.rows_l0[: len(weight)] if gates else [g * 8 + k for g in range(4) for k in range(8) if k not in UNITS]
    )
    columns = list(range(8)) if gates else [k for k in range(8) if k not in UNITS]
    for key, value in optimizer.state[weight].items():
        wanted = before["rnn.weight_hh_l0"][key]
        if value.dim() == 2:
            wanted = wanted[rows] if wanted.shape[0] > 1 else wanted
            wanted = wanted[:, columns] if wanted.shape[1] > 1 else wanted
        assert torch.equal(value, wanted), key
    assert fits(optimizer)
    step(small, optimizer)
    assert all(bool(p.isfinite().all()) for p in small.parameters())


class Preconditioned(torch.optim.SGD):
    """Keeps matrices of another shape than the weight's, in a list."""

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["factors"] = [p.detach().flatten(1) @ p.detach().flatten(1).T] if p.dim() > 1 else []
        return loss


@pytest.mark.parametrize("gates", [False, True], ids=["units", "gates"])
@pytest.mark.parametrize(
    "make", [REFUSED["LBFGS"], lambda p: Preconditioned(p, lr=0.1)], ids=["LBFGS", "preconditioned"]
)
def test_state_that_cannot_be_cut_is_refused_before_anything_changes(make, gates):
    model, optimizer = made(make, gates)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"can.t be cut with it\.\nCompact without optimizer="):
        small_of(model, optimizer, gates)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    after = optimizer.state_dict()
    assert str(before) == str(after)
    step(model, optimizer)


def test_without_state_every_optimizer_goes_over():
    torch.manual_seed(0)
    model = Net().double()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    clear(model, False)
    small = small_of(model, optimizer, False)
    step(small, optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in small.parameters()}


def test_sparse_gradients():
    torch.manual_seed(0)
    model = Net()
    model.words.sparse = True
    optimizer = torch.optim.SparseAdam(model.words.parameters(), lr=0.01)
    rest = torch.optim.SGD([*model.rnn.parameters(), *model.fc.parameters()], lr=0.1, momentum=0.9)
    step(model, optimizer)
    clear(model, False)
    small = small_of(model, optimizer, False)
    step(small, optimizer)
    assert optimizer.param_groups[0]["params"] == [small.words.weight] and len(rest.state) == 0


class Wrapped(Optimizer):
    """An optimizer that steps by another one, as sharpness-aware minimisation does."""

    def __init__(self, params, base):
        super().__init__(params, {})
        self.base = base(self.param_groups)
        self.param_groups = self.base.param_groups

    def step(self, closure=None):
        return self.base.step(closure)


@pytest.mark.parametrize("gates", [False, True], ids=["units", "gates"])
def test_an_optimizer_inside_an_optimizer_follows(gates):
    def wrapped(parameters):
        return Wrapped(parameters, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9))

    model, optimizer = made(wrapped, gates)
    plain, plain_optimizer = made(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), gates)
    ours, theirs = small_of(model, optimizer, gates), small_of(plain, plain_optimizer, gates)
    for _ in range(2):
        step(ours, optimizer)
        step(theirs, plain_optimizer)
    assert torch.equal(ours(X), theirs(X)) and len(optimizer.base.state) == len(plain_optimizer.state)
