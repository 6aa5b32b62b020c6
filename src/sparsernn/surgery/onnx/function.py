"""What no file can hold: state that a model keeps from call to call, and random numbers. Both are refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .call import Flat
from .reads import Reads
from .sizes import alike

_CALLS = 3  # after which a state has to show
_OWN = frozenset(vars(nn.Module()))  # attributes of every module


def refuse_state_and_noise(flat: Flat, variants: Sequence[Sequence[Tensor]]) -> None:
    """Raise ValueError unless the outputs are a function of the inputs, in eval mode.

    `variants`: other inputs of the same sizes, with which the model is called in between.
    """
    first = flat.run(flat.examples)
    _refuse_nan(flat, first)
    if not _same(first, flat.run(flat.examples, seed=1)):
        with Reads(flat.examples) as reads:
            flat.run(flat.examples)
        drawn = f"draws random numbers ({', '.join(reads.random)})" if reads.random else "gives other outputs each time"
        raise ValueError(
            f"export_onnx: in eval mode {type(flat.model).__name__} {drawn}; an ONNX file can't do the same.\n"
            "Pass the noise, or whatever else changes from call to call, as an argument of forward."
        )
    twin = flat.fresh()
    for n in range(_CALLS):
        try:
            twin(*(value.clone() for value in variants[n % len(variants)]))
        except Exception:
            continue
    torch.manual_seed(0)
    try:
        again = twin(*(value.clone() for value in flat.examples))
    except Exception as error:
        raise _state(flat, twin, first) from error
    if not _same(first, again):
        raise _state(flat, twin, first)


def _state(flat: Flat, used: Flat, first: Sequence[Tensor]) -> ValueError:
    before, after = dict(_attributes(flat.fresh().model)), dict(_attributes(used.model))
    moved = [place for place, value in after.items() if not _equal(before.get(place), value)]
    alone: list[tuple[str, str]] = []
    for place in moved:
        twin = flat.fresh()
        path, name = place
        module = twin.model.get_submodule(path)
        for kept in (module._buffers, module._parameters, vars(module)):
            if name in kept:
                kept[name] = after[place]
        try:
            torch.manual_seed(0)
            if not _same(first, twin(*(value.clone() for value in flat.examples))):
                alone.append(place)
        except Exception:
            alone.append(place)
    names = [".".join(filter(None, place)) for place in alone or moved]
    what = f"{', '.join(names[:4])} changes in forward" if names else "something changes in forward"
    return ValueError(
        f"export_onnx: {what} and the next call reads it; an ONNX file keeps no state from call to call.\n"
        "Take it as an argument of forward and return it: the file then has it as an input and an output."
    )


def _attributes(model: nn.Module) -> Iterator[tuple[tuple[str, str], Any]]:
    """((path of the module, name), value) of every buffer, parameter and attribute."""
    for path, module in model.named_modules():
        for name, value in (*module._buffers.items(), *module._parameters.items(), *vars(module).items()):
            if name not in _OWN:
                yield (path, name), value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all()))
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, (int, float, str, bytes, type(None))):
        return a == b
    own, other = getattr(a, "__dict__", None), getattr(b, "__dict__", None)
    return own is None or isinstance(a, nn.Module) or _equal(own, other)


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(map(alike, a, b))


def _refuse_nan(flat: Flat, results: Sequence[Tensor]) -> None:
    if not any(bool(torch.isnan(result).any()) for result in results if result.is_floating_point()):
        return
    found: list[str] = []
    twin = flat.fresh()

    def look(path: str) -> Any:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            tensors = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
            if any(one.is_floating_point() and bool(torch.isnan(one).any()) for one in tensors):
                found.append(f"{path} ({type(module).__name__})" if path else type(module).__name__)

        return hook

    for path, module in twin.model.named_modules():
        module.register_forward_hook(look(path))
    twin(*(value.clone() for value in flat.examples))
    raise ValueError(
        f"export_onnx: the model gives NaN on the example, first in {found[0] if found else 'forward'}; "
        "nothing can be checked.\nPass an example on which all outputs are numbers."
    )
