"""Example inputs: what users pass, as a list of calls; and the tensors inside any nest of results."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Call = tuple[tuple[Any, ...], dict[str, Any]]
NUMBERS = (Tensor, np.ndarray, np.generic, int, float, complex)


def calls(example_inputs: Any) -> list[Call]:
    """(args, kwargs) for each example: a tensor, a tuple of arguments, a dict of keywords, or a list of such.

    Anything else (a PackedSequence, another named tuple, a dataclass) is one argument.
    """
    if isinstance(example_inputs, list):
        if not example_inputs:
            raise ValueError("example_inputs is an empty list: give at least one example of what the model takes.")
        return [_call(example) for example in example_inputs]
    return [_call(example_inputs)]


def _call(example: Any) -> Call:
    if type(example) is tuple:
        return example, {}
    if type(example) is dict:
        return (), example
    return (example,), {}


def fresh(call: Call, dtype: torch.dtype | None = None) -> Call:
    """A copy of the arguments that the model may change; floating-point tensors in `dtype` if it is given."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            leaf = leaf.detach().clone()
            return leaf.to(dtype) if dtype is not None and leaf.is_floating_point() else leaf
        if isinstance(leaf, (int, float, str, bool, type(None), torch.device, torch.dtype)):
            return leaf
        try:
            return copy.deepcopy(leaf)
        except Exception:  # an argument that can't be copied (a file, a lock) is passed as it is
            return leaf

    return tree_map(one, call[0]), {k: tree_map(one, v) for k, v in call[1].items()}


def run(model: nn.Module, call: Call, number: int = 1) -> Any:
    """The model's output on one example; ValueError with a sentence if the model can't take it."""
    try:
        return model(*call[0], **call[1])
    except Exception as error:
        given = ", ".join([_describe(a) for a in call[0]] + [f"{k}={_describe(v)}" for k, v in call[1].items()])
        raise ValueError(
            f"{type(model).__name__} could not run on example {number} ({given}): {type(error).__name__}: {error}\n"
            "Pass example_inputs as the model takes them: a tensor, a tuple of arguments, a dict of keywords, "
            "or a list of such examples."
        ) from error


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def leaves_in(value: Any, _depth: int = 0) -> Iterator[Any]:
    """The outputs of a model one by one: tensors, arrays, numbers, strings; states of unequal widths as one each."""
    if isinstance(value, (*NUMBERS, str)) or getattr(value, "is_ragged_state", False):
        yield value
    elif isinstance(value, nn.Module) or _depth > 6:
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves_in(item, _depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for item in value:
            yield from leaves_in(item, _depth + 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        for item in vars(value).values():
            yield from leaves_in(item, _depth + 1)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of lists, tuples, mappings, dataclasses and plain objects, in order."""
    for leaf in leaves_in(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif getattr(leaf, "is_ragged_state", False):
            yield from tensors_in(list(leaf))
