"""A loaded model back on the kernels that it was saved from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from .._modules import set_eval
from ..structure.coded import CodedMatrix
from .classes import TORCH, is_linear, put_on_kernels, runs_on_kernels
from .engine import Engine
from .held import Precisions, freeze, own_matrices
from .layers import NO_INT8, around, finished
from .precision import runs_in_float32
from .weights import ends, lacking

_ELSEWHERE = "as in the model that was saved"


def restored(
    model: nn.Module,
    layers: Mapping[str, Precisions],
    held: Mapping[str, Mapping[str, CodedMatrix]],
    wanted: Any,
) -> Any:
    """`model`, which nobody else has, on kernels where `layers` says so: path of a module -> precision, or that of each
    of its layers ("l0_reverse").

    held: path -> name of a parameter -> its matrix. Raises ValueError, naming the module, for one that no kernel runs.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    set_eval(model)
    for path, precision in layers.items():
        try:
            _restore(model.get_submodule(path), precision, dict(held.get(path, {})), around(model, path))
        except ValueError as error:
            raise ValueError(f"{path or 'the model'}: {error}") from None
    chosen: list[Any] = [p for own in layers.values() for p in (own.values() if isinstance(own, Mapping) else [own])]
    if runs_in_float32(chosen):
        warnings.warn(f"load: {NO_INT8}", RuntimeWarning, stacklevel=4)
    others = {p: m for p, m in model.named_modules() if p not in layers and (is_linear(m) or runs_on_kernels(m))}
    fast = finished(model, dict.fromkeys(others, _ELSEWHERE))
    for module, own in own_matrices(fast):
        # What the file has in float32 and the kernels read in fewer bytes is saved again as it was.
        freeze(module, {name: matrix for name, matrix in own.items() if matrix.form.bits == 32})
    fast.__dict__["_wanted"] = wanted
    return fast


def _restore(module: Any, precision: Precisions, held: dict[str, CodedMatrix], wrappers: list[nn.Module]) -> None:
    if not (runs_on_kernels(module) or is_linear(module)):
        raise ValueError(f"no kernel runs a {type(module).__name__}")
    names = {end[1:] for _, _, end in ends(module)}
    if isinstance(precision, Mapping) and set(precision) != names:
        raise ValueError(f"got precisions of {', '.join(sorted(precision))[:60]}, expected {', '.join(sorted(names))}")
    if type(module) in TORCH or not held:
        module.__dict__["_engine"] = Engine("float32")
        freeze(module, held)
    else:
        # A class of the user's own is tried before it is taken, and for that has to run on torch.
        for name, matrix in held.items():
            setattr(module, name, nn.Parameter(matrix.dense(), requires_grad=False))
    wrong = put_on_kernels(module, wrappers)
    if wrong:
        raise ValueError(wrong)
    module.__dict__["_engine"] = type(module._engine)(precision)
    freeze(module, held)
    wrong = lacking(module)
    if wrong:
        raise ValueError(wrong)
