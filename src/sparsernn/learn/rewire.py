"""`Rewire`: sparse from the first step on; the places of the weights move in the course of training."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..structure.groups import Level as LevelName
from .distribution import Initial, drawn
from .governed import Include
from .options import check_rewiring
from .saved import described
from .select import check_scores, lowest
from .sparse_storage import SparseStorage, check_elementwise, check_storable
from .sparsifier import Sparsifier
from .units import make_level

Grow = Literal["random", "gradient"]


class Rewire(Sparsifier):
    """Train a sparse network from the first step.

    round(sparsity n) of the n groups in each scope are gone at every moment, and at intervals as many of the smallest
    go as grow elsewhere.

    Arguments:
        model: any module with recurrent layers.
        example_inputs: not used; None is fine.
        sparsity: share of groups that is gone, 0 to 1.
        steps: number of optimizer steps of the whole run.
        level: "weight", "block" (16x1, tiled within each gate) or "word" (16x4, what the int8 kernels read at once).
        grow: where weights grow: "random", anywhere that is empty (SET, Mocanu et al., Nature Communications 9, 2018),
            or "gradient", where the loss has its largest gradient (RigL, Evci et al., arXiv 1911.11134).
        share: of the groups that are there, how many move at first; what is smallest (root mean square) goes.
        decay: "cosine": that share falls to 0 by `end` (as RigL and Selfish-RNN); "constant" (as SET).
        every: number of steps from one move to the next.
        end: share of `steps` after which nothing moves any more.
        scope: what competes, and within what the number of groups stays the same: "matrix", so that the gates of a
            layer share one budget and get what they need of it (Selfish-RNN, Liu et al., arXiv 2101.09048), "layer"
            (a layer and direction: its input and its recurrent weights too) or "model".
        initial: how many groups of each matrix there are at first: "uniform", the same share of each, or "erdos-renyi",
            a share proportional to (rows + columns) / (rows columns), so that sparsity holds for the whole model.
        seed: of the places at the start and of random growth; all processes of a parallel training need the same.
        include: "recurrent", "all" or patterns of parameter names: whose weights are governed.
        storage: "dense", with zeros, or "sparse": weights, gradients and the optimizer's state as the values that are
            there alone, beside their places.

    `attach` draws places and zeroes the rest, so the very first forward pass is sparse. What grows starts at zero, with
    an optimizer's state of zero; what goes and grows at the same moment has not moved and keeps both. Selfish-RNN is
    `grow="random"`, RigL `grow="gradient"` with share=0.3, SET `grow="random", decay="constant", end=1`.

    With storage="sparse", from `attach` to `finish`, a governed parameter is the vector of its values, and the forward
    of the module that owns it sees the dense matrix, which is made for that call and once more in the backward pass.
    `state_dict`, copies and saved files of the model have dense matrices. The run is that of dense storage, in float32
    and float64 to the bit with torch's optimizers but for fused ones, which round by the place in memory, and for a
    layer that is called several times in a step, whose gradients may be added in another order. `clip_grad_norm_`
    counts the gradients of the weights that are there, in dense storage the others too. Optimizers have to treat each
    weight by itself (SGD, Adam, ...). The model must not be wrapped, be called by two threads at once, have one weight
    in two places, or read a module's weights outside of that module's forward. A step that moves holds dense matrices
    for a moment, and where weights grow by gradients those of all that is differentiated between two steps.

    Raises ValueError for a value out of its range and for an `include` that selects nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        sparsity: float = 0.9,
        *,
        steps: int | None = None,
        level: LevelName = "weight",
        grow: Grow = "random",
        share: float = 0.3,
        decay: Literal["cosine", "constant"] = "cosine",
        every: int = 100,
        end: float = 0.75,
        scope: Literal["matrix", "layer", "model"] = "matrix",
        initial: Initial = "uniform",
        seed: int = 0,
        include: Include = "recurrent",
        storage: Literal["dense", "sparse"] = "dense",
    ) -> None:
        check_rewiring(sparsity, steps, level, grow, share, decay, every, end, scope, initial, seed, storage)
        assert steps is not None
        super().__init__(model, include)
        self.level = make_level(level, self._root, example_inputs, self._governed, include)
        self.sparsity, self.steps, self.grow = float(sparsity), steps, grow
        self._share, self._decay, self._every, self._end = share, decay, every, round(end * steps)
        self._seed = seed
        self._scopes = self.level.scopes(scope)
        places = {"level": level, "scope": scope, "initial": initial, "seed": seed}
        moves = {"grow": grow, "share": share, "decay": decay, "every": every, "end": end}
        given = described({"sparsity": self.sparsity, "steps": steps, **places, **moves})
        # Sparse storage has an optimizer's state of its own.
        self.storage, self._given = storage, given | ({"storage": storage} if storage == "sparse" else {})
        self._stored: SparseStorage | None = None
        shapes = [self._parameters[name].shape for name in self.level.parameters]
        # Empty while weights are stored as values: their places say it.
        self._gone = drawn(self.level, self._scopes, shapes, initial, self.sparsity, self._draw())
        self._dense: dict[str, Tensor] = {}  # until the first step: the weights before `attach` zeroed some of them
        self._gradients: Tensor | None = None  # at a step that moves: how large the gradient of each group is

    def _draw(self) -> Tensor:
        """A random number for each group, (count,), by the seed and the step alone.

        So it is equal on all devices and ranks, and after a resume.
        """
        # torch's CPU generator looks at the low 32 bits of a seed only.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self._seed} {self.steps_done}".encode()))
        return torch.rand(self.level.count, generator=generator)

    def _touched(self) -> tuple[str, ...]:
        return self.level.parameters

    def _needs_one_optimizer(self) -> str:
        return "it grows by the gradients of a step" if self.grow == "gradient" else ""

    def _check_optimizer(self, optimizer: Optimizer, trained: set[int]) -> None:
        fixed = next((n for n in self.level.parameters if not self._parameters[n].requires_grad), None)
        if fixed is not None:
            raise ValueError(
                f"Rewire: {fixed} takes no gradient (requires_grad is False), so what grows there would stay at zero.\n"
                "Leave it out by include=, or train it."
            )
        if self.storage == "sparse":
            check_elementwise(optimizer)

    def _keeps_weights(self) -> bool:
        return self.storage == "sparse"

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> Self:
        """As every sparsifier's, and from now on the model is sparse.

        Raises ValueError where storage="sparse" does not go with the model or the optimizer.
        """
        if self.storage == "sparse" and not self._optimizers:
            check_storable(self.model, self._root, self.level.parameters)
        super().attach(optimizer, *others)
        with torch.no_grad():
            if self.storage == "sparse":
                self._set_held({})
                self._stored = SparseStorage(self._root, self._masks(), self._optimizers, self._watches)
                self._gone = torch.empty(0, dtype=torch.bool)
                return self
            if not self._held:
                self._dense = {name: self._parameters[name].detach().clone() for name in self.level.parameters}
            self._hold(self._masks())
        return self

    def step(self) -> None:
        """As every sparsifier's.

        Raises RuntimeError where weights grow by gradients, which an optimizer has, and for storage="sparse".
        """
        if self.storage == "sparse" and not self._optimizers:
            raise RuntimeError('Rewire: storage="sparse" stores what an optimizer trains: attach it first.')
        if self.grow == "gradient" and not self._optimizers:
            raise RuntimeError(
                'Rewire: grow="gradient" looks at the gradients of an optimizer\'s step: attach it first.'
            )
        super().step()

    def _masks(self) -> dict[str, Tensor]:
        return self._stored.masks() if self._stored else self.level.masks(self._gone, self._parameters)

    def _out(self) -> Tensor:
        """Which groups are gone, bool (count,)."""
        if self._stored is None:
            return self._gone
        return self.level.combine({name: mask.byte() for name, mask in self._masks().items()}, "norm") == 0

    def _head(self) -> dict[str, Any]:
        whole = self._stored.like() if self._stored else self._followed()
        return super()._head() | {"shapes": {name: list(value.shape) for name, value in whole.items()}}

    def _decided(self) -> Mapping[str, Tensor]:
        return self._held or self._masks()

    def _moves(self, step: int) -> bool:
        return step % self._every == 0 and step < self._end

    def _watches(self) -> bool:
        return self.grow == "gradient" and self._moves(self.steps_done + 1)

    def _watch(self, scale: Tensor | float) -> None:
        if not self._watches():
            return
        if self._stored:
            found = {name: gradient.abs_() for name, gradient in self._stored.gradients().items()}
        else:
            found = {name: self._gradient(self._parameters[name], scale) for name in self.level.parameters}
        self._gradients = self.level.combine(found, "norm")

    @staticmethod
    def _gradient(parameter: Tensor, scale: Tensor | float) -> Tensor:
        if parameter.grad is None:
            return torch.zeros_like(parameter)
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        return (gradient / scale).abs()

    def _advance(self) -> None:
        self._dense = {}
        if self._stored:
            self._stored.forget()
        elif not self._held:
            self._hold(self._masks())
        if self._moves(self.steps_done):
            self._move_some()

    def _magnitudes(self) -> dict[str, Tensor]:
        return self._stored.magnitudes() if self._stored else {n: p.abs() for n, p in self._followed().items()}

    def _move_some(self) -> None:
        share = self._share
        if self._decay == "cosine":
            share *= (1 + math.cos(math.pi * self.steps_done / self._end)) / 2
        size = self.level.combine(self._magnitudes(), "norm")
        growth = self._draw().to(size.device)
        if self._gradients is not None:
            # Where there is no gradient at all, chance decides, behind all that has one.
            growth = torch.where(self._gradients > 0, self._gradients, -growth)
        check_scores("Rewire", size, self.steps_done)
        check_scores("Rewire", growth, self.steps_done)
        gone = self._out().to(size.device)
        for scope in self._scopes:
            gone[scope] = _moved(gone[scope], size[scope], growth[scope], share)
        self._gradients = None
        if self._stored:
            self._stored.move(self.level.masks(gone, self._stored.like()))
            return
        self._gone = gone
        self._hold(self._masks())

    def _conclude(self) -> None:
        if not self._held and not self._stored:
            self._hold(self._masks())

    def _detach(self) -> None:
        super()._detach()
        if self._stored:
            with torch.no_grad():
                self._gone = self._out()
                self._stored.release()
            self._stored = None

    def _options(self) -> dict[str, Any]:
        return self._given

    def _extra_state(self) -> dict[str, Any]:
        return {"gone": self._out().cpu().clone()}

    def _extra_form(self, state: Any) -> dict[str, Any]:
        return {"gone": torch.empty(self.level.count, dtype=torch.bool, device="meta")}

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        self._gone = state["gone"].clone()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As every sparsifier's.

        Weights that `attach` zeroed just before, in a model that was loaded already, come back where the saved run has
        them.
        """
        first = self._masks() if self._dense else {}
        super().load_state_dict(state)
        if self._stored:
            with torch.no_grad():
                self._stored.load(self.level.masks(self._gone, self._stored.like()))
                self._gone = torch.empty(0, dtype=torch.bool)
            return
        with torch.no_grad():
            for name, value in self._dense.items():
                parameter = self._parameters[name]
                if torch.equal(parameter, value.masked_fill(~first[name], 0)):  # nobody loaded the model since
                    parameter.copy_(value)
            self._dense = {}
            if not self._optimizers:
                return
            if not self._held:  # saved before it was attached
                self._hold(self._masks())
            for name, mask in self._held.items():
                self._parameters[name].masked_fill_(~mask, 0)


def _moved(gone: Tensor, size: Tensor, growth: Tensor, share: float) -> Tensor:
    """`gone` (n,) after this share of the groups that are there went, and as many grew.

    The smallest go first; the largest `growth` grows first, at places that are empty then.
    """
    number = round(share * int((~gone).sum()))
    empty = gone | lowest(size.masked_fill(gone, torch.inf), number)
    return empty & ~lowest(-growth.masked_fill(~empty, -torch.inf), number)
