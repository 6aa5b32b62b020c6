"""The ledger of one trace: what every tensor carries, which channels are tied, owned, read and kept, and why.

The rules write into it; it knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .channels import PLAIN, ROW, Because, Channels, Reason, distinct, narrow_expanded, pairs
from .feedback import Feedback
from .frames import source_line
from .numbering import Numbering
from .shadow import NONE, SUMMED, Shadow, ShadowStore, Weight, collapse, constant, fit, weight_shadow


class Ledger:
    """Of all forward passes of one trace. `tensors` are parameters and buffers, `names` what they are called."""

    def __init__(
        self, names: Sequence[str], tensors: Sequence[Tensor], channels: Channels, constants: Iterable[Tensor]
    ):
        self.channels = channels
        self.numbering = Numbering(names, tensors)
        self.store = ShadowStore()
        for number, tensor in enumerate(tensors, start=1):
            self.store.know(tensor, weight_shadow(number, tensor.shape))
        for tensor in constants:
            if not self.store.is_known(tensor):
                self.store.know(tensor)
        self.strangers: list[tuple[Tensor, Reason]] = []  # float tensors that came from nowhere, and where
        self.kept_weights: dict[int, Reason] = {}
        self.operation = ""
        self.states: dict[tuple[int, int], Any] = {}  # (example, place) -> channels of a state handed out
        self.used: set[int] = set()  # parameters that some operation used
        self.feedback = Feedback()

    def number(self, tensor: Tensor) -> int | None:
        """The parameter or buffer that `tensor` is, as an object or element for element; None for anything else."""
        return self.numbering.of.get(id(tensor)) or self.numbering.whole(self.shadow(tensor))

    def shadow(self, value: object) -> Shadow:
        return self.store.get(value) if isinstance(value, Tensor) else NONE

    def label(self, value: object) -> Tensor | None:
        return self.as_activation(self.shadow(value))

    def site(self) -> tuple[str, str]:
        return self.operation, source_line()

    def reason(self, text: str, because: Because) -> Reason:
        return Reason(text, *self.site(), because)

    def lost(self, text: str) -> Reason:
        return self.reason(f"{text} in a way that is not followed", Because.NOT_FOLLOWED)

    def keep(self, label: Tensor | None, text: str, because: Because = Because.MEANING) -> None:
        if label is not None:
            self.channels.keep(label, self.reason(text, because))

    def lose(self, label: Tensor | None, text: str) -> None:
        """Keep what could go if tracing knew how to follow this."""
        self.keep(label, text, Because.NOT_FOLLOWED)

    def keep_weights(
        self,
        weights: Iterable[Weight],
        why: str = "is used by an operation that is not followed",
        because: Because = Because.NOT_FOLLOWED,
    ) -> None:
        """Weights that went through an unknown operation: whatever owns or reads them stays."""
        for number in self.parameters_in(*weights):
            known = self.kept_weights.get(number)
            if known is None or known.because is Because.MEANING:
                self.kept_weights[number] = self.reason(f"{self.numbering.names[number]} {why}", because)

    def parameters_in(self, *weights: Weight) -> list[int]:
        """The numbers of the parameters and buffers that the weights are made of."""
        return list(dict.fromkeys(n for weight in weights for n in self.numbering.parameters_in(weight)))

    def is_learned(self, shadow: Shadow) -> bool:
        """A weight and nothing else, with a parameter in it: not of buffers alone."""
        return shadow.is_weight and any(n not in self.numbering.buffers for n in self.parameters_in(*shadow.weights))

    def read(self, number: int, axis: int, index: np.ndarray, ids: np.ndarray) -> None:
        parameter, counts = self.numbering.parameter(number), self.numbering.counts(number, axis)
        size, site = self.numbering.shapes[parameter][axis], self.site() if counts else None
        self.channels.touch(parameter, axis, size, index, ids, own=False, read=counts, site=site)

    def own(self, number: int, axis: int, index: np.ndarray, ids: np.ndarray, value: bool) -> None:
        value = value and self.numbering.counts(number, axis)
        parameter = self.numbering.parameter(number)
        self.channels.touch(parameter, axis, self.numbering.shapes[parameter][axis], index, ids, own=True, value=value)

    def row_block(self, number: int, axis: int) -> int:
        parameter = self.numbering.parameter(number)
        return self.channels.block(("row", parameter, axis), self.numbering.shapes[parameter][axis], ROW)

    def as_factor(self, weight: Weight) -> Weight:
        """`weight` where it multiplies another weight: cut with it, but never what makes a unit dead."""
        return self.numbering.alias(weight)

    def dot(self, a: np.ndarray, b: np.ndarray) -> None:
        self.channels.dot(a, b, self.reason("a dot product of two activations", Because.MEANING))

    def dot_along(self, a: Tensor, b: Tensor) -> None:
        """Two activations (their labels, of one shape) were multiplied place by place, and summed up over units."""
        self.dot(*pairs(a, b))
        for mine, other in ((a, b), (b, a)):
            self.keep(torch.where(other == 0, mine, 0), "a dot product with a tensor without weights")

    def as_activation(self, shadow: Shadow) -> Tensor | None:
        """The label; where a parameter stands among the activations (a learned state), its own channels."""
        label = shadow.label
        for weight in shadow.weights:
            own = self.parameter_channels(weight)
            if own is not None:
                label = own if label is None else torch.where(label == 0, own, label)
        return label

    def combine(self, labels: Sequence[Tensor | None], shape: torch.Size) -> Tensor | None:
        """One label for an element-by-element operation: equal positions are tied."""
        result: Tensor | None = None
        for label in labels:
            if label is None:
                continue
            other = (
                label.view((1,) * (len(shape) - label.dim()) + tuple(label.shape))
                if label.dim() < len(shape)
                else label
            )
            result = other if result is None else self._pair(result, other, shape)
        return None if result is None else result.expand(shape)

    def collapse(self, label: Tensor, axes: Iterable[int]) -> tuple[Tensor, bool]:
        """As `shadow.collapse`; channels that are tied agree."""
        axes = list(axes)
        merged, agree = collapse(label, axes)
        if not agree:
            merged, agree = collapse(self._roots(label), axes)
        return merged, agree

    def _roots(self, label: Tensor) -> Tensor:
        small = narrow_expanded(label)[0]
        roots = self.channels.find(small.reshape(-1).numpy()).reshape(small.shape)
        return torch.from_numpy(roots).expand(label.shape)

    def _pair(self, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
        a_is_spread = any(shape[d] > 1 and constant(a, d) and self.varies(b, d) for d in range(len(shape)))
        b_is_spread = any(shape[d] > 1 and constant(b, d) and self.varies(a, d) for d in range(len(shape)))
        outer = a_is_spread and b_is_spread
        if outer:
            # Every value of one with every value of the other (attention weights of several heads times a memory):
            # the side without recurrent units stays, the other one is followed.
            a_is_spread = not self.channels.has_unit(a)
            b_is_spread = not a_is_spread
        for spread, label, other in ((a_is_spread, a, b), (b_is_spread, b, a)):
            # One unit that was concatenated with itself and meets rows of a linear layer, or itself beside others, is
            # tied to them all.
            twice = label.shape == shape and self.channels.has_unit(label)
            twice = twice and (not self.channels.has_unit(other) or self.channels.within(label, other))
            if spread and not twice:
                if outer and self.channels.has_unit(label):
                    self.lose(label, "an outer product of activations")
                self.keep(label, "one value is combined with every unit of another layer")
                return other
        wide_a, wide_b = a.expand(shape), b.expand(shape)
        left, right = pairs(wide_a, wide_b)
        self.channels.union(left, right, self.site())
        small_a, small_b = narrow_expanded(wide_a, wide_b)
        return torch.where(small_a != 0, small_a, small_b).expand(shape)

    def varies(self, label: Tensor, axis: int) -> bool:
        return not self.collapse(label, [axis])[1]

    def own_along(self, label: Tensor, weight: Weight, *, additive: bool) -> None:
        """`label` is combined element by element with a weight: its channels own the weight's planes."""
        shape = label.shape
        fitted = [fit(p, shape) for p in weight]
        beside = [d for d in range(len(shape)) if not all(constant(p, d) for p in fitted)]
        if all(constant(label, d) for d in beside):
            # One scalar, or one value a step or a place: the same for every channel, and cut with none of them.
            if additive:
                self.channels.shift(label)
            if beside:
                self.keep_weights([weight])
            return
        label, number, *parts = narrow_expanded(label, *fitted)
        flat, numbers = label.reshape(-1).numpy(), number.reshape(-1).numpy()
        for value in np.unique(numbers):
            if value == 0:
                continue
            chosen = (numbers == value) & (flat != 0)
            if not chosen.any():
                continue
            if value < 0:
                self.channels.shift(label)
                continue
            ids = flat[chosen]
            index = [part.reshape(-1).numpy()[chosen] for part in parts[: len(self.numbering.shapes[value])]]
            found = -1 if max(self.numbering.shapes[value], default=1) == 1 else self._owning_axis(ids, index)
            if found is None:
                self.channels.keep(label, self.lost(f"combined with {self.numbering.names[value]}"))
                self.keep_weights([weight])
            elif found >= 0:
                self.own(int(value), found, index[found], ids, value=additive)

    def _owning_axis(self, ids: np.ndarray, index: Sequence[np.ndarray]) -> int | None:
        """The axis of the parameter along which the channels change; -1: one scalar for all; None: unclear."""
        count = len(np.unique(ids))
        for axis, at in enumerate(index):
            if (len(np.unique(at)) == 1 and count > 1) or SUMMED in at:
                continue
            # Each index has one channel (a channel may have several: a unit that was concatenated twice).
            if len(np.unique(np.stack([at, ids], 1), axis=0)) == len(np.unique(at)) >= count:
                return axis
        return -1 if count > 1 and all(len(np.unique(at)) == 1 for at in index) else None

    def parameter_channels(self, weight: Weight) -> Tensor | None:
        """Channels of `weight` along its last axis, one for each index; None where it has none."""
        number, *parts = weight
        label: Tensor | None = None
        for value in torch.unique(narrow_expanded(number)[0]).tolist():
            if value <= 0:
                continue
            axes = range(len(self.numbering.shapes[value]))
            last = [a for a in axes if parts[a].dim() and parts[a].shape[-1] > 1 and parts[a].stride(-1) != 0]
            if len(last) > 1:
                self.keep_weights([weight])
                continue
            axis = last[0] if last else len(axes) - 1
            if axis < 0 or int(narrow_expanded(parts[axis])[0].min()) == SUMMED:
                continue
            size = self.numbering.shapes[value][axis]
            base = self.channels.block(("parameter", self.numbering.parameter(value), axis), size, PLAIN)
            here = parts[axis] + base
            one = narrow_expanded(number)[0].numel() == 1
            here = here if one else torch.where(number == value, here, 0)
            ids = np.unique(narrow_expanded(here)[0].numpy())
            ids = ids[ids != 0]
            self.own(value, axis, ids - base, ids, value=True)
            label = here if label is None else torch.where(label == 0, here, label)
        return label

    def gate(self, tensor: Tensor, carries: Shadow, by: Shadow) -> None:
        """`tensor`, with the shadow `carries`, is multiplied element by element by a value with the shadow `by`."""
        ids = distinct(by.label)
        if not len(ids) and not by.weights:
            return  # all that carried a channel was shifted out
        key = self.channels.key_of(int(ids[0])) if len(ids) else tuple(self.parameters_in(by.weights[0]))
        self.feedback.gate(tensor, (source_line(), key), distinct(carries.label))
