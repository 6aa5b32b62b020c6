"""What compiled code may be given: tensors with memory of their own, in calls that torch really runs.

Compiled code reads and writes by address, unseen by torch. So everything that only stands for a computation (fake and
traced tensors, batches of vmap, levels of torch.func, dual numbers) ends here in a sentence, before an address is
taken, and torch.compile leaves the modules to plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.utils import _python_dispatch

_functorch = cast(Any, torch._C)._functorch
F = TypeVar("F", bound=Callable[..., Any])

modes: Callable[[], int] = torch._C._len_torch_dispatch_stack  # how many of TorchDispatchMode are active

_NO_GRAPH = "it runs compiled kernels, which no graph can hold: leave fullgraph=True out, or compile the original model"
_ORIGINAL = "trace, transform or export the model that accelerate was given"


def eager(function: F) -> F:
    """For torch.compile, `function` and all that it calls are a graph break: they run as they are.

    As `torch.compiler.disable` does it, without its wrapper, which costs a microsecond a call and seconds of import.
    """
    try:
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    except (ImportError, AttributeError):
        return cast(F, torch.compiler.disable(function))
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = _NO_GRAPH  # type: ignore[attr-defined]
    return function


def _never(*_: Any) -> bool:
    return False


def signature(*tensors: Tensor) -> Callable[..., bool]:
    """A quick test whether as many other tensors are as these: type, dtype, device, memory format, strides, sizes, and
    what torch adds to every call at the moment (inference mode, autocast, transforms). Of no tensors: never.

    torch.compile guards its graphs by it. Where it is not to be had, or says no, `check` looks properly.
    """
    if not tensors:
        return _never
    try:
        from torch._C._dynamo.guards import TensorGuards

        return TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
    except (ImportError, TypeError):
        return _never


def undisturbed() -> bool:
    """Whether no mode and no level of forward derivatives is active, the two things that a `signature` can't see."""
    return not modes() and forward_ad._current_level < 0


def check(name: str, *tensors: Any, dtype: torch.dtype = torch.float32) -> None:
    """A sentence for everything that compiled code can't take; `name` is whom it is given to."""
    _refuse_tracing(name)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} got {type(tensor).__name__}, expected a float32 tensor on the CPU.")
        if tensor.device.type != "cpu" or tensor.dtype != dtype:
            raise RuntimeError(
                f"{name} is accelerated for float32 on the CPU, got {tensor.dtype} on {tensor.device}: "
                "convert it with .float().cpu()."
            )
        if tensor.layout != torch.strided or tensor.is_nested:
            what = "nested" if tensor.is_nested else tensor.layout
            raise RuntimeError(f"{name} is accelerated for plain dense tensors, got a {what} one: convert it first.")
        if not has_memory(tensor):
            raise RuntimeError(
                f"{name} runs compiled kernels on memory, and got a tensor that has none of its own "
                f"({type(tensor).__name__}): {_ORIGINAL}."
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name} is accelerated and computes no gradients, but an input requires them: "
                "call it under torch.no_grad(), or train the original model."
            )
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f"{name} is accelerated and computes no derivatives, but an input has a tangent: "
                "use the model that accelerate was given."
            )


def _refuse_tracing(name: str) -> None:
    what = ""
    if torch.jit.is_tracing():
        what = "torch.jit.trace"
    elif _functorch.maybe_current_level() is not None:
        what = "torch.func (vmap, grad, jvp, ...)"
    else:
        for mode in _python_dispatch._get_current_dispatch_mode_stack():
            kind = type(mode)
            if kind.__module__.startswith("torch.") and any(
                w in kind.__name__ for w in ("Fake", "Proxy", "Functional")
            ):
                what = kind.__name__
    if what:
        raise RuntimeError(f"{name} runs compiled kernels, which {what} can't see: {_ORIGINAL}.")


_KEYS = ("CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU", "BackendSelect", "Negative")


def has_memory(tensor: Tensor) -> bool:
    """Whether `tensor` is numbers in memory of this process that it owns or views, all of it there."""
    keys = str(torch._C._dispatch_keys(tensor)).partition("(")[2].rstrip(")").split(", ")
    if any(key not in _KEYS for key in keys):
        return False
    if not tensor.numel():
        return True
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    return tensor.untyped_storage().nbytes() >= needed and tensor.data_ptr() != 0
