"""How often the examples multiply with each weight, counted in torch's own operations while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .._modules import in_eval
from ..structure.examples import calls, fresh
from ..structure.trace import quiet

_aten = torch.ops.aten


def multiply_adds(model: nn.Module, example_inputs: Any) -> dict[str, int]:
    """parameter -> multiply-adds of its products over all examples; parameters without a product are absent.

    A weight that is worked out of parameters (weight norm, masks, low rank) counts for the largest of them. Products of
    two activations, as in attention, belong to no parameter and are left out.
    """
    twin = in_eval(model)
    watch = _Products(twin)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that holds all of attention
    try:
        with quiet(), watch:
            for args, kwargs in (fresh(call) for call in calls(example_inputs)):
                twin(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return watch.found


def _plain(inner: int) -> Callable[..., int]:
    """A matrix product whose argument number `inner` has the summed dimension last."""
    return lambda args, out: out.numel() * args[inner].shape[-1]


def _convolution(args: Any, out: Tensor) -> int:
    x, weight, transposed = args[0], args[1], args[6]
    # Each position of the output, or of a transposed convolution's input, meets a filter of each of its channels once.
    return weight.numel() * (x.numel() // weight.shape[0] if transposed else out.numel() // weight.shape[0])


_PRODUCTS: Mapping[Any, Callable[..., int]] = {
    _aten.mm: _plain(0),
    _aten.bmm: _plain(0),
    _aten.mv: _plain(0),
    _aten.dot: lambda args, out: args[0].numel(),
    _aten.linear: _plain(0),
    _aten.addmm: _plain(1),
    _aten.addmv: _plain(1),
    _aten.baddbmm: _plain(1),
    _aten._addmm_activation: _plain(1),
    _aten.convolution: _convolution,
}
_STACKS = {_aten.mkldnn_rnn_layer, _aten._cudnn_rnn, _aten.miopen_rnn}


_LOOKUPS = {_aten.embedding, _aten._embedding_bag, _aten._embedding_bag_forward_only}


class _Products(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        # By storage: what lies there from where to where, "" for a buffer.
        self._names: dict[int, list[tuple[int, int, str]]] = {}
        self._kept: list[Any] = []  # an address stands for a tensor as long as that lives
        self._sizes = {"": 0, **{name: p.numel() for name, p in model.named_parameters()}}
        for name, tensor in (*model.named_parameters(), *((("", b) for _, b in model.named_buffers()))):
            self._know(tensor, name)

    def _know(self, tensor: Tensor, name: str) -> None:
        if tensor.layout is torch.strided:
            first = int(tensor.storage_offset())
            self._kept.append(tensor.untyped_storage())
            place = self._names.setdefault(self._kept[-1].data_ptr(), [])
            place.append((first, first + tensor.numel(), name))

    def _name(self, tensor: Tensor) -> str | None:
        if tensor.layout is not torch.strided:
            return None
        places = self._names.get(tensor.untyped_storage().data_ptr(), ())
        return next((name for first, end, name in places if first <= tensor.storage_offset() < end), None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        tensors = [t for t in _tensors(args) if t.numel()]
        names = [self._name(t) for t in tensors]
        if operation in _STACKS:
            rows = args[0].numel() // args[0].shape[-1]
            for tensor, name in zip(tensors, names):
                if name and tensor.dim() >= 2:
                    self._add(name, tensor.numel() * rows)
            return out
        if operation in _PRODUCTS:
            factors = [name for t, name in zip(tensors, names) if name and t.dim() >= 2]
            if factors:
                self._add(max(factors, key=self._sizes.__getitem__), _PRODUCTS[operation](args, out))
        # What is made of weights alone is a weight.
        made = bool(names) and None not in names and operation not in _LOOKUPS
        for tensor in _tensors(out) if made else ():
            if self._name(tensor) is None:
                self._know(tensor, max((name or "" for name in names), key=self._sizes.__getitem__))
        return out

    def _add(self, name: str, number: int) -> None:
        self.found[name] = self.found.get(name, 0) + number


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
