"""SNT-ASGD: averages of weights that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def exchanged(parameters: Iterable[Tensor], value: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The value of each parameter in its place; afterwards what was there before."""
    kept = {p: p.detach().clone() for p in parameters}
    with torch.no_grad():
        for p in kept:
            p.copy_(value(p))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, before in kept.items():
                p.copy_(before)


class SNTASGD(torch.optim.SGD):
    """SGD whose weights are averaged once the validation loss no longer falls, each from the step it was there.

    The sparse non-monotonically triggered averaged SGD of Liu et al. (Selfish-RNN, arXiv 2101.09048), for nets that
    `Rewire` or any other sparsifier follows; without one it is NT-ASGD (Merity et al., arXiv 1708.02182, algorithm 1).
    A weight that is exactly zero after a step is not there: its average is zero, and starts anew when it grows. So a
    grown weight is not drawn to the zeros of the time before it.

        optimizer = srn.SNTASGD(model.parameters(), lr=40.0)
        sparsifier = srn.Rewire(model, sparsity=0.67, steps=steps).attach(optimizer)
        for epoch in range(epochs):
            ...                                   # as with SGD
            with optimizer.averaged():            # the averages, once there are any, in the weights' place
                optimizer.look(validation_loss(model))

    Arguments:
        params, lr, options: as of `torch.optim.SGD`; parameters of float32 or float64.
        patience: averaging begins at the first look whose loss is above the least of those before the last `patience`.

    The averages, the losses and whether averaging has begun are in the optimizer's state and `state_dict`. Raises
    ValueError for a negative patience and for parameters of lower precision.
    """

    def __init__(self, params: Any, lr: float = 1e-3, *, patience: int = 5, **options: Any) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ValueError(f"SNTASGD: patience is {patience!r}, expected a number of looks, 0 or more.")
        super().__init__(params, lr, **options)
        own: dict[str, Any] = {"patience": patience, "averaging": False, "losses": ()}
        self.defaults.update(own)  # for groups that a sparsifier adds
        for group in self.param_groups:
            group.update(own)
        self._follow()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of any optimizer; raises ValueError for parameters of lower precision."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"SNTASGD: a parameter is {p.dtype}, in which steps can't be counted: take float32.")

    def _follow(self) -> None:
        # Before the hooks of sparsifiers, whose masks then hold for the averages too.
        self.register_step_post_hook(lambda optimizer, args, kwargs: self._average())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_optimizer_step_post_hooks" in self.__dict__ and not self._optimizer_step_post_hooks:
            self._follow()

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    @property
    def averaging(self) -> bool:
        """Whether averaging has begun."""
        return self.param_groups[0]["averaging"]

    def look(self, loss: float) -> bool:
        """Take in a validation loss, less is better; whether averaging goes on from here."""
        losses = self.param_groups[0]["losses"]
        before = losses[: max(0, len(losses) - self.param_groups[0]["patience"])]
        begins = any(float(loss) > earlier for earlier in before)
        for group in self.param_groups:
            group["losses"] = (*losses, float(loss))
            group["averaging"] = group["averaging"] or begins
        return self.averaging

    @torch.no_grad()
    def _average(self) -> None:
        if not self.averaging:
            return
        for p in self._parameters():
            if p.grad is None:
                continue
            state = self.state[p]
            if "average" not in state:
                state["average"], state["counted"] = torch.zeros_like(p), torch.zeros_like(p)
            there = p != 0
            state["counted"].add_(1).mul_(there)
            state["average"].add_((p - state["average"]) / state["counted"].clamp(min=1)).mul_(there)

    def averaged(self) -> AbstractContextManager[None]:
        """The averages in the weights' place; weights that have none are as they are."""
        own = (p for p in self._parameters() if "average" in self.state.get(p, {}))
        return exchanged(own, lambda p: torch.where(self.state[p]["counted"] > 0, self.state[p]["average"], p))
