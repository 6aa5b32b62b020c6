"""`accelerate`: the same model with its recurrent layers on compiled kernels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast, get_args

import torch
from torch import nn

from .._modules import copied, unwrap
from .calibration import choose_by
from .classes import into_one, is_linear, is_split, made, put_on_kernels, runs_on_kernels
from .delta import Wanted as Thresholds
from .held import Precision, freeze, own_matrices
from .modules import Accelerated
from .opening import make_stream
from .precision import Wanted, assign, by_name, check_wanted, runs_in_float32, units
from .processor import processor
from .program.stream import ProgramStream
from .refusals import STREAMS, check_model, nothing
from .stream import Stream
from .weights import linear_names

NO_INT8 = (
    "this processor has no AVX-512 VNNI, so products in precision='int8' run in float32, with weights rounded to int8."
)


def accelerate(
    model: nn.Module,
    precision: Wanted = "float32",
    *,
    batches: Any = None,
    tolerance: float = 0.01,
    keep_weights: bool = True,
) -> Any:
    """A new model that computes what `model` does, its recurrent layers on kernels compiled for this processor.

    For inference on the CPU: `model` must be in eval mode, in float32, and is left as it is. The new model has the
    same class, modules, parameter names and forward; its parameters don't require gradients. Weights that are computed
    at each call (norms, masks, parametrizations) are worked out once and stand under the layer's own names; a layer
    that kernels can't run stays on torch. Weights that are zero cost no time where the packing can use it. Beside its
    own attributes the new model has `explain()` (which module runs how, and which not, and why) and `stream(batch=1)`
    (step by step, see `sparsernn.runtime.stream`).

    precision: of the weights in the products. "bfloat16" halves their bytes, "int8" (one scale a row; inputs of the
    products quantised step by step, with AVX-512 VNNI; elsewhere the rounded weights run in float32) quarters them;
    sums, gates and states stay float32.
    `benchmark` prints what either costs. A dict gives each layer its own, {"head": "float32", "*": "int8"}, by names
    ("lstm", "lstm.l0", "lstm.l0_reverse") or patterns; float32 where none fits. "auto" chooses for each layer the
    cheapest with which the outputs on `batches` stay within `tolerance` of those in float32, relative to their norm.

    batches: example inputs as `trace` takes them, or an iterable of them; for "auto" only.

    keep_weights: False for a model that takes no more memory than what its kernels read. Its matrices are then held
    packed alone, from the first call on, as in a model that `load` gave: their parameters have no memory of their own,
    give the weights that the kernels have (rounded to the precision, zeros without a sign) to whoever reads them, and
    can't be written to. `state_dict`, `save` and copies give the same. `load_state_dict` and `to` make plain parameters
    of them again. A weight that several modules share is kept.

    A model without recurrent layers is taken for its streams; where it has nothing that kernels replace in whole calls
    (no Linear either), a warning says so. Raises TypeError for something that is no module, ValueError for an unknown
    precision or layer name, and RuntimeError for a model in training mode, on another device, in another dtype, or
    whose recurrent layers all have to stay on torch.
    """
    model = unwrap(model)
    check_wanted(precision)
    if (precision == "auto") != (batches is not None):
        raise ValueError(
            f"accelerate: precision is {precision!r} and batches {'missing' if batches is None else 'given'}.\n"
            "Pass batches=, example inputs, together with precision='auto', which measures on them; else neither."
        )
    if precision == "auto" and not 0 <= tolerance < math.inf:
        raise ValueError(f"accelerate: tolerance is {tolerance!r}; expected a share of the outputs' norm, as 0.01.")
    check_model(model)
    with torch.inference_mode(False), torch.no_grad():  # weights made under it could not be watched for changes
        fast = _packed(model)
        found, left = units(fast), fast.__dict__["_on_torch"]
        if not found:
            chosen = []
        elif precision == "auto":
            chosen, fast.__dict__["_measured"] = choose_by(fast, found, batches, tolerance)
        else:
            wanted: Any = precision if isinstance(precision, Mapping) else {"*": precision}
            chosen = by_name(found, wanted, left)
            assign(found, chosen)
        fast.__dict__["_wanted"] = precision if precision in get_args(Precision) else "float32"
        for module, own in [] if keep_weights else own_matrices(fast):
            freeze(module, own)
    if runs_in_float32(chosen or [fast.__dict__["_wanted"]]):
        warnings.warn(
            f"accelerate: {NO_INT8}",
            RuntimeWarning,
            stacklevel=2,
        )
    return fast


def _packed(model: nn.Module) -> Any:
    """A copy whose recurrent layers, and linear ones where it pays, have kernels of their own."""
    fast: Any = copied(model)
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    _open_wrappers(fast)
    left: dict[str, str] = {}
    for path, module in _with_paths(fast, lambda m: runs_on_kernels(m) or is_linear(m)):
        wrong = put_on_kernels(module, around(fast, path))
        if wrong:
            left[path] = wrong
    for split in [m for m in fast.modules() if is_split(m) and _can_be_one(m)]:
        into_one(split)
        put_on_kernels(split)
    if all(linear_names(m) for _, m in _engines(fast)):
        if any(map(runs_on_kernels, model.modules())):
            raise RuntimeError(nothing(model, left))
        if next(_engines(fast), None) is None:
            warnings.warn(f"{nothing(model, left)}\n{STREAMS}", RuntimeWarning, stacklevel=3)
    return finished(fast, left)


def finished(fast: Any, left: dict[str, str]) -> Any:
    """A model whose layers are on kernels, with what it offers as a whole. left: path of a layer -> why it is not."""
    _bind_again(fast)
    fast.__class__ = made(type(fast), AcceleratedModel)
    fast.__dict__["_on_torch"], fast.__dict__["_measured"] = left, []
    return fast


def _with_paths(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> list[tuple[str, nn.Module]]:
    return [(path, module) for path, module in model.named_modules() if wanted(module)]


def around(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules round the one at `path`, from the outermost."""
    parts = path.split(".")
    return [model.get_submodule(".".join(parts[:n])) for n in range(len(parts))] if path else []


def _open_wrappers(model: nn.Module) -> None:
    """Modules under torch.compile or DataParallel stand in the model by themselves where kernels run in them.

    Compiled code is not compiled again, and names are the model's own.
    """
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and any(runs_on_kernels(m) or is_linear(m) for m in child.modules()):
                parent._modules[name] = unwrap(child)


def _bind_again(model: nn.Module) -> None:
    """Methods of accelerated layers that a module keeps (`self.run = layer.forward`) are those of their new class."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            owner = getattr(value, "__self__", None)
            if isinstance(owner, Accelerated) and owner is not module and hasattr(owner, value.__name__):
                module.__dict__[name] = getattr(owner, value.__name__)


def _can_be_one(split: nn.Module) -> bool:
    """Whether all components run on kernels and nobody looks into them: else each runs for itself."""
    inner = [m for m in split.modules() if m is not split and not isinstance(m, nn.ModuleList)]
    return all(isinstance(m, Accelerated) and not m._forward_hooks and not m._forward_pre_hooks for m in inner)


class AcceleratedModel:
    """What `accelerate` adds to the model's own class; names that the class has itself stay its own."""

    def explain(self, batch: int = 1, steps: int = 1) -> str:
        """The layout and the predicted time of each matrix, for a batch of `batch` rows over `steps` time steps."""
        lines = [f"batch {batch}, {steps} step{'' if steps == 1 else 's'}, {processor().width} floats a vector:"]
        for path, module in _engines(self):
            lines += module._engine.explain(path, module, batch, steps)
        lines += [f"{path or type(self).__name__}: on torch, {why}" for path, why in self.__dict__["_on_torch"].items()]
        return "\n".join(lines + self.__dict__["_measured"])

    def stream(
        self,
        batch: int = 1,
        example: Any = None,
        time: int | Mapping[str, int | None] | None = None,
        states: Mapping[str, int | str] | None = None,
        delay: int = 0,
        delta: Thresholds | None = None,
    ) -> Stream | ProgramStream:
        """The model step by step for `batch` rows.

        That is a `Stream` where it is a chain of Embedding, Linear, elementwise (relu, tanh, sigmoid) and
        one-directional recurrent layers, else a `ProgramStream`, for any causal model.

        example: the model's inputs, a tensor, a tuple of arguments or a dict of keywords, of any batch; without it an
        input is made up from the first layer. time: the time axis of the inputs, for all or by name (None: the same at
        each step); by default whichever of 1 and 0 fits. states: for a model that takes one step itself, the name of
        the input that holds a state -> the place of its next value among the outputs; states in buffers and attributes
        are found. delay: steps of look-ahead that are waited for.
        delta: of a chain, for one row: columns of weights are skipped while the input or state that they multiply has
        not moved by more than this since it was last propagated (Neil et al., arXiv 1612.05571). A number for all
        layers, or name of a layer ("lstm.l0", "head") -> (input, state), of a Linear one: each a number or a tensor of
        one for each column; layers not named skip none. `delta_thresholds` chooses them. At 0 the outputs are those of
        the plain stream, up to the order of summation in float32. `read` counts what was read. A NaN or an infinity
        stays in the running sums until `reset`, or until they are made anew, each 256 steps.
        What was found is verified against whole calls. Raises RuntimeError with the reason where the model can't run
        step by step.
        """
        return make_stream(cast(nn.Module, self), batch, example, time, states, delay, delta)


def _engines(model: Any) -> Iterator[tuple[str, Any]]:
    return ((path, m) for path, m in model.named_modules() if isinstance(m, Accelerated))
