"""Bayesian sparsification: weights, gates and units that are lost in their own noise go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...structure.trace import trace
from ..governed import Include
from ..hooks import overflowed
from ..saved import like
from ..sparsifier import Sparsifier
from ..swapped import Swapped, check_alone
from ..units import governed_units, without_dead_units
from .clipping import ClippingWatch, clip_all
from .modules import agreeing, alone_masks, forwards
from .multipliers import multipliers
from .noise import Draw
from .posterior import Posterior

BayesLevel = Literal["weight", "gate", "unit"]
THRESHOLD = 3.0  # of log alpha: |mean| is less than 0.22 sigma


class Bayes(Sparsifier):
    """Learn how much noise each weight, gate, unit, input and word bears; what bears all of it goes.

    Every governed weight has a posterior N(mean, sigma^2), and so have multipliers of gates (their rows, the bias
    outside), of units (all that reads them), of the inputs of recurrent layers and of the words of governed embeddings,
    all under a log-uniform prior. The objective is the mean negative log likelihood, which is the user's loss, plus the
    divergence over `train_size`, which `attach` adds to the gradients of each step (or the user: `penalty()`). What
    ends with log alpha = log(sigma^2 / mean^2) of 3 or more is zero after `finish()`. Lobacheva et al.,
    arXiv 1911.05585.

    While attached, a forward of the model in training mode runs on samples: one of the weights a batch, one of the
    multipliers a sequence (constant over time) in torch.nn.LSTM, GRU, RNN and embeddings; one a batch in cells, in
    layers with projections and where something curved lies between a unit and its readers. A linear layer that sees
    each example once has its output sampled (local reparameterisation). In evaluation mode, in `state_dict`, in copies
    and saved files the model holds the means: those of the multipliers are part of the weights at all times, which
    leaves function and divergence as they are, since the prior knows no scale. Weights that a forward reads again in
    the backward pass (activation checkpointing) would be read without noise.

    Arguments:
        model: any module with recurrent layers.
        example_inputs: arguments of one forward pass, with which the readers of units are found; level "unit" needs it.
        train_size: number of training examples (or tokens) over which the loss is a mean.
        level: one or several of "weight", "gate" and "unit" (with inputs and words). The paper's W, W+N and W+G+N are
            "weight", ("weight", "unit") and all three.
        include: "recurrent", "all" or patterns of parameter names: whose weights, gates and units are governed. The
            paper governs "all".
        log_sigma: where every log sigma starts.
        sigma_rate: factor of the learning rate for all log sigmas. With adaptive optimizers they move by one rate a
            step, so larger factors save epochs.
        mean_rate: the same for the multipliers' means, which move in shares of themselves.
        max_norm: clip the gradients to this norm at each step, those of likelihood and divergence together and of log
            sigmas as well. Clipped before the step, the likelihood's alone would be, which is warned of.
        carried_states: states that the model returns are only fed back into it, so their units may go.

    `attach` adds the posterior's parameters to the optimizer, in groups of their own without weight decay whose
    learning rates are these factors times the first group's. So it comes before a learning-rate scheduler is built and
    before a saved optimizer state is loaded.

    Raises ValueError for a value out of its range, and with level "unit" what `trace` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        train_size: int,
        level: BayesLevel | Sequence[BayesLevel] = ("weight", "gate", "unit"),
        include: Include = "recurrent",
        log_sigma: float = -3.0,
        sigma_rate: float = 1.0,
        mean_rate: float = 1.0,
        max_norm: float | None = None,
        carried_states: bool = False,
    ) -> None:
        levels = _checked(level, train_size, log_sigma, sigma_rate, mean_rate, max_norm)
        super().__init__(model, include)
        if "gate" in levels and not self._governed.layers:
            raise ValueError('Bayes: level="gate" needs a recurrent layer, and include= selects none.')
        if "unit" in levels and example_inputs is None:
            raise ValueError(
                'Bayes: level="unit" has to run the model once to find who reads each unit: give example_inputs '
                "(a tensor, a tuple of arguments or a dict of keywords), got None."
            )
        self.levels, self.train_size = levels, train_size
        self.sigma_rate, self.mean_rate = float(sigma_rate), float(mean_rate)
        self.max_norm, self._clipping = max_norm, ClippingWatch()
        self._structure = None
        if example_inputs is not None:
            self._structure = trace(self._root, example_inputs, carried_states=carried_states)
        units = None
        if "unit" in levels and self._structure is not None:
            units = governed_units(self._structure, self._root, self._governed, include)
        # Words are asked for in any case, to see whether their embeddings can sample their own rows.
        kinds = multipliers(self._root, self._governed, units, "gate" in levels, log_sigma)
        paths: set[str] = set()
        if kinds and self._structure is not None:
            paths = agreeing(self._root, self._governed, kinds, self._structure, example_inputs)
            alone = alone_masks(kinds, self._governed, paths)
            kinds = {kind: own.with_alone(alone[kind]) for kind, own in kinds.items()}
        if "unit" not in levels:
            kinds.pop("word", None)
        weights = self._governed.weights if "weight" in levels else ()
        self._posterior = Posterior.of(weights, kinds, self._parameters, log_sigma)
        made, sampled = forwards(self._root, self._governed, self._posterior, paths.__contains__)
        swapped = [name for name in self._touched() if name not in sampled]
        self._noise = Swapped(self._root, swapped, made, self._draw, "Bayes")
        device = next(iter(self._parameters.values())).device
        self._generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))

    # The contract

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Self:
        """Follow every step of `optimizer`, let noise into the model's forward and learn how much.

        Raises as all sparsifiers do, and ValueError for an optimizer with one parameter group only (LBFGS) and where a
        learning-rate scheduler is there already.
        """
        super().attach(optimizer, *others)
        (inner,) = self._optimizers
        rate = inner.param_groups[0]["lr"]
        for parameters, factor in (
            (self._posterior.log_sigmas, self.sigma_rate),
            (self._posterior.means, self.mean_rate),
        ):
            if parameters:
                inner.add_param_group({"params": parameters, "lr": rate * factor, "weight_decay": 0.0})
        self._noise.attach()
        return self

    def _needs_one_optimizer(self) -> str:
        return "it adds groups of its own and learns from all gradients of a step"

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        kind = type(optimizer).__name__
        check_alone("Bayes", self._root)
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "LBFGS takes one group of parameters and needs a loss without noise, so Bayes can't be attached to it: "
                "use SGD, Adam or another stochastic optimizer."
            )
        if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            raise ValueError(
                f"A learning-rate scheduler was built on {kind} already, and would not know the groups that Bayes "
                "adds.\nAttach Bayes first, then build the scheduler."
            )
        frozen = [n for n in self._posterior.sigmas if not self._parameters[n].requires_grad]
        if frozen:
            raise ValueError(
                f"{kind} does not train {frozen[0]}, so Bayes can't learn its noise.\n"
                "Train it as well, or leave it out with include=."
            )

    def penalty(self) -> Tensor:
        """The divergence of all posteriors over `train_size`, a scalar, in the unit of the mean loss (nats)."""
        value = self._posterior.divergence(self._parameters) / self.train_size
        if value.requires_grad:
            value.register_hook(self._backward_reached)
        return value

    def finish(self) -> nn.Module:
        """Zero what is lost in noise and what only dead units compute; take noise, groups and hooks away.

        The model is then a plain one, whose weights hold the multipliers' means: those of inputs in the columns of
        weight_ih, of gates in the rows of weight_ih and weight_hh, of units in all that reads them.
        """
        return super().finish()

    def _detach(self) -> None:
        self._noise.detach()
        own = {id(p) for p in self._posterior.parameters}
        for optimizer in self._optimizers:
            for parameter in self._posterior.parameters:
                optimizer.state.pop(parameter, None)
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in own]
            # A scheduler counts the groups: then they stay, empty.
            if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
                optimizer.param_groups[:] = [g for g in optimizer.param_groups if g["params"]]
        super()._detach()

    # Around each step

    def _touched(self) -> tuple[str, ...]:
        parts = [part.parameter for own in self._posterior.kinds.values() for part in own.parts]
        return tuple(dict.fromkeys([*self._governed.weights, *parts]))

    def _draw(self) -> Draw:
        return Draw(self._posterior.sigmas, self._posterior.kinds, self._generator)

    def _watch(self, scale: Tensor | float) -> None:
        """The ranks of a distributed training have each their own gradients of the posterior: take the mean."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            count = torch.distributed.get_world_size()
            for parameter in self._posterior.parameters if count > 1 else ():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= count
        self._clipping.look(self._parameters.values(), scale)

    def _prepare(self, scale: Tensor | float, first: bool = True) -> Tensor | None:
        penalty = super()._prepare(scale, first)
        if self.max_norm is not None:
            clip_all(self._optimizers[0], self.max_norm, scale)
        return penalty

    def _add_gradient(self, scale: Tensor | float) -> Tensor | None:
        self._posterior.add_gradient(self._parameters, scale / self.train_size)
        return None

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not overflowed(optimizer):
            super()._after(optimizer, args, kwargs)
        # model.zero_grad() does not know them.
        for parameter in self._posterior.parameters:
            parameter.grad = None

    def _advance(self) -> None:
        self._posterior.absorb(self._parameters)

    def _decided(self) -> Mapping[str, Tensor]:
        if self._finished:
            return self._held
        masks = self._posterior.masks(self._parameters, THRESHOLD)
        return masks if self._structure is None else without_dead_units(masks, self._parameters, self._structure)

    def _conclude(self) -> None:
        self._hold(self._decided())

    # Saved runs

    def _options(self) -> dict[str, Any]:
        rates = {"sigma_rate": self.sigma_rate, "mean_rate": self.mean_rate}
        return {"levels": list(self.levels), "train_size": self.train_size, **rates}

    def _extra_state(self) -> dict[str, Any]:
        kinds = self._posterior.kinds.items()
        return {
            "weights": {name: sigma.detach().clone() for name, sigma in self._posterior.sigmas.items()},
            "multipliers": {kind: own.log_sigma.detach().clone() for kind, own in kinds},
            "generator": self._generator.get_state(),
        }

    def _extra_form(self, state: Any) -> dict[str, Any]:
        weights = {name: like(sigma) for name, sigma in self._posterior.sigmas.items()}
        multipliers = {kind: like(own.log_sigma) for kind, own in self._posterior.kinds.items()}
        return {"weights": weights, "multipliers": multipliers, "generator": like(self._generator.get_state())}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        try:
            self._generator.set_state(state["generator"].cpu())
        except RuntimeError as error:
            raise ValueError(f"The state of Bayes has no state of a generator of random numbers: {error}") from None
        with torch.no_grad():
            for name, value in state["weights"].items():
                self._posterior.sigmas[name].copy_(value)
            for kind, value in state["multipliers"].items():
                self._posterior.kinds[kind].log_sigma.copy_(value)


def _checked(
    level: BayesLevel | Sequence[BayesLevel],
    train_size: int,
    log_sigma: float,
    sigma_rate: float,
    mean_rate: float,
    max_norm: float | None,
) -> tuple[BayesLevel, ...]:
    """The levels, each once; ValueError with a sentence for whatever is wrong."""
    known = get_args(BayesLevel)
    names = (level,) if isinstance(level, str) else tuple(level)
    if not names or len(set(names)) < len(names) or any(name not in known for name in names):
        raise ValueError(f"Bayes: level is {level!r}, expected one or several different ones of {', '.join(known)}.")
    if isinstance(train_size, bool) or not isinstance(train_size, int) or train_size < 1:
        raise ValueError(
            f"Bayes: train_size is {train_size!r}, expected the number of training examples (or tokens) over which "
            "the loss is a mean."
        )
    if not isinstance(log_sigma, (int, float)) or math.isnan(log_sigma):
        raise ValueError(f"Bayes: log_sigma is {log_sigma!r}, expected a number such as -3.")
    for name, value in (("sigma_rate", sigma_rate), ("mean_rate", mean_rate)):
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"Bayes: {name} is {value!r}, expected a factor of the learning rate, 0 or more.")
    if max_norm is not None and not (isinstance(max_norm, (int, float)) and 0 < max_norm < float("inf")):
        raise ValueError(f"Bayes: max_norm is {max_norm!r}, expected the largest norm of all gradients, above 0.")
    return tuple(name for name in known if name in names)
