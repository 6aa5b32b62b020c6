"""The tracer: follows channels through any forward pass, one torch function at a time.

It runs the model as it is (Python control flow included) under a torch function mode and keeps a shadow for every
tensor. What it knows is in `operations` (names) and `rules/`; every other operation that touches a channel keeps it,
with the operation's name and the user's source line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from .channels import Because, Channels
from .frames import operation_name, unseen
from .ledger import Ledger
from .operations import VALUE_FREE, ZEROS
from .rules import follow as rules
from .shadow import Shadow


class Tracer(Ledger, TorchFunctionMode):
    """Use as a context manager round one forward pass; `channels` collects over several passes."""

    def __init__(
        self, names: Sequence[str], tensors: Sequence[Tensor], channels: Channels, constants: Iterable[Tensor]
    ):
        TorchFunctionMode.__init__(self)
        Ledger.__init__(self, names, tensors, channels, constants)

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
        self._observe(name, inputs, results)
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

    def _observe(self, name: str, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Note what the operation `name` of a forward pass feeds back."""
        feedback = self.feedback
        if name in rules.MATRICES:
            weights = [self._made_of(tensor) for tensor in inputs]
            numbers = [n for found in weights for n in found]
            if all(weights):
                feedback.derived(results, numbers)
            else:
                feedback.product(inputs, numbers, results, self.site)
        elif name in rules.LAYERS or name in rules.CELLS:
            feedback.layer()
        else:
            feedback.other(inputs, results)

    def _made_of(self, tensor: Tensor) -> list[int]:
        number = self.number(tensor)
        if number is not None:
            return [number]
        shadow = self.shadow(tensor)
        found = self.feedback.parameters(tensor)
        return self.parameters_in(*shadow.weights) if shadow.is_weight else found


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]
