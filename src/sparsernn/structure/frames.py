"""What a call is named and where the user made it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import resolve_name

# Frames that are not the user's own: this room, the layers of this package, torch.
_OTHERS = tuple(
    str(p) for p in (Path(__file__).parent, Path(__file__).parent.parent / "nn", Path(torch.__file__).parent)
)


def operation_name(func: Callable) -> str:
    """The short name of a torch function: "cat", "__getitem__", "shape.get"."""
    name = getattr(func, "__name__", None) or ""
    if name in ("__get__", "__set__", "__delete__"):
        full = resolve_name(func) or name
        return full.split(".")[-2] + "." + name.strip("_")
    return name or (resolve_name(func) or repr(func)).split(".")[-1]


def source_line() -> str:
    """file.py:line of the nearest caller outside torch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OTHERS) and "importlib" not in file and not file.startswith("<frozen"):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def unseen(tensor: Tensor) -> str:
    """Why nothing is known of a tensor that came from nowhere."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # pyright: ignore[reportAttributeAccessIssue]
        return "inside torch.func or torch.vmap, which is not followed"
    return "made outside torch's own operations, so not followed"
