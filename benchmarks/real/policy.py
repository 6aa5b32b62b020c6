"""A recurrent policy of rsl_rl, as legged robots have them. The package ships no weights: they are random here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .work import STEPS, Real, Run, Stepper

PACKAGE, OBSERVATIONS, ACTIONS, UNITS, EPISODE = "rsl-rl-lib", 48, 12, 256, 1000


def policy() -> Any:
    """The package's model at its own sizes, on the observations and actions of a quadruped, with statistics of
    observations."""
    from rsl_rl.models import RNNModel
    from tensordict import TensorDict

    torch.manual_seed(0)
    seen = torch.randn(4096, OBSERVATIONS) * torch.linspace(0.1, 3, OBSERVATIONS) + 0.5
    observations = TensorDict({"policy": seen}, batch_size=[len(seen)])
    model: Any = RNNModel(observations, {"actor": ["policy"]}, "actor", ACTIONS, obs_normalization=True)
    model.train().obs_normalizer.update(seen)
    return model.eval()


def works() -> dict[str, Real]:
    """The policy in the package's own form for deployment, which keeps its states in buffers."""
    model = policy()
    noise = torch.randn(STEPS, 1, OBSERVATIONS, generator=torch.Generator().manual_seed(0))
    walk, observation = [], noise[0]
    for step in noise:
        observation = 0.9 * observation + step
        walk.append(observation)
    script: Any = torch.jit.script(model.as_jit())
    own = Stepper(lambda start: script.reset(), script)
    states: list[Tensor] = [torch.zeros(1, 1, UNITS) for _ in "hc"]
    real = Real(
        PACKAGE,
        "none, random",
        "BSD-3-Clause",
        model.as_jit().eval(),
        {"example": walk[0]},
        model.as_onnx().eval(),
        states,
        [Run(walk[n : n + EPISODE]) for n in range(0, STEPS, EPISODE)],
        {"its own: TorchScript": own},
    )  # fmt: skip
    return {"rsl_rl, policy": real}
