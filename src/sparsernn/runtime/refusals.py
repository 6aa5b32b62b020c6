"""Models that `accelerate` does not take, and the sentence for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..structure.cells import cell_of
from ..structure.refusals import exported
from .classes import runs_on_kernels
from .modules import Accelerated


def check_model(model: nn.Module) -> None:
    """RuntimeError for a model in training mode, accelerated already, or whose tensors are not float32 on the CPU."""
    if isinstance(model, torch.jit.ScriptModule):
        raise RuntimeError(
            f"accelerate: got a {type(model).__name__}: a scripted or traced model has no layers of torch.nn.\n"
            "Accelerate the model that it was made of."
        )
    for path, module in model.named_modules():
        if isinstance(cast(Any, module), Accelerated):
            raise RuntimeError(
                f"accelerate: {path or 'the model'} is accelerated already.\n"
                "Keep the original model, and accelerate that, with the other precision or the changed weights."
            )
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise RuntimeError(
                f"accelerate: {path} belongs to a lazy module, which knows its sizes after a first call.\n"
                "Run the model once on an example, then accelerate it."
            )
        if tensor.is_meta:
            raise RuntimeError(
                f"accelerate: {path} is on the meta device, which holds no numbers.\n"
                "Build the model on the CPU, or call model.to_empty(device='cpu') and load its weights."
            )
    kinds = [m for m in model.modules() if runs_on_kernels(m)]
    if not kinds and (what := _unreadable(model)):
        raise RuntimeError(f"{_without(model)}\n{what}")
    if model.training:
        raise RuntimeError(
            "accelerate: the model is in training mode; accelerated models only infer: call model.eval()."
        )
    for path, module in model.named_modules():
        if module in kinds or not kinds:
            for name, p in module.named_parameters():
                if p.device.type != "cpu" or (p.dtype != torch.float32 and p.is_floating_point()):
                    raise RuntimeError(
                        f"accelerate: {path + '.' if path else ''}{name} is {p.dtype} on {p.device}; "
                        "the kernels take float32 on the CPU: call model.float().cpu() first."
                    )


def nothing(model: nn.Module, left: Mapping[str, str]) -> str:
    """Why whole calls stay on torch. left: path of a layer -> why it does."""
    why = [f"{path or 'the model'}: {reason}" for path, reason in left.items()]
    why += [f"{path or 'the model'} ({type(m).__name__})" for path, m in model.named_modules() if _unknown(m)]
    middle = f" It has {'; '.join(why[:3])}." if why else ""
    kinds = "Compiled kernels replace torch.nn.LSTM, GRU, RNN, their cells and those of sparsernn.nn."
    return f"{_without(model)}{middle}\n{kinds}"


STREAMS = "Whole calls stay on torch: what kernels run of this model is its stream."


def _without(model: nn.Module) -> str:
    return f"accelerate: {type(model).__name__} has no LSTM, GRU or RNN (layer or cell) and no RHN to accelerate."


def _unreadable(model: nn.Module) -> str:
    """What the model has in the place of layers that could be seen; "" for nothing."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.quantized"):
            return (
                f"{path or 'The model'} is quantised by torch ({type(module).__name__}): "
                "accelerate the model from before that, with precision='int8'."
            )
    return exported(model)


def _unknown(module: nn.Module) -> bool:
    return cell_of(module) is not None and not runs_on_kernels(module)
