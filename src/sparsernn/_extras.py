"""Optional dependencies: one sentence with the install command when one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

_EXTRA_OF = {
    "accelerate": "train",
    "tyro": "train",
    "optuna": "train",
    "datasets": "train",
    "matplotlib": "train",
    "jinja2": "train",
    "scipy": "train",
    "sklearn": "train",
    "filelock": "train",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "ray": "ray",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import `module` and return it; raise ImportError with the install command if it is missing.

    `purpose` completes the sentence "... is needed for <purpose>", for example "plots".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != top:
            raise
        extra = _EXTRA_OF[top]
        raise ImportError(f"{top} is needed for {purpose}: pip install 'sparsernn[{extra}]'", name=top) from None
