"""The contract of all sparsifiers: attach to an optimizer, hold masks, save, resume, finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from .._modules import unwrap
from .company import check_company, check_finite, check_one, check_trained, copy_zeros, names, warn_of_exchanged
from .factors import apply, factors
from .governed import Include, governed
from .hooks import around_closure, direction, forget_directions, gradient_scale, mask_state, overflowed, unwrapped
from .saved import FORMAT, Part, check_form, check_head

LOOK = 100  # steps from one look at whether the parameters are still the model's to the next


class Sparsifier:
    """Base of `Prune`, `Rewire`, `Shrink`, `GroupLasso`, `Bayes`: what is done around each optimizer step.

    The model is never changed but for the values of its parameters: its class, parameter names, `state_dict` keys,
    `deepcopy`, pickling and export stay as they are. All state lives here, and hooks live on the optimizer. (Matrices
    under `Rewire(storage="sparse")` are the exception until it is finished; what is saved and copied is plain.)

    A subclass decides in `_advance` (after each step; it calls `_hold` when masks are settled), may add a penalty's
    gradient in `_add_gradient`, and names in `_touched` what it may change.
    """

    def __init__(self, model: nn.Module, include: Include = "recurrent") -> None:
        self._root = unwrap(model)
        self._governed = governed(self._root, include)
        self.model = model
        self.steps_done = 0
        self._held: dict[str, Tensor] = {}  # masks that are enforced
        self._factors: dict[str, list[Tensor]] = {}  # the same, to multiply with
        self._optimizers: tuple[Optimizer, ...] = ()
        self._handles: list[Any] = []
        self._state_is_masked = False
        self._user_added = False
        self._finished = False
        self._parameters: dict[str, Tensor] = dict(self._root.named_parameters())

    # For subclasses

    def _touched(self) -> tuple[str, ...]:
        """Names of all parameters that this sparsifier may change."""
        return self._governed.weights

    def _followed(self) -> dict[str, Tensor]:
        return {name: self._parameters[name] for name in self._touched()}

    def _advance(self) -> None:
        """Decide, after an optimizer step (no gradients; `steps_done` counts it already)."""

    def _watch(self, scale: Tensor | float) -> None:
        """Look at the gradients before a step; they are `scale` times the true ones."""

    def _add_gradient(self, scale: Tensor | float) -> Tensor | None:
        """Add `scale` times the penalty's gradient to the gradients; return the penalty, None if there is none."""
        return None

    def _options(self) -> dict[str, Any]:
        """What a resumed run must have been built with, as plain values."""
        return {}

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _extra_form(self, state: Any) -> dict[str, Any]:
        """The form of `_extra_state` (see saved.py); `state` is what is to be checked."""
        return {}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `_extra_state` gave; it has the right form."""

    def _rewound(self) -> None:
        """The weights are those of an earlier step, what is masked among them."""

    def _conclude(self) -> None:
        """Last decisions before `finish` applies the masks."""

    def _hold(self, masks: Mapping[str, Tensor]) -> None:
        """Enforce `masks` from now on: weights, their gradients and the optimizer's memory of them."""
        for name, mask in masks.items():
            # masked_fill once, so that the zeros are +0.0 and NaN goes; a cheap product then keeps them.
            self._parameters[name].masked_fill_(~mask, 0)
        self._set_held({name: mask for name, mask in masks.items() if not bool(mask.all())})
        for optimizer in self._optimizers:
            forget_directions(optimizer)

    def _set_held(self, masks: dict[str, Tensor]) -> None:
        self._held = masks
        self._factors = {name: factors(mask, self._parameters[name].dtype) for name, mask in masks.items()}
        self._state_is_masked = False

    # The contract

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Self:
        """Follow every step of `optimizer` from now on; the training loop needs nothing else.

        Works with closures (LBFGS, Lightning), gradient accumulation, GradScaler and the wrappers of accelerate.
        Several sparsifiers may be attached to one optimizer. Where a layer and its readers are trained by `others` as
        well, each of them takes one step a training step, in this order: masks hold after each, decisions follow the
        last. Raises RuntimeError if already attached and ValueError if the optimizers lack parameters that this
        sparsifier changes or don't go with it; then nothing is changed.
        """
        kind = type(self).__name__
        if self._optimizers:
            own = names(self._optimizers)
            raise RuntimeError(f"{kind} is already attached to {own}: call finish() first, or make another one.")
        found = tuple(dict.fromkeys(unwrapped(each) for each in (optimizer, *others)))
        parameters: dict[str, Tensor] = dict(unwrap(self.model).named_parameters())
        trained = {id(p) for each in found for group in each.param_groups for p in group["params"]}
        check_trained(kind, self._followed(), parameters, trained, found)
        check_one(kind, self._needs_one_optimizer(), found)
        self._parameters = parameters
        for each in found:
            direction(each)
            self._check_optimizer(each, trained)
            check_company(self, each)
        self._optimizers = found
        self._finished = False
        self._set_held({n: m.to(parameters[n].device) for n, m in self._held.items()})
        for each in found:
            self._handles += [each.register_step_pre_hook(self._before), each.register_step_post_hook(self._after)]
        return self

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        """Refuse or warn of an optimizer that does not go with this sparsifier; `trained`: ids of all parameters."""

    def _needs_one_optimizer(self) -> str:
        """Why all parameters have to be those of one optimizer; empty where they need not."""
        return ""

    def _keeps_weights(self) -> bool:
        """True if it puts back weights that it keeps itself, so that nobody else may change them."""
        return False

    def penalty(self) -> Tensor:
        """The penalty, a scalar; zero where the method has none.

        Whoever adds it to the loss, as Wen et al. do, has its gradient from there; otherwise it is added before each
        step. Both at once cannot happen: a backward pass through this value switches the other off for that step.
        """
        return torch.zeros((), device=next(iter(self._parameters.values())).device)

    def step(self) -> None:
        """Do by hand what follows an optimizer step, where no torch optimizer is attached.

        Raises RuntimeError while attached, since each optimizer step does it already.
        """
        if self._optimizers:
            own = f"{type(self).__name__} is attached: each {names(self._optimizers)}.step() already does this."
            raise RuntimeError(f"{own}\nCall step() only where no optimizer is attached.")
        self._finished = False
        with torch.no_grad():
            self._move()

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool tensor of its shape, True where a weight is kept."""
        ones = {n: torch.ones_like(self._parameters[n], dtype=torch.bool) for n in self._governed.weights}
        return {**ones, **self._decided()}

    def _decided(self) -> Mapping[str, Tensor]:
        return self._held

    def density(self) -> float:
        """Share of the governed weights that is kept."""
        governed = [mask for name, mask in self.masks.items() if name in self._governed.weights]
        return sum(int(mask.sum()) for mask in governed) / sum(mask.numel() for mask in governed)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the model's and the optimizer's own state: tensors and plain values."""
        return {
            **self._head(),
            "steps_done": self.steps_done,
            "finished": self._finished,
            "masks": {name: mask.clone() for name, mask in self._held.items()},
            "extra": self._extra_state(),
        }

    def _head(self) -> dict[str, Any]:
        shapes = {name: list(value.shape) for name, value in self._followed().items()}
        return {"format": FORMAT, "kind": type(self).__name__, "options": self._options(), "shapes": shapes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, before or after `attach`.

        The model and the optimizer load their own state. Raises ValueError for the state of another sparsifier, another
        model or other options, and for values that no run leaves behind; then nothing is changed.
        """
        kind = type(self).__name__
        head = self._head()
        check_head(kind, state, head)
        masks = {n: torch.empty(shape, dtype=torch.bool, device="meta") for n, shape in head["shapes"].items()}
        form = {"steps_done": int, "finished": bool, "masks": Part(masks), "extra": self._extra_form(state["extra"])}
        check_form(kind, "", {key: value for key, value in state.items() if key not in head}, form)
        self._load_extra_state(state["extra"])
        self.steps_done, self._finished = int(state["steps_done"]), state["finished"]
        self._set_held({n: m.to(self._parameters[n].device, copy=True) for n, m in state["masks"].items()})

    def finish(self) -> nn.Module:
        """Apply the masks for the last time, take the hooks off the optimizer and return the model.

        Once more, it changes nothing. Raises ValueError for weights that are not finite; the hooks are gone then too.
        """
        try:
            if not self._finished:
                warn_of_exchanged(type(self).__name__, self._root, self._followed())
                check_finite(type(self).__name__, self._followed())
                with torch.no_grad():
                    self._conclude()
                    self._enforce()
                self._finished = True
        finally:
            self._detach()
        return self.model

    def apply_to(self, module: nn.Module) -> nn.Module:
        """Zero in a copy of the model, such as an average of its weights, what this sparsifier has left at zero.

        For `torch.optim.swa_utils.AveragedModel` and the like, whose weights never see the masks: after `finish` and
        the last update of the average. Returns `module`. Raises ValueError if it is no copy of the model.
        """
        copy_zeros(unwrap(module.module if isinstance(module, AveragedModel) else module), self._followed())
        return module

    def _detach(self) -> None:
        """Leave the optimizers as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers = [], ()

    # Around each optimizer step

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = optimizer is self._optimizers[0]

        def after_closure(loss: Any) -> Any:
            penalty = self._prepare(direction(optimizer), first)
            # A line search must see the objective whose gradient it was given.
            return loss + penalty.to(loss) if penalty is not None and isinstance(loss, Tensor) else loss

        wrapped = around_closure(args, kwargs, after_closure)
        if wrapped is not None:
            return wrapped
        if not overflowed(optimizer):
            with torch.no_grad():
                self._prepare(gradient_scale(optimizer), first)
        return None

    def _prepare(self, scale: Tensor | float, first: bool = True) -> Tensor | None:
        """With the gradients of a step at hand: watch them, add the penalty's, mask them."""
        if first:
            self._watch(scale)
        penalty = None if self._user_added or not first else self._add_gradient(scale)
        self._user_added = self._user_added and not first
        for name, by in self._factors.items():
            gradient = self._parameters[name].grad
            if gradient is not None and not gradient.is_sparse:
                apply(gradient, by)
        return penalty

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if overflowed(optimizer):
            return
        with torch.no_grad():
            if optimizer is self._optimizers[-1]:
                self._move()
            else:
                self._enforce()

    def _move(self) -> None:
        self.steps_done += 1
        if self.steps_done % LOOK == 1:
            warn_of_exchanged(type(self).__name__, self._root, self._followed())
        self._advance()
        self._enforce()

    def _enforce(self) -> None:
        for name, by in self._factors.items():
            apply(self._parameters[name], by)
        if not self._optimizers:
            return
        for name, mask in self._held.items():
            parameter = self._parameters[name]
            # Masked gradients keep a masked state at zero; sparse ones cannot be masked beforehand.
            if not self._state_is_masked or (parameter.grad is not None and parameter.grad.is_sparse):
                for optimizer in self._optimizers:
                    mask_state(optimizer, parameter, mask)
        self._state_is_masked = len(self._optimizers) == 1

    def _backward_reached(self, gradient: Tensor) -> None:
        self._user_added = True
