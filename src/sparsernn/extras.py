"""Optional dependencies: one sentence with the install command when one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

_EXTRA_OF = {
    "matplotlib": "sparsernn[plots]",
    "jinja2": "sparsernn[plots]",
    "tyro": "sparsernn[cli]",
    "onnx": "sparsernn[onnx]",
    "onnxscript": "sparsernn[onnx]",
    "onnxruntime": "sparsernn[onnx]",
    "ziglang": "sparsernn[devices]",
    "unicorn": "sparsernn[devices]",
    "wasmtime": "sparsernn[devices]",
    "ray": "sparsernn-studies[ray]",
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
        raise ImportError(f"{top} is needed for {purpose}: pip install '{_EXTRA_OF[top]}'", name=top) from None
