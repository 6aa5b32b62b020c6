"""Dense matrices in place of stored ones: while the forward of their module runs, in state_dicts and in copies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .stored_matrix import MOVED, Matrix, made


class Remade(NamedTuple):
    """What autograd keeps in place of a matrix, or of a view of it."""

    matrix: Matrix
    places: Tensor
    version: int
    view: tuple[Any, Any, Any]


class Kept(NamedTuple):
    """Anything else that autograd keeps, and its version: torch compares no versions where there are hooks."""

    tensor: Tensor
    version: int


def _unpack(kept: Remade | Kept) -> Tensor:
    if isinstance(kept, Kept):
        if kept.tensor._version != kept.version:
            raise RuntimeError(
                f"A tensor of shape {tuple(kept.tensor.shape)} that the backward pass needs was changed in place after "
                "the forward pass.\nLeave out the operation in place (x.mul_, x += ...)."
            )
        return kept.tensor
    matrix = kept.matrix
    if kept.places is not matrix.places or kept.version != matrix.parameter._version:
        raise RuntimeError(MOVED)
    return matrix.again().as_strided(*kept.view)


class Owner:
    """A module and its stored matrices: dense ones while its forward runs, and in its state_dict."""

    def __init__(self, module: nn.Module, matrices: list[Matrix]) -> None:
        self.module, self.matrices = module, matrices
        self._calls: list[tuple[list[tuple[Matrix, Tensor]], Any, dict[str, Any]]] = []
        self._lock, self._thread = threading.Lock(), 0  # whose calls these are
        self._handles = [
            # First and last of the hooks, so that those of the user see the dense matrices.
            module.register_forward_pre_hook(Hook(self.enter, self), prepend=True),
            module.register_forward_hook(Hook(self.leave, self), always_call=True),
            module.register_state_dict_post_hook(Hook(self.save, self)),
            module.register_load_state_dict_pre_hook(Hook(self.load, self)),
            *(m.parameter.register_hook(m.arrived) for m in matrices),
        ]

    def detach(self) -> None:
        self._tidy(0)
        for handle in self._handles:
            handle.remove()

    def enter(self, module: nn.Module, *_: Any) -> None:
        own = threading.get_ident()
        with self._lock:
            if self._thread not in (0, own):
                raise RuntimeError(
                    f'Rewire(storage="sparse"): two threads call {type(module).__name__} at once, while it trains.\n'
                    "Give each a copy, which is plain: copy.deepcopy(model)."
                )
            self._thread = own
        self._tidy(1)
        there = []
        for matrix in self.matrices:
            # Something else in its place is a call on other weights (torch.func.functional_call).
            if module._parameters[matrix.local] is matrix.parameter:
                there.append((matrix, made(matrix)))

        def pack(tensor: Tensor) -> Remade | Kept:
            for matrix, dense in there:
                view = _view(tensor, dense)
                if view is not None:
                    return Remade(matrix, matrix.places, matrix.parameter._version, view)
            return Kept(tensor.detach(), tensor._version)  # an output of its own operation would hold itself

        hooks = saved_tensors_hooks(pack, _unpack) if there else nullcontext()
        hooks.__enter__()  # raises under transforms of torch.func, before anything is changed
        flat = {k: v for k, v in vars(module).items() if k in ("_flat_weights", "_flat_weight_refs")}
        for matrix, dense in there:
            module._parameters[matrix.local] = dense  # type: ignore[assignment]
        self._calls.append((there, hooks, flat))

    def leave(self, module: nn.Module, *_: Any) -> None:
        """After the forward, also after one that raised."""
        if self._thread != threading.get_ident():
            return
        if self._calls:
            self._put_back()
        if not self._calls:
            self._thread = 0

    def _tidy(self, inside: int) -> None:
        """Put back what calls left that Ctrl-C ended: torch runs no hooks then. inside: calls that really run."""
        if self._calls and _calls_of(self.module) <= inside:
            while self._calls:
                self._put_back()
            self._thread = threading.get_ident() if inside else 0

    def _put_back(self) -> None:
        there, hooks, flat = self._calls.pop()
        hooks.__exit__(None, None, None)
        for matrix, _dense in there:
            self.module._parameters[matrix.local] = matrix.parameter
        vars(self.module).update(flat)  # torch's recurrent layers hold their weights a second time
        there.clear()

    def save(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        self._tidy(0)
        for matrix in self.matrices:
            if prefix + matrix.local in state:
                state[prefix + matrix.local] = matrix.dense()

    def load(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        self._tidy(0)
        for matrix in self.matrices:
            given = state.get(prefix + matrix.local)
            if isinstance(given, Tensor) and given.shape == matrix.shape:
                matrix.given = matrix.loaded = given.detach().to(matrix.parameter, copy=True)
                state[prefix + matrix.local] = matrix.at(matrix.given)


def _calls_of(module: nn.Module) -> int:
    """How many calls of `module` run in this thread: several where its forward calls itself."""
    count, frame = 0, sys._getframe(1)
    while frame is not None:
        count += frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals.get("self") is module
        frame = frame.f_back
    return count


def _view(tensor: Tensor, dense: Tensor) -> tuple[Any, Any, Any] | None:
    """Size, strides and offset of `tensor` if it is a view of `dense`."""
    if tensor.layout is not torch.strided or tensor.dtype != dense.dtype or tensor.numel() > dense.numel():
        return None
    if tensor.untyped_storage().data_ptr() != dense.untyped_storage().data_ptr():
        return None
    offset = tensor.storage_offset() - dense.storage_offset()
    return (tensor.size(), tensor.stride(), offset) if 0 <= offset < dense.numel() else None


class Hook:
    """A hook that does nothing in copies of the model: there its matrices are plain parameters again."""

    def __init__(self, call: Callable[..., Any] | None = None, owner: Owner | None = None) -> None:
        self._call, self.owner = call, owner

    @property
    def stores(self) -> bool:
        return self.owner is not None

    def __call__(self, *args: Any) -> Any:
        return self._call(*args) if self._call is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        # Both copy and pickle know the parameter by then: it is the one in the copied module.
        own = self.owner.matrices if self.owner is not None else []
        return _plain_again, ([(m.parameter, m.places, m.shape) for m in own],)


@torch.no_grad()
def _plain_again(stored: list[tuple[Tensor, Tensor, torch.Size]]) -> Hook:
    for parameter, places, shape in stored:
        if parameter.shape != shape:
            flat = parameter.new_zeros(shape.numel())
            flat[places] = parameter
            parameter.data = flat.view(shape)
    return Hook()
