"""Models in which nothing can be seen, and what to pass instead: scripted, accelerated, exported, without weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .._modules import is_accelerated
from . import examples


def refuse(model: nn.Module, calls: Sequence[examples.Call]) -> None:
    """ValueError with a sentence for a model whose forward can't be seen or has no numbers to compute with."""
    for path, module in model.named_modules():
        name = path or type(model).__name__
        kind = getattr(module, "original_name", "")
        if isinstance(module, torch.jit.ScriptModule) and (not path or hasattr(nn, kind)):
            raise ValueError(
                f"{name} was compiled by torch.jit ({kind}), so its operations can't be seen.\n"
                "Pass the model that it was made from, and script or trace what comes out at the end."
            )
        if is_accelerated(module):
            raise ValueError(
                f"{name} is accelerated: its kernels only infer, and its operations can't be seen.\n"
                "Pass the model that accelerate was given, and accelerate what comes out at the end."
            )
        if type(module).__module__.startswith("torch.export."):  # holds fake tensors, which can't be copied
            raise ValueError(f"{name} can't be read. {exported(module)}")
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if any(is_lazy(tensor) for _, tensor in own):
            raise ValueError(
                f"{name} is lazy and has no weights yet: run the model once on an example before this call."
            )
        meta = next((n for n, tensor in own if tensor.is_meta), None)
        if meta is not None:
            raise ValueError(
                f"{'.'.join(filter(None, (path, meta)))} lies on the meta device, without numbers.\n"
                'Give the model its weights first: model.to_empty(device="cpu"), then load_state_dict.'
            )
    for number, call in enumerate(calls, start=1):
        if any(tensor.is_meta for tensor in examples.tensors_in(list(call))):
            raise ValueError(
                f"Example {number} lies on the meta device, expected numbers: the model is run, not only its shapes."
            )


def unreadable(model: nn.Module) -> str:
    """What stands in the place of recurrent layers, with what to do; "" where nothing does."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            return (
                f"{path or type(model).__name__} is quantised ({type(module).__module__}.{type(module).__name__}): "
                "sparsify and compact the model first, and quantise what comes out."
            )
    return exported(model)


def exported(model: nn.Module) -> str:
    """What to do about the module of an exported program or another graph of torch.fx; "" for any other model."""
    if isinstance(model, torch.fx.GraphModule) or type(model).__module__.startswith("torch.export."):
        return "It is an exported graph, in which layers are single operations: pass the model that it was made from."
    return ""
