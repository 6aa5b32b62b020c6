"""The tracer: follows channels through any forward pass, one torch function at a time.

It runs the model as it is (Python control flow included) under a torch function mode and keeps a shadow for every
tensor. What it knows is in `operations` (names), `contract` (products) and `recurrent` (layers and cells); every other
operation that touches a channel keeps it, with the operation's name and the user's source line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from . import rules
from .channels import ROW, Because, Channels, Reason, narrow_expanded, pairs
from .feedback import Feedback, observe
from .frames import operation_name, source_line, unseen
from .learned import parameter_channels
from .numbering import Numbering
from .operations import VALUE_FREE, ZEROS
from .shadow import NONE, SUMMED, Shadow, ShadowStore, Weight, collapse, constant, fit, weight_shadow


class Tracer(TorchFunctionMode):
    """Use as a context manager round one forward pass; `channels` collects over several passes."""

    def __init__(
        self, names: Sequence[str], tensors: Sequence[Tensor], channels: Channels, constants: Iterable[Tensor]
    ):
        super().__init__()
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

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation_name(func)
        if name in VALUE_FREE:
            result = func(*args, **kwargs)
            for tensor in _tensors(result):
                if name != "grad.get":
                    self.store.know(tensor, Shadow(zero=name in ZEROS))
            return result
        self.operation = name
        inputs = _tensors((args, kwargs))
        before = self._snapshot(inputs)
        result = func(*args, **kwargs)
        if before:
            self._follow(name, func, args, kwargs, result)
        results = _tensors(args[0] if name == "__setitem__" else result)
        for tensor in results:
            if not self.store.is_known(tensor):
                self.store.know(tensor)
        observe(self, name, inputs, results)
        return result

    def _follow(self, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> None:
        try:
            rules.follow(self, name, func, args, kwargs, result)
        except Exception as error:  # whatever a rule did not foresee: nothing is known, so the channels stay
            rules.forget(self, args, kwargs, f"an operation that is not followed ({type(error).__name__}: {error})")

    def _snapshot(self, inputs: list[Tensor]) -> bool:
        """Whether any argument carries something; floats never seen before are noted."""
        carries = False
        for tensor in inputs:
            if not self.recognise(tensor):
                if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
                    self.strangers.append((tensor, self.reason(unseen(tensor), Because.NOT_FOLLOWED)))
                self.store.know(tensor)
            carries = carries or self.store.carries(tensor)
            number = self.numbering.of.get(id(tensor))
            if number is not None:
                self.used.add(number)
        return carries

    def recognise(self, tensor: Tensor) -> bool:
        """Whether `tensor` is known, by itself or as another object over the memory of a known one."""
        if self.store.is_known(tensor):
            return True
        source = self.store.recognise(tensor)
        if source is None:
            return False
        self.feedback.alias(source, tensor)
        self.used |= set(self.parameters_in(*self.shadow(tensor).weights))
        return True

    # What the rules call.

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
            own = parameter_channels(self, weight)
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


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]
