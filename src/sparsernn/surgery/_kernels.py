"""What a file says of an accelerated model: its weights are those of the plain one, and how it was accelerated."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from torch import nn

from .._modules import places
from ._container import Fault, short


def precisions(model: nn.Module) -> dict[str, str]:
    """Precision of each layer that runs on kernels, by the name that `accelerate(precision=)` takes for it."""
    found: dict[str, str] = {}
    for place, module in places(model):
        own: Any = getattr(vars(module).get("_engine"), "precision", None)
        for end, precision in own.items() if isinstance(own, dict) else [("", own)] if own else []:
            found[".".join(filter(None, (place, end)))] = precision
    return found


def checked(value: object) -> dict[str, str]:
    """The record of a file, from a hostile one too."""
    if not isinstance(value, dict) or not set(map(str, value.values())) <= {"float32", "bfloat16", "int8"}:
        raise Fault("precision", f"got {short(value)}, expected names with float32, bfloat16 or int8 each.")
    return value


def say(who: str, what: str, found: dict[str, str], level: int) -> None:
    """A warning where kernels were in another precision than what the file holds."""
    if set(found.values()) <= {"float32"}:
        return
    (most, _), *others = Counter(found.values()).most_common()
    wanted: Any = {"*": most} | {name: precision for name, precision in found.items() if precision != most}
    text = repr(wanted if others else most)
    warnings.warn(
        f"{who}: {what} in float32, not in the precision of the kernels.\n"
        f"accelerate(load(model, path), precision={text if len(text) < 200 else '{...}'}) makes those again.",
        UserWarning,
        stacklevel=level + 1,
    )
