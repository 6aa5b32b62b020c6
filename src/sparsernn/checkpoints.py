"""`load`: what `save` wrote, a plain model or one on kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .runtime.restored import restored
from .surgery import checkpoint


def load(model: nn.Module, path: str | Path) -> Any:
    """A new model of the class of `model` with the modules, sizes and weights saved in `path`.

    `model` is freshly built and dense, as it was before surgery; it stays as it is, and so does a wrapper round it
    (DataParallel, `torch.compile`), which the result does not have. The result has its devices,
    `requires_grad`, training mode and everything that `save` does not hold, and the dtypes of the file.

    From a file of an accelerated model comes an accelerated one, in eval mode, that gives what the saved one gave, to
    the bit on the same processor. Its matrices are held in the few bytes of the file, and from the first call on as the
    kernels read them and in no other way: their parameters have no memory of their own, give the weights to whoever
    reads them, and can't be written to (see `accelerate(keep_weights=False)`). Built under `with torch.device("meta")`,
    `model` itself needs no memory.

    Raises ValueError for a lazy module that has not run yet, FileNotFoundError, or CheckpointError (a ValueError) that
    names file and field.
    """
    return checkpoint.load(model, path, restored)
