"""What a file says of an accelerated model: which modules ran on kernels, and in which precision."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .._modules import places
from ..structure.coded import CodedMatrix
from ._container import Fault, short

_KNOWN = ("float32", "bfloat16", "int8")
Held = Mapping[str, Mapping[str, CodedMatrix]]
# (model, path -> precision, path -> parameter -> matrix, the precision of the whole) -> the model on kernels. The
# runtime does that, which surgery does not know.
OnKernels = Callable[[nn.Module, Mapping[str, Any], Held, str], nn.Module]


def engine_of(module: nn.Module) -> Any:
    """What runs a module on kernels; None for any other module."""
    return vars(module).get("_engine")


def recorded(model: nn.Module) -> dict[str, Any] | None:
    """Of a model on kernels: precision of each module, or of its layers by their names; None for any other model."""
    found = {place: engine.precision for place, module in places(model) if (engine := engine_of(module)) is not None}
    layers = {place: dict(own) if isinstance(own, Mapping) else own for place, own in found.items()}
    return {"precision": vars(model).get("_wanted", "float32"), "layers": layers} if layers else None


def check_recorded(value: Any, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The record of a file, from a hostile one too."""
    layers = value.get("layers") if isinstance(value, dict) else None
    if not isinstance(layers, dict) or value.get("precision") not in _KNOWN:
        raise Fault("accelerated", f"got {short(value)}, expected a precision and the layers that have one.")
    for place, own in layers.items():
        field = f"accelerated.layers.{place}"
        if place not in modules:
            raise Fault(field, "the model has no such module.")
        if not set(map(str, own.values() if isinstance(own, dict) else [own])) <= set(_KNOWN):
            raise Fault(field, f"got {short(own)}, expected one of {', '.join(_KNOWN)}, or one for each layer.")
    return value


def checked(value: object) -> dict[str, str]:
    """The precisions that a file of format 1 names, whose weights are those of the plain model."""
    if not isinstance(value, dict) or not set(map(str, value.values())) <= set(_KNOWN):
        raise Fault("precision", f"got {short(value)}, expected names with float32, bfloat16 or int8 each.")
    return value


def say(found: dict[str, str], level: int) -> None:
    """A warning where kernels were in another precision than what a file of format 1 holds."""
    if set(found.values()) <= {"float32"}:
        return
    (most, _), *others = Counter(found.values()).most_common()
    wanted: Any = {"*": most} | {name: precision for name, precision in found.items() if precision != most}
    text = repr(wanted if others else most)
    warnings.warn(
        "load: the file was written by an accelerated model, and this is the plain one in float32, not in the precision"
        f" of the kernels.\naccelerate(load(model, path), precision={text if len(text) < 200 else '{...}'}) makes"
        " those again.",
        UserWarning,
        stacklevel=level + 1,
    )
