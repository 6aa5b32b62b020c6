"""The contract of all sparsifiers: attach to an optimizer, hold masks, save, resume, finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._modules import unwrap
from .factors import apply, factors
from .governed import Include, governed
from .hooks import around_closure, forget_directions, gradient_scale, mask_state, overflowed, unwrapped

FORMAT = 1


class Sparsifier:
    """Base of `Prune`, `L1`, `GroupLasso`: what is done around each optimizer step.

    The model is never changed but for the values of its parameters: its class, parameter names, `state_dict` keys,
    `deepcopy`, pickling and export stay as they are. All state lives here, and hooks live on the optimizer.

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
        self._optimizer: Optimizer | None = None
        self._handles: list[Any] = []
        self._state_is_masked = False
        self._user_added = False
        self._parameters: dict[str, Tensor] = dict(self._root.named_parameters())

    # For subclasses

    def _touched(self) -> tuple[str, ...]:
        """Names of all parameters that this sparsifier may change."""
        return self._governed.weights

    def _advance(self) -> None:
        """Decide, after an optimizer step (no gradients; `steps_done` counts it already)."""

    def _watch(self, scale: Tensor | float) -> None:
        """Look at the gradients before a step; they are `scale` times the true ones."""

    def _add_gradient(self, scale: Tensor | float) -> Tensor | None:
        """Add `scale` times the penalty's gradient to the gradients; return the penalty, None if there is none."""
        return None

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `_extra_state` gave; raise before anything is changed."""

    def _conclude(self) -> None:
        """Last decisions before `finish` applies the masks."""

    def _hold(self, masks: Mapping[str, Tensor]) -> None:
        """Enforce `masks` from now on: weights, their gradients and the optimizer's memory of them."""
        for name, mask in masks.items():
            # masked_fill once, so that the zeros are +0.0 and NaN goes; a cheap product then keeps them.
            self._parameters[name].masked_fill_(~mask, 0)
        self._set_held({name: mask for name, mask in masks.items() if not bool(mask.all())})
        if self._optimizer is not None:
            forget_directions(self._optimizer)

    def _set_held(self, masks: dict[str, Tensor]) -> None:
        self._held = masks
        self._factors = {name: factors(mask, self._parameters[name].dtype) for name, mask in masks.items()}
        self._state_is_masked = False

    # The contract

    def attach(self, optimizer: Optimizer) -> Self:
        """Follow every step of `optimizer` from now on; the training loop needs nothing else.

        Works with closures (LBFGS, Lightning), gradient accumulation, GradScaler and the wrappers of accelerate.
        Several sparsifiers may be attached to one optimizer. Raises RuntimeError if already attached and ValueError
        if the optimizer lacks parameters that this sparsifier changes; then nothing is changed.
        """
        if self._optimizer is not None:
            raise RuntimeError(
                f"{type(self).__name__} is already attached to {type(self._optimizer).__name__}: "
                "call finish() first, or make a second sparsifier."
            )
        inner = unwrapped(optimizer)
        unwrap(self.model)
        parameters: dict[str, Tensor] = dict(self._root.named_parameters())
        known = {id(p) for group in inner.param_groups for p in group["params"]}
        missing = [n for n in self._touched() if parameters[n].requires_grad and id(parameters[n]) not in known]
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise ValueError(
                f"{type(inner).__name__} lacks parameters that {type(self).__name__} has to change: {shown}.\n"
                "Build the optimizer on the same model (after moving it to its device), with these parameters in it."
            )
        self._check_optimizer(inner)
        self._parameters = parameters
        self._optimizer = inner
        self._set_held({n: m.to(parameters[n].device) for n, m in self._held.items()})
        self._handles = [
            inner.register_step_pre_hook(self._before),
            inner.register_step_post_hook(self._after),
        ]
        return self

    def _check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuse or warn of an optimizer that does not go with this sparsifier."""

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
        if self._optimizer is not None:
            raise RuntimeError(
                f"{type(self).__name__} is attached: each {type(self._optimizer).__name__}.step() already does "
                "this.\nCall step() only where no optimizer is attached."
            )
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
        decided = self._decided()
        names = self._governed.weights
        kept = sum(int(decided[n].sum()) if n in decided else self._parameters[n].numel() for n in names)
        return kept / sum(self._parameters[n].numel() for n in names)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the model's and the optimizer's own state: tensors and plain values."""
        return {
            "format": FORMAT,
            "kind": type(self).__name__,
            "steps_done": self.steps_done,
            "masks": {name: mask.clone() for name, mask in self._held.items()},
            "extra": self._extra_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, before or after `attach`.

        The model and the optimizer load their own state. Raises ValueError for the state of another sparsifier or
        another model; then nothing is changed.
        """
        kind = type(self).__name__
        if not isinstance(state, Mapping) or not {"format", "kind", "steps_done", "masks", "extra"} <= set(state):
            raise ValueError(f"This is not the state of a sparsifier: expected the dict of {kind}.state_dict().")
        if state["format"] != FORMAT:
            raise ValueError(f"The state has format {state['format']}, this version reads {FORMAT}: update sparsernn.")
        if state["kind"] != kind:
            raise ValueError(f"The state is that of {state['kind']}, expected one of {kind}.")
        masks: Mapping[str, Tensor] = state["masks"]
        for name, mask in masks.items():
            shape = tuple(self._parameters[name].shape) if name in self._parameters else "no such parameter"
            if shape != tuple(mask.shape) or mask.dtype != torch.bool:
                raise ValueError(
                    f"The state has a {mask.dtype} mask of shape {tuple(mask.shape)} for {name}, "
                    f"the model has {shape}: build the same model as in the saved run."
                )
        self._load_extra_state(state["extra"])
        self.steps_done = int(state["steps_done"])
        self._set_held({n: m.to(self._parameters[n].device, copy=True) for n, m in masks.items()})

    def finish(self) -> nn.Module:
        """Apply the masks for the last time, take the hooks off the optimizer and return the model."""
        with torch.no_grad():
            self._conclude()
            self._enforce()
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizer = [], None
        return self.model

    # Around each optimizer step

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def after_closure(loss: Any) -> Any:
            penalty = self._prepare(1.0)
            # A line search must see the objective whose gradient it was given.
            return loss + penalty.to(loss) if penalty is not None and isinstance(loss, Tensor) else loss

        wrapped = around_closure(args, kwargs, after_closure)
        if wrapped is not None:
            return wrapped
        if not overflowed(optimizer):
            with torch.no_grad():
                self._prepare(gradient_scale(optimizer))
        return None

    def _prepare(self, scale: Tensor | float) -> Tensor | None:
        """With the gradients of a step at hand: watch them, add the penalty's, mask them."""
        self._watch(scale)
        penalty = None if self._user_added else self._add_gradient(scale)
        self._user_added = False
        for name, by in self._factors.items():
            gradient = self._parameters[name].grad
            if gradient is not None and not gradient.is_sparse:
                apply(gradient, by)
        return penalty

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not overflowed(optimizer):
            with torch.no_grad():
                self._move()

    def _move(self) -> None:
        self.steps_done += 1
        self._advance()
        self._enforce()

    def _enforce(self) -> None:
        for name, by in self._factors.items():
            apply(self._parameters[name], by)
        if self._optimizer is None:
            return
        for name, mask in self._held.items():
            parameter = self._parameters[name]
            # Masked gradients keep a masked state at zero; sparse ones cannot be masked beforehand.
            if not self._state_is_masked or (parameter.grad is not None and parameter.grad.is_sparse):
                mask_state(self._optimizer, parameter, mask)
        self._state_is_masked = True

    def _backward_reached(self, gradient: Tensor) -> None:
        self._user_added = True
