"""`accelerate`: the same model with its recurrent layers on compiled kernels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, cast, get_args

import torch
from torch import nn

from .._modules import unwrap
from ..nn.gated import GatedGRU, GatedLSTM, GatedRNN
from ..nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from ..nn.split import SplitGRU, SplitLSTM, SplitRNN
from ..structure.cells import cell_of, unmanaged_modules
from .costs import Precision, offered
from .engine import Engine
from .linear import AcceleratedLinear, LinearEngine
from .modules import CELLS, GRAPHS, HIGHWAYS, RAGGED, STACKS, Accelerated
from .opening import make_stream
from .processor import processor
from .stream import Stream

_CLASSES: dict[type[nn.Module], type[nn.Module]] = {**STACKS, **CELLS, **RAGGED, **GRAPHS, **HIGHWAYS}
_GATED = (GatedLSTM, GatedGRU, GatedRNN)
_RAGGED = (RaggedLSTM, RaggedGRU, RaggedRNN)
_SPLIT = (SplitLSTM, SplitGRU, SplitRNN)


def accelerate(model: nn.Module, precision: Precision = "float32") -> Any:
    """A new model that computes what `model` does, its recurrent layers on kernels compiled for this processor.

    For inference on the CPU: `model` must be in eval mode, in float32, and is left as it is. The new model has the
    same class, modules, parameter names and forward; its parameters don't require gradients. Weights that are zero
    cost no time where the packing can use it. Beside its own attributes it has `explain()` (which module runs how)
    and `stream(batch=1)` (step by step, see `sparsernn.runtime.stream`).

    precision: of the weights in the products. "bfloat16" halves their bytes, "int8" (one scale a row; inputs of the
    products quantised step by step; needs AVX-512 VNNI) quarters them; sums, gates and states stay float32.
    `benchmark` prints what either costs.

    Raises TypeError for something that is no module, ValueError for an unknown precision, and RuntimeError for a model
    in training mode, on another device, in another dtype, or without a recurrent layer that can be accelerated.
    """
    model = unwrap(model)
    if precision not in get_args(Precision):
        raise ValueError(f"accelerate: precision is {precision!r}; expected {', '.join(get_args(Precision))}.")
    if model.training:
        raise RuntimeError(
            "accelerate: the model is in training mode; accelerated models only infer: call model.eval()."
        )
    found = [(path, m) for path, m in model.named_modules() if type(m) in _CLASSES or type(m) in _GATED]
    found = [(path, m) for path, m in found if path not in unmanaged_modules(model)]
    if not found:
        raise RuntimeError(_nothing(model))
    if precision == "int8" and "panel" in offered(precision):
        warnings.warn(
            "accelerate: this processor has no AVX-512 VNNI, so precision='int8' runs in float32.",
            RuntimeWarning,
            stacklevel=2,
        )
    for path, module in found:
        for name, p in module.named_parameters():
            if p.device.type != "cpu" or p.dtype != torch.float32:
                raise RuntimeError(
                    f"accelerate: {path + '.' if path else ''}{name} is {p.dtype} on {p.device}; "
                    "the kernels take float32 on the CPU: call model.float().cpu() first."
                )
    with torch.inference_mode(False):  # weights made under it could not be watched for changes
        fast = _packed(model, precision, [path for path, _ in found])
    return fast


def _packed(model: nn.Module, precision: Precision, paths: list[str]) -> Any:
    """A copy whose modules at `paths`, and whose linear layers where it pays, have kernels of their own."""
    fast: Any = copy.deepcopy(model).requires_grad_(False)
    for module in list(fast.modules()):
        if type(module) is nn.Linear and _takes(module):
            cast(Any, module).__class__ = AcceleratedLinear
            module.__dict__["_engine"] = LinearEngine(precision)
    for split in [path for path, m in model.named_modules() if isinstance(m, _SPLIT) and not _watched(m)]:
        start = f"{split}." if split else ""
        paths = [split, *(path for path in paths if not path.startswith(start))]
    for path in paths:
        module = fast.get_submodule(path)
        if type(module) in _GATED or isinstance(module, _SPLIT):
            # Constant gates become zero rows again, and what a split layer lacks zero blocks: the packing leaves both
            # out by itself, and one call runs the layer.
            dense = _with_hooks(module.to_dense().requires_grad_(False), module)
            fast = dense if not path else _replace(fast, path, dense)
            module = dense
        if type(module) in GRAPHS:
            cast(Any, module).clear_absent()  # the kernels take the weights without the masks
        module.__class__ = _CLASSES[type(module)]
        module.__dict__["_engine"] = Engine(precision)
    fast.__class__ = _accelerated_class(type(fast))
    return fast


def _watched(split: nn.Module) -> bool:
    """Whether somebody looks into the components of a split layer: then each runs for itself."""
    inner = [m for m in split.modules() if m is not split]
    return any(m._forward_hooks or m._forward_pre_hooks for m in inner)


def _with_hooks(new: nn.Module, old: nn.Module) -> nn.Module:
    """`new` with what was hung on `old`: the hooks of its forward, and what surgery attached."""
    for name, value in vars(old).items():
        if name.startswith("_forward_") or name == "_sparsernn":
            new.__dict__[name] = value
    return new


def _takes(linear: nn.Linear) -> bool:
    """Whether the weight is a plain parameter (not made by a hook at each call) that the kernels can take."""
    weight = linear._parameters.get("weight")
    return weight is not None and weight.device.type == "cpu" and weight.dtype == torch.float32


def _replace(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


def _nothing(model: nn.Module) -> str:
    others = [f"{path or 'the model'} ({type(m).__name__})" for path, m in model.named_modules() if cell_of(m)]
    why = f" It has {', '.join(others[:3])}, whose class or weights are not torch's own." if others else ""
    return (
        f"accelerate: {type(model).__name__} has no LSTM, GRU or RNN (layer or cell) and no RHN to accelerate.{why}\n"
        "Compiled kernels replace torch.nn.LSTM, GRU, RNN, their cells and those of sparsernn.nn."
    )


class AcceleratedModel:
    """What `accelerate` adds to the model's own class; names that the class has itself stay its own."""

    def explain(self, batch: int = 1, steps: int = 1) -> str:
        """The layout and the predicted time of each matrix, for a batch of `batch` rows over `steps` time steps."""
        lines = [f"batch {batch}, {steps} step{'' if steps == 1 else 's'}, {processor().width} floats a vector:"]
        for path, module in _engines(self):
            lines += module._engine.explain(path, module, batch, steps)
        return "\n".join(lines)

    def stream(self, batch: int = 1, example: Any = None) -> Stream:
        """The model step by step for `batch` rows, see `Stream`.

        For a model that is a chain of Embedding, Linear, elementwise (relu, tanh, sigmoid; dropout is none in
        inference) and one-directional recurrent layers, found by running it once and verified against that run.
        `example`: an input to run it on, of any batch, where the one made up from its first layer does not fit.
        Raises RuntimeError with the reason for any other model.
        """
        return make_stream(cast(nn.Module, self), batch, example)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time, so copies and pickles name the model's own class.
        return _rebuild, (type(self).__mro__[1],), self.__dict__


def _engines(model: Any) -> Iterator[tuple[str, Any]]:
    return ((path, m) for path, m in model.named_modules() if isinstance(m, Accelerated))


def _accelerated_class(base: type[nn.Module]) -> type[nn.Module]:
    return type(base.__name__, (base, AcceleratedModel), {"__module__": base.__module__, "__doc__": base.__doc__})


def _rebuild(base: type[nn.Module]) -> nn.Module:
    made = _accelerated_class(base)
    return made.__new__(made)
