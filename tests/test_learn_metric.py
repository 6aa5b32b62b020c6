"""The proximal step's metric is the optimizer's own displacement for a gradient, for every class of torch.optim."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from learn_models import tagger, tokens, train
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.metric import step_metric
from sparsernn.learn.paths.hard_concrete import HardConcrete
from sparsernn.learn.prune import Prune
from sparsernn.learn.scores import Movement
from sparsernn.learn.shrink import Shrink

# Options of each optimizer, each with all of COMMON that it takes.
KNOWN: dict[str, list[dict[str, object]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.3}],
    "ASGD": [{}, {"lambd": 0.3, "alpha": 0.6}],
    "Adam": [{}, {"eps": 0.3}, {"amsgrad": True}, {"decoupled_weight_decay": True}, {"lr": torch.tensor(0.01)}],
    "AdamW": [{}, {"eps": 0.3}, {"amsgrad": True}],
    "NAdam": [{}, {"eps": 0.3}, {"momentum_decay": 0.5}, {"decoupled_weight_decay": True}],
    "RAdam": [{}, {"eps": 0.3}, {"betas": (0.9, 0.7)}, {"betas": (0.9, 0.5)}, {"decoupled_weight_decay": True}],
    "Adamax": [{}, {"eps": 0.3}, {"betas": (0.5, 0.6)}],
    "RMSprop": [{}, {"eps": 0.3}, {"momentum": 0.8, "alpha": 0.9}, {"centered": True}],
    "Adagrad": [{}, {"lr_decay": 0.1}, {"initial_accumulator_value": 0.5}],
    "Adadelta": [{}, {"rho": 0.5}, {"eps": 0.3}],
}
COMMON: list[dict[str, object]] = [
    {},
    {"weight_decay": 0.1},
    {"maximize": True, "weight_decay": 0.1},
    {"foreach": True},
]
COMMON += [{"fused": True}, {"capturable": True}]
REFUSED = {
    "LBFGS": {},
    "Muon": {},
    "Adafactor": {},
    "Rprop": {},
    "SparseAdam": {},
}


def takes(kind: type, options: dict[str, object]) -> bool:
    return set(options) <= set(inspect.signature(kind.__init__).parameters)


def cases() -> list[object]:
    found = []
    for name, own in KNOWN.items():
        kind = getattr(torch.optim, name)
        for special in own:
            for common in COMMON:
                if not takes(kind, common):
                    continue
                text = " ".join(f"{k}={v}" for k, v in {**special, **common}.items())
                cuda = "capturable" in common and not torch.cuda.is_available()
                marks = [pytest.mark.skip("capturable needs CUDA")] if cuda else []
                if isinstance(special.get("lr"), torch.Tensor) and {"foreach", "fused"} & set(common):
                    continue  # torch has them with capturable only
                found.append(pytest.param(name, {**special, **common}, id=f"{name} {text}", marks=marks))
    return found


def test_every_optimizer_of_torch_is_known_or_refused():
    kinds = {n for n, v in vars(torch.optim).items() if isinstance(v, type) and v is not torch.optim.Optimizer}
    assert kinds == set(KNOWN) | set(REFUSED)


@pytest.mark.parametrize(("name", "options"), cases())
def test_the_metric_is_the_optimizers_own_displacement(name, options):
    """At every step of a gradient that stays (weight decay in it, where the optimizer puts it there)."""
    torch.manual_seed(0)
    device = "cuda" if options.get("capturable") else "cpu"
    weights = [nn.Parameter(torch.randn(5, 3, dtype=torch.float64, device=device)) for _ in range(2)]
    rate = options.get("lr", 0.02)
    rest = {key: value for key, value in options.items() if key != "lr"}
    optimizer = getattr(torch.optim, name)(
        [{"params": [weights[0]]}, {"params": [weights[1]], "lr": 3 * rate}], rate, **rest
    )
    group = optimizer.param_groups[0]
    decay = float(rest.get("weight_decay", group.get("weight_decay", 0)))
    apart = bool(group.get("decoupled_weight_decay", name == "AdamW"))
    sign = -1 if rest.get("maximize") else 1
    gradients = [torch.randn_like(w) for w in weights]
    steps = 300 if group.get("momentum") else 12
    for step in range(1, steps + 1):
        before = [w.detach().clone() for w in weights]
        for w, g in zip(weights, gradients):
            w.grad = sign * (g if apart else g - decay * w.detach())
        optimizer.step()
        if step < steps and (group.get("momentum") or step not in (1, 2, 5)):
            continue  # momentum has first to add up
        for w, old, g, own in zip(weights, before, gradients, optimizer.param_groups):
            kept = 1 - float(own["lr"]) * decay if apart else 1.0
            if name == "ASGD":
                eta = own["lr"] / (1 + own["lambd"] * own["lr"] * (step - 1)) ** own["alpha"]
                kept = 1 - own["lambd"] * eta
            metric = step_metric([optimizer], w, lambda state: state.detach().clone())
            # Adadelta's own rate is read with the weights' decay after the step instead of before it.
            rtol = 1e-2 if name == "Adadelta" and decay else 1e-5
            torch.testing.assert_close((kept * old - w.detach()) * metric, g, rtol=rtol, atol=1e-8)


@pytest.mark.parametrize("name", list(REFUSED))
def test_an_optimizer_without_a_metric_is_refused_in_a_sentence(name):
    model = tagger()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    parameters = matrices if name == "Muon" else list(model.parameters())
    optimizer = getattr(torch.optim, name)(parameters)
    for sparsifier in (L1(model, strength=0.1), GroupLasso(model, tokens(), strength=0.1, include="*")):
        with pytest.raises(ValueError, match=rf"step of {name} moves|{name} lacks parameters"):
            sparsifier.attach(optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    # What needs no metric goes on.
    Shrink(model, None, level="weight", to=0.5, steps=10).attach(optimizer)


def test_an_optimizer_that_nobody_knows_is_no_sgd():
    class Signs(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

    model = tagger()
    with pytest.raises(ValueError, match="step of Signs moves"):
        L1(model, strength=0.1).attach(Signs(model.parameters()))


@pytest.mark.parametrize("name", list(KNOWN))
def test_a_rate_of_zero_moves_nothing(name):
    """Warm-ups begin with it."""
    model = tagger()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    GroupLasso(model, tokens(), strength=0.1, level=("weight", "unit")).attach(optimizer)
    optimizer.param_groups[0]["lr"] = 0.0
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, optimizer, 1)
    if name != "ASGD":  # whose first rate is fixed when it is built
        assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda m: GroupLasso(m, tokens(), strength=0.5, update="subgradient"),
        lambda m: GroupLasso(m, tokens(), strength=0.5),
        lambda m: Shrink(m, tokens(), to=0.5, steps=6, path=HardConcrete()),
        lambda m: Prune(m, None, 0.5, score=Movement()),
    ],
)
def test_maximising_is_minimising_with_the_sign_turned(make):
    """The penalty still pulls towards zero, and scores see the loss's gradients."""
    models = [tagger().double(), tagger().double()]
    for model, maximize in zip(models, (False, True)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, maximize=maximize)
        make(model).attach(optimizer)
        for number in range(4):
            optimizer.zero_grad()
            scores = model(tokens(number))
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), tokens(number).flatten())
            (-loss if maximize else loss).backward()
            optimizer.step()
    for a, b in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(a, b)


def test_groups_that_maximise_and_minimise_at_once_are_refused():
    model = tagger()
    optimizer = torch.optim.SGD(
        [{"params": model.rnn.parameters(), "maximize": True}, {"params": model.head.parameters()}], 0.1
    )
    with pytest.raises(ValueError, match="maximize"):
        GroupLasso(model, tokens(), strength=0.5, update="subgradient").attach(optimizer)
