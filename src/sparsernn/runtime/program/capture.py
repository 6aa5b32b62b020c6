"""What a model computes, as a list of torch's operations: one run of a copy under a recorder, nothing left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from .calls import Call, NotAProgram
from .recorder import Recorder, line_among


@dataclass
class Capture:
    """One run of a model. `outputs`: the leaves of what it gave, and their structure; `changed`: the tensors that it
    left in attributes, by path; `names` and `before`: by the id of a tensor of the model, its path and its value."""

    model: nn.Module
    calls: list[Call]
    inputs: list[Tensor]
    outputs: list[Any]
    structure: TreeSpec
    changed: dict[str, Any]
    names: dict[int, str]
    before: dict[int, Tensor]


_PLAIN = (Tensor, bool, int, float, complex, str, type(None), torch.device, range, slice)
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def capture(model: nn.Module, leaves: Sequence[Tensor], arguments: Callable[[Sequence[Any]], Arguments]) -> Capture:
    """Run `model(*args, **kwargs)` on arguments(leaves) and note every operation. The model itself is used up by the
    run, which may change its buffers and attributes: give a copy."""
    kept = kept_tensors(model)
    names = {id(value): path for path, value in [*kept.items(), *model.named_parameters()]}
    before = {id(value): value.clone() for value in kept.values()}
    inputs = [leaf.clone() for leaf in leaves]
    args, kwargs = arguments(inputs)
    recorder = Recorder(inputs, map(id, kept.values()))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        given = recorder.run(lambda: model(*args, **kwargs))
    flat, structure = tree_flatten(given)
    for value in flat:
        if not isinstance(value, _PLAIN):
            raise NotAProgram(
                f"its output is of class {type(value).__name__}: return tensors, numbers, tuples, named tuples or "
                "dicts; a dataclass is made known by torch.export.register_dataclass."
            )
    after = kept_tensors(model)
    recorder.refuse_reads({id(value) for path, value in after.items() if value is kept.get(path)})
    changed = {path: value for path, value in after.items() if value is not kept.get(path)}
    given = [recorder.ref(value) for value in (*flat, *changed.values())]
    outputs, others = given[: len(flat)], given[len(flat) :]
    return Capture(model, recorder.calls, list(leaves), outputs, structure, dict(zip(changed, others)), names, before)


def kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Buffers and tensors in plain attributes (also in lists, tuples and dicts), by path; no parameters."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        for name, value in [*module._buffers.items(), *vars(module).items()]:
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for end, tensor in _tensors(value):
                found[f"{path}.{name}{end}".removeprefix(".")] = tensor
    return found


def _tensors(value: Any, end: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        yield end, value
    elif isinstance(value, (list, tuple)) and depth < 4:
        for n, item in enumerate(value):
            yield from _tensors(item, f"{end}.{n}", depth + 1)
    elif isinstance(value, dict) and depth < 4:
        for key, item in value.items():
            yield from _tensors(item, f"{end}.{key}", depth + 1)


def where(error: BaseException) -> str:
    """The line of the model that raised it, as " (net.py:14)"."""
    line = line_among(reversed(list(walk_tb(error.__traceback__))))
    return f" ({line})" if line else ""
