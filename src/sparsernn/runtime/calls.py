"""What a module has learnt from its calls: the weights that it packed, and the shapes that it met."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from ..structure.coded import CodedMatrix, coded
from ..structure.held_weights import HeldWeight
from .held import Precision, Precisions, precision_of, rounded
from .memory import has_memory, modes, signature, undisturbed
from .stamp import Stamp
from .weights import lacking, matrix_layers, weight_of

MOST = 256  # shapes that are kept
Settle = Callable[[Tensor], Tensor]


class Known:
    """A call that was looked at properly, and what it takes to see that another one is of the same kind."""

    def __init__(self, stamp: Stamp, tensors: Sequence[Tensor], job: Any, also: Any, settle: Settle) -> None:
        self.stamp, self.also, self.weights = stamp, also, stamp.tensors
        self.fits = signature(*tensors, *stamp.tensors)
        x, *states = tensors
        plain = settle(x) is x and all(t.is_contiguous() and not t.is_neg() for t in states)
        # (x, states) -> what the job returns: None where nothing was run.
        self.run: Callable[[Tensor, Sequence[Tensor]], Any] = job if plain else partial(_settled_first, job, settle)


def _settled_first(job: Any, settle: Settle, x: Tensor, given: Sequence[Tensor]) -> Any:
    return job(settle(x), [state.resolve_neg().contiguous() for state in given])


class Calls:
    """Watches the weights of one module and keeps the calls that it knows.

    A copy or a pickle is an empty one: it packs by itself at its first call.
    """

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision
        self._lock = threading.RLock()  # several threads may call one module: one of them packs
        self._stamp: Stamp | None = None
        self._recent: dict[int, Known] = {}  # by the number of tensors
        self._known: dict[Any, Known] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[Precision]]:
        return type(self), (self.precision,)

    def in_few_bytes(self, module: Any) -> dict[str, CodedMatrix]:
        """The matrices of the module as the kernels have them, by name, where that takes fewer bytes than float32."""
        precision: Precisions = self.precision
        found = {}
        for name, layer in matrix_layers(module).items():
            weight = rounded(weight_of(module, name), precision_of(precision, layer))
            numbers, scales = (weight, None) if isinstance(weight, Tensor) else (weight.numbers(), weight.scales)
            size = getattr(module, "hidden_size", 0)
            gates = type(size) is int and size > 0 and len(numbers) % size == 0
            weight = coded(numbers, scales, size if gates else 0)
            if weight.bytes < 4 * weight.shape[0] * weight.shape[1] and weight.finite():
                found[name] = weight
        return found

    def forget(self) -> None:
        """Nothing of what was packed is used again; subclasses drop what they have."""
        self._stamp, self._recent, self._known = None, {}, {}

    def find(self, module: nn.Module, tensors: tuple[Any, ...], also: Any) -> Known | None:
        """What is known of a call with `tensors`, None if it has to be looked at. also: what else shapes it."""
        found = self._recent.get(len(tensors))
        if found is None or module.training or modes() or forward_ad._current_level >= 0:
            return None
        if not found.stamp.holds(module._parameters):
            return None
        if found.also is also and found.fits(*tensors, *found.weights):
            return found
        if not all(type(t) is Tensor for t in tensors):
            return None
        other = self._known.get(_key(tensors))
        if other is None or other.stamp is not found.stamp or other.also is not also:
            return None
        if not other.fits(*tensors, *other.stamp.tensors):
            return None
        self._recent[len(tensors)] = other
        return other

    def remember(self, tensors: tuple[Tensor, ...], job: Any, also: Any, settle: Settle | None = None) -> None:
        """The next call of this kind is `job`, as long as the weights are what they are.

        `settle` makes of the first tensor what the job was made for (`settled` by default).
        """
        if self._stamp is None or not undisturbed():
            return
        known = Known(self._stamp, tensors, job, also, settle or settled)
        if len(self._known) >= MOST:
            self._known = {}
        self._known[_key(tensors)] = self._recent[len(tensors)] = known

    def on_torch(self, module: nn.Module) -> bool:
        """Whether the weights are not there as kernels read them: made anew at each call (pruning, weight norm), or of
        other shapes. Then the module's own class in torch runs, or says what is wrong."""
        stamp = self._stamp
        return (stamp is None or not stamp.fits(module._parameters)) and bool(lacking(module))

    def stamp(self, module: nn.Module) -> Stamp:
        """The stamp of the weights; where they changed, everything is forgotten first."""
        with self._lock:
            if self._stamp is None or not self._stamp.fits(module._parameters):
                self.forget()
                self._stamp = _stamped(module)
            return self._stamp

    def sure(self, module: nn.Module) -> Stamp:
        """`stamp`, with the sample looked at as well: what is not going to run compiled code has to."""
        if self._stamp is not None and self._stamp.unseen():
            self.forget()
        return self.stamp(module)


def _stamped(module: nn.Module) -> Stamp:
    for name, p in module._parameters.items():
        if p is None or isinstance(p, HeldWeight):
            continue
        if p.device.type == "cpu" and p.dtype == torch.float32 and has_memory(p):
            continue
        lost = "" if p.device.type != "cpu" or p.dtype != torch.float32 else " without memory of its own"
        raise RuntimeError(
            f"{type(module).__name__} is accelerated for float32 on the CPU, but its {name} is {p.dtype} on {p.device}"
            f"{lost}: bring it back, or use the model that accelerate was given."
        )
    with torch.inference_mode(False), torch.no_grad():
        return Stamp(module._parameters)


def _key(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple([(t.shape, t.stride()) for t in tensors])


def settled(tensor: Tensor) -> Tensor:
    """The same numbers as memory has them: without a lazy sign, the last dimension side by side."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
