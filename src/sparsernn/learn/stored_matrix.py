"""A matrix of which the values that are there are kept, and their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOVED = "The weights changed between this forward and its backward pass: call backward() before the optimizer's step."


class Matrix:
    """A parameter whose values (n,) stand at `places` of a matrix of this `shape`, flattened. Calls take no gradient.

    `watching`: whether the gradient of the whole matrix is wanted, in `seen`; it adds up as `parameter.grad` does.
    """

    def __init__(self, module: nn.Module, local: str, watching: Callable[[], bool]) -> None:
        parameter = module._parameters[local]
        assert parameter is not None
        self.module, self.local, self.parameter, self.watching = module, local, parameter, watching
        self.shape = parameter.shape
        self.places = torch.empty(0, dtype=torch.int32)
        self.given: Tensor | None = None  # until the next step: the matrix as it was loaded, or before it was stored
        self.loaded: Tensor | None = None  # until then, what the model has: with dense storage masks act at a step
        self.seen: Tensor | None = None
        self._new: Tensor | None = None  # its gradient in the backward pass that runs
        self._again: tuple[int, Tensor] | None = None  # in a backward pass: the matrix of this version of the values

    def like(self) -> Tensor:
        """A tensor of the matrix's shape, without its memory."""
        return self.parameter.detach().new_empty(()).expand(self.shape)

    def spread(self, values: Tensor) -> Tensor:
        """The matrix with `values` at the places and zeros elsewhere."""
        flat = values.new_zeros(self.shape.numel())
        flat[self.places] = values
        return flat.view(self.shape)

    def at(self, matrix: Tensor) -> Tensor:
        """The values of `matrix` at the places."""
        return matrix.reshape(-1)[self.places]

    def dense(self) -> Tensor:
        return self.spread(self.parameter.detach()) if self.loaded is None else self.loaded.clone()

    def mask(self) -> Tensor:
        """Where there are values, bool."""
        return self.spread(torch.ones_like(self.places, dtype=torch.bool))

    def put(self, mask: Tensor) -> None:
        """Take other places, for values that are set next."""
        places = mask.reshape(-1).nonzero()[:, 0]
        self.places = places.to(torch.int32) if mask.numel() < 2**31 else places
        self._again = self._new = self.seen = None

    def set(self, value: Tensor) -> None:
        """Let the parameter hold `value`; its gradient is none."""
        self.parameter.grad = None
        if value.shape != self.parameter.shape:
            # torch keeps the node that adds up gradients, and the size that it expects, until the type changes.
            other = torch.float32 if value.dtype == torch.float16 else torch.float16
            self.parameter.data = value.new_empty(0, dtype=other)
        self.parameter.data = value

    def become(self, form: Callable[[Tensor], Tensor], optimizers: Iterable[Optimizer]) -> None:
        """Bring the values, their gradient and the optimizers' states of them into another form."""
        before, gradient = self.parameter.shape, self.parameter.grad
        for state in (optimizer.state.get(self.parameter, {}) for optimizer in optimizers):
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == before and value.is_floating_point():
                    state[key] = form(value)
        self.set(form(self.parameter.detach()))
        self.parameter.grad = None if gradient is None else form(gradient)

    def move(self, mask: Tensor, optimizers: Iterable[Optimizer]) -> None:
        """Other places: what is at both keeps all that it has, what is new begins with zeros."""
        was = self.places
        self.put(mask)
        now = self.places

        def moved(values: Tensor) -> Tensor:
            flat = values.new_zeros(self.shape.numel())
            flat[was] = values
            return flat[now]

        self.become(moved, optimizers)

    def again(self) -> Tensor:
        """The matrix in a backward pass, made once for all that asks for it."""
        version = self.parameter._version
        if self._again is None or self._again[0] != version:
            self._again = version, self.dense()
        return self._again[1]

    def gathered(self, gradient: Tensor, places: Tensor) -> Tensor:
        """Of the gradient of the matrix that of the values."""
        self._again = None
        if places is not self.places:
            raise RuntimeError(MOVED)
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if self.watching():
            whole = gradient.detach()
            self._new = whole.clone() if self._new is None else self._new + whole
        return self.at(gradient)

    def arrived(self, gradient: Tensor) -> None:
        """Once in each backward pass, before the values' gradient is added to `parameter.grad`."""
        if self._new is not None:
            before = self.parameter.grad
            anew = self.seen is None or before is None or not bool(before.any())  # the loop has zeroed it
            self.seen = self._new if anew else self.seen + self._new  # type: ignore[operator]
            self._new = None

    arrived.__torch_unserializable__ = True  # type: ignore[attr-defined]  # no warning when it's pickled


def made(matrix: Matrix) -> Tensor:
    """The matrix of its values, with a gradient."""
    dense = Made.apply(matrix.parameter, matrix)
    first = getattr(dense.grad_fn, "_set_sequence_nr", None)
    if first is not None:  # as soon as a gradient is there, not after those of all that was called later
        first(2**63)
    return dense


class Made(torch.autograd.Function):
    """Values to their matrix; backward, its gradient to theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: Matrix) -> Tensor:
        ctx.matrix, ctx.places = matrix, matrix.places
        matrix._again = None  # of a backward pass that did not come to this matrix
        return matrix.dense()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.matrix.gathered(gradients[0], ctx.places), None
