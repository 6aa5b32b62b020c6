"""Models that have no ONNX form: each is refused with what to export in its place."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ..._modules import is_accelerated


def refuse_other_kinds(model: nn.Module) -> None:
    """Raise ValueError for models that are compiled, quantized, accelerated, unfinished or not in float32."""
    for path, module in model.named_modules():
        kinds = [f"{base.__module__}.{base.__name__}" for base in type(module).__mro__]
        what = _kind(module, kinds)
        if what is not None:
            where = f"{path} is" if path else f"this {type(model).__name__} is"
            raise ValueError(f"export_onnx: {where} {what}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise ValueError(
                f"export_onnx: {name} has no size yet (a lazy module).\n"
                "Run the model once on an example, then export it."
            )
        if tensor.is_meta:
            raise ValueError(
                f"export_onnx: {name} is on the meta device and has no values.\nBuild the model on the CPU, or load it."
            )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(
                f"export_onnx: {name} is {parameter.dtype}; onnxruntime runs recurrent layers in float32.\n"
                "Export a copy: export_onnx(copy.deepcopy(model).float(), ...)."
            )


def _kind(module: nn.Module, kinds: list[str]) -> str | None:
    if is_accelerated(module):
        return (
            "accelerated, and its kernels have no ONNX form.\n"
            "Export the model before accelerate: export_onnx(model, ...), then accelerate(model)."
        )
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by torch.jit (script or trace).\nExport the Python model that it was made of."
    if any(".quantized." in kind and kind.startswith("torch.") for kind in kinds):
        return (
            "quantized by torch, whose operators ONNX lacks.\n"
            "Export the float32 model, and quantize the file: onnxruntime.quantization.quantize_dynamic."
        )
    return None
