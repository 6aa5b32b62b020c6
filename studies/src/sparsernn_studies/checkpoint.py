"""Checkpoints of a training: nested state in one safetensors file, tensors beside JSON, nothing that can execute.

Numbers, text, lists and mappings go into the file's JSON metadata, tensors into its body. Floats pass through JSON
without loss (repr), so a resumed training is equal to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from sparsernn.files import write_atomically
from sparsernn.tensors import TensorFile

from .errors import StudyError

FORMAT = "sparsernn-training"
VERSION = 1


class CheckpointError(StudyError):
    """A checkpoint that cannot be used; the message names the file, the field and what to do."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, None, lists, tuples, mappings with text or integer keys) atomically.

    Raises TypeError on anything else, before a byte is written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(dict(state), tensors, "state")
    header = {"format": FORMAT, "version": str(VERSION), "tree": json.dumps(tree)}
    write_atomically(path, to_bytes(tensors, metadata=header))


def read(path: Path) -> dict[str, Any]:
    """What `write` was given, tensors on the CPU. Raises CheckpointError if the file is truncated or foreign."""
    try:
        with TensorFile(path, share=100) as file:  # a history may be longer than the weights are wide
            header = file.metadata
            if header.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} is not a training checkpoint: its field 'format' is {header.get('format')!r:.40}, "
                    f"expected {FORMAT!r}.\nName the checkpoint of a run, or delete the file to begin anew."
                )
            if header.get("version") != str(VERSION):
                raise CheckpointError(
                    f"{path} has version {header.get('version')!r:.40}; this release reads version {VERSION}.\n"
                    "Use the release that wrote it, or delete the file to begin anew."
                )
            kept = _restore(json.loads(header["tree"]), file.read())
            if not isinstance(kept, dict):
                raise ValueError(f"its content is a {type(kept).__name__}")
            return kept
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint ({type(error).__name__}: {str(error)[:120]}).\n"
            "Delete the file to begin anew."
        ) from error


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """While a training takes over what `path` holds: what does not fit is an error that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this training ({type(error).__name__}: {' '.join(str(error).split())[:160]}).\n"
            "Delete the file to begin anew."
        ) from error


def _flatten(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    if isinstance(value, Tensor):
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(v, tensors, f"{name}.{n}") for n, v in enumerate(value)]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, (str, int)) for key in value):
            raise TypeError(f"{name} has keys that are neither text nor integers; a checkpoint cannot hold it.")
        return {"map": [[key, _flatten(v, tensors, f"{name}.{key}")] for key, v in value.items()]}
    raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint holds tensors, numbers, text and collections.")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "map":
        return {key: _restore(v, tensors) for key, v in content}
    items = [_restore(v, tensors) for v in content]
    if kind not in ("list", "tuple"):
        raise ValueError(f"unknown kind {kind!r}")
    return items if kind == "list" else tuple(items)


def random_state() -> dict[str, Any]:
    """State of torch's generators, on the CPU and on each CUDA device."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
