"""Finding the chain of modules that a model is, by running it once and watching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from .classes import has_own_forward
from .modules import Accelerated
from .weights import linear_names

ELEMENTWISE: dict[Any, str] = {
    **dict.fromkeys((torch.relu, F.relu, Tensor.relu, torch.relu_, Tensor.relu_), "relu"),
    **dict.fromkeys((torch.tanh, F.tanh, Tensor.tanh), "tanh"),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, Tensor.sigmoid), "sigmoid"),
}
ELEMENTWISE_MODULES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.AlphaDropout)
# Where features stay together and only the time and batch axes move, a step is none the wiser.
_MOVES = {
    Tensor.transpose, torch.transpose, Tensor.permute, torch.permute, Tensor.reshape, torch.reshape, Tensor.view,
    Tensor.contiguous, Tensor.detach, Tensor.clone, torch.clone, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze,
    torch.unsqueeze, Tensor.flatten, torch.flatten, Tensor.__getitem__, Tensor.select, Tensor.float, Tensor.to,
    F.dropout, torch.dropout, Tensor.swapaxes, torch.swapaxes, Tensor.movedim, torch.movedim, Tensor.long,
}  # fmt: skip

Part = nn.Module | str


class NotAChain(RuntimeError):
    """The model does something between its modules that one time step can't repeat."""


class _Watch(TorchFunctionMode):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.parts: list[tuple[str, Part]] = []
        self.depth = 0
        self.broken: str | None = None
        self._seen = {id(x): 0}  # tensors of the chain -> how many parts made them
        self._alive: list[Any] = [x]

    def add(self, name: str, part: Part | None, source: Any, result: Any) -> None:
        """`part` made `result` of `source`; None for a part that changes nothing."""
        place = self._seen.get(id(source))
        if place is None:
            self.fail(f"{name} reads something else than the part before it")
        elif place != len(self.parts):
            self.fail(f"{name} reads the output of part {place} a second time")
        if part is not None:
            self.parts.append((name, part))
        self.follow(result)

    def follow(self, result: Any) -> None:
        self._alive.append(result)
        self._seen[id(result)] = len(self.parts)

    def fail(self, why: str) -> None:
        self.broken = self.broken or why

    def at_end(self, value: Any) -> bool:
        return self._seen.get(id(value)) == len(self.parts)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.depth += 1
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.depth -= 1
        if self.depth == 0 and isinstance(result, Tensor):
            sources = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor) and id(a) in self._seen]
            if sources:
                if func in ELEMENTWISE:
                    self.add(ELEMENTWISE[func], ELEMENTWISE[func], sources[0], result)
                elif func in _MOVES:
                    self.add(_name(func), None, sources[0], result)
                else:
                    self.fail(f"{_name(func)} is applied to the output of {self._last()}")
        return result

    def _last(self) -> str:
        return self.parts[-1][0] if self.parts else "the input"


def _name(func: Any) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))


def record(model: nn.Module, x: Tensor, alone: bool = False) -> tuple[list[tuple[str, Part]], Tensor]:
    """The chain of (name, module or elementwise function) that `model` applies to x, and the whole call's output.

    alone: nothing but states of layers may come with that output, as from a layer itself. Raises NotAChain with the
    reason; whatever the model itself raises comes through.
    """
    watch = _Watch(x)
    handles: list[Any] = []
    states: list[Any] = []

    def before(_module: nn.Module, _args: Any) -> None:
        watch.depth += 1

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            watch.depth -= 1
            if watch.depth:
                return
            source = args[0] if args else kwargs.get("input")
            if isinstance(module, _NOTHING):
                watch.add(name, None, source, result)
            else:
                if isinstance(module, Accelerated) and not linear_names(module):
                    if has_own_forward(module):
                        watch.fail(f"{name} is a {type(module).__name__} with a forward of its own")
                    hx = args[1] if len(args) > 1 else kwargs.get("hx")
                    if hx is not None and any(bool((t != 0).any()) for t in ((hx,) if isinstance(hx, Tensor) else hx)):
                        watch.fail(f"{name} is given an initial state that is not zero")
                    states.extend(tree_leaves(result[1]))
                    result = result[0]
                watch.add(name, ELEMENTWISE_MODULES.get(type(module), module), source, result)

        return hook

    leaves = (Accelerated, nn.Embedding, nn.Linear, *_NOTHING, *ELEMENTWISE_MODULES)
    try:
        for name, module in model.named_modules():
            if isinstance(cast(Any, module), leaves) or not list(module.children()):
                handles.append(module.register_forward_pre_hook(before))
                handles.append(module.register_forward_hook(after(name or type(module).__name__), with_kwargs=True))
        with torch.no_grad(), watch:
            result = model(x)
    finally:
        for handle in handles:
            handle.remove()
    if watch.broken:
        raise NotAChain(watch.broken)
    outputs = [result] if isinstance(result, Tensor) else list(result) if isinstance(result, (tuple, list)) else []
    for output in outputs:
        if isinstance(output, Tensor) and watch.at_end(output):
            known = {id(v) for v in (output, *states)}
            if alone and ((len(outputs) == 1 and output is not result) or sum(v is output for v in outputs) > 1
                          or any(id(v) not in known for v in tree_leaves(result))):  # fmt: skip
                raise NotAChain("it returns more than the chain's output and the layers' states")
            return watch.parts, output
    raise NotAChain(f"the output of {watch._last()} is not among what the model returns")
