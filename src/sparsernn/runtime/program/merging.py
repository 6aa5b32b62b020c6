"""Constants that a model makes over and over, in a cell that was given no state, say: made once, before all else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from .calls import Call, Ref
from .capture import Capture
from .constants import OF_A_SHAPE, written_calls

_MADE = ("zeros", "ones", "full", *OF_A_SHAPE)


def merged(run: Capture) -> Capture:
    """`run` with its tensors of one number in front, each of them once. Those that are written in place stay where they
    are."""
    found: dict[Any, list[int]] = {}
    changed = written_calls(run.calls)
    for number, call in enumerate(run.calls):
        if call.name.removeprefix("aten.") in _MADE and number not in changed:
            key = _number(call.result)
            if key is not None:
                found.setdefault(key, []).append(number)
    places = {number: place for place, numbers in enumerate(found.values()) for number in numbers}
    rest = [n for n in range(len(run.calls)) if n not in places]
    places |= {number: len(found) + place for place, number in enumerate(rest)}

    def moved(value: Any) -> Any:
        return tree_map(lambda v: replace(v, call=places[v.call]) if isinstance(v, Ref) and not v.input else v, value)

    first = [run.calls[numbers[0]] for numbers in found.values()]
    calls = [_alone(call) for call in first] + [replace(run.calls[n], args=moved(run.calls[n].args)) for n in rest]
    return replace(run, calls=calls, outputs=moved(run.outputs), changed=moved(run.changed))


def _number(result: Any) -> Any:
    if not isinstance(result, Tensor) or not result.numel():
        return None
    number = result.reshape(-1)[0].item()
    return (tuple(result.shape), result.dtype, number) if bool((result == number).all()) else None


def _alone(call: Call) -> Call:
    """Without the tensors whose shape it took."""
    return replace(call, args={name: None if isinstance(v, Ref) else v for name, v in call.args.items()})
