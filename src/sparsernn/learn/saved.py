"""What a saved state has to look like: checked as a whole before any of it is taken over.

A form is built of: a tensor (one of its shape and kind, bool or floating, without NaN), `bool`, `int` (0 or more),
`float` (finite), a dict (these keys), `Part(dict)` (some of these keys), a list (as long), `Some(form)` (or None, or an
empty list).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FORMAT = 2


@dataclass(frozen=True)
class Some:
    form: Any


@dataclass(frozen=True)
class Part:
    form: Mapping[str, Any]


def like(value: Tensor, dtype: torch.dtype | None = None, shape: Sequence[int] | None = None) -> Tensor:
    """The form of a tensor: of this shape (or of that of `value`), and no memory."""
    return torch.empty(value.shape if shape is None else tuple(shape), dtype=dtype or value.dtype, device="meta")


def memory_form(given: Any, parameters: Mapping[str, Tensor]) -> Any:
    """The form of a score's memory in `given`: what goes by a parameter's name has its shape, the rest is its own."""
    memory = given.get("score") if isinstance(given, Mapping) else None
    if not isinstance(memory, Mapping):
        return {}
    return {
        name: like(parameters[name] if name in parameters else torch.as_tensor(value)) for name, value in memory.items()
    }


def check_head(kind: str, state: Any, head: Mapping[str, Any]) -> None:
    """Whether this is the state of such a sparsifier, on such a model, with such options."""
    if not isinstance(state, Mapping) or not {"format", "kind", "steps_done", "masks", "extra"} <= set(state):
        raise ValueError(f"This is not the state of a sparsifier: expected the dict of {kind}.state_dict().")
    if state["format"] != FORMAT:
        older = isinstance(state["format"], int) and state["format"] < FORMAT
        what = "was saved by an older version: begin that run anew" if older else "is newer: update sparsernn"
        raise ValueError(f"The state has format {state['format']}, this version reads {FORMAT}; it {what}.")
    if state["kind"] != kind:
        raise ValueError(f"The state is that of {state['kind']}, expected one of {kind}.")
    for part in ("shapes", "options"):
        given: Any = state.get(part)
        own = head[part]
        _check_keys(kind, part, given, own)
        for name, value in own.items():
            if given[name] != value:
                raise _wrong(kind, name, given[name], value)


def check_form(kind: str, place: str, given: Any, form: Any) -> None:
    """ValueError with a sentence that names the place where `given` is not of this form."""
    if isinstance(form, Some):
        if given is None or (isinstance(given, list) and not given):
            return
        form = form.form
    if isinstance(form, Part):
        _check_keys(kind, place, given, form.form, partly=True)
        form = {name: form.form[name] for name in given}
    if isinstance(form, Mapping):
        _check_keys(kind, place, given, form)
        for key, inner in form.items():
            check_form(kind, f"{place} {key}".strip(), given[key], inner)
    elif isinstance(form, list):
        if not isinstance(given, list) or len(given) != len(form):
            raise _wrong(kind, place, _named(given), f"a list of {len(form)}")
        for one, inner in zip(given, form):
            check_form(kind, place, one, inner)
    elif isinstance(form, Tensor):
        if not isinstance(given, Tensor) or given.shape != form.shape or _type(given) != _type(form):
            raise _wrong(kind, place, _named(given), _named(form))
        if given.is_floating_point() and bool(given.isnan().any()):
            raise _wrong(kind, place, "NaN", "numbers")
    elif not _is(given, form):
        wanted = {bool: "True or False", int: "a whole number, 0 or more", float: "a finite number"}[form]
        raise _wrong(kind, place, _named(given), wanted)


def _is(given: Any, form: type) -> bool:
    if form is bool or isinstance(given, bool):
        return form is bool and isinstance(given, bool)
    if form is int:
        return isinstance(given, int) and given >= 0
    return isinstance(given, (int, float)) and math.isfinite(given)


def _check_keys(kind: str, place: str, given: Any, form: Mapping[str, Any], partly: bool = False) -> None:
    if not isinstance(given, Mapping):
        raise _wrong(kind, place, _named(given), "a dict")
    unknown = [str(key) for key in given if key not in form]
    lacking = [] if partly else [str(key) for key in form if key not in given]
    if unknown or lacking:
        what = f"the unknown {unknown[0]}" if unknown else f"no {lacking[0]}"
        raise _wrong(kind, place or "its parts", what, f"{'some of ' if partly else ''}{', '.join(list(form)[:6])}")


def described(value: Any) -> Any:
    """An option as a plain value that can be saved and compared: scores, schedules and functions by name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(inner) for inner in value]
    if isinstance(value, (Tensor, type)) or not hasattr(value, "__dict__") or callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    own = ", ".join(f"{k}={v!r}" for k, v in vars(value).items() if _is_plain(v))
    return f"{type(value).__name__}({own})"


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, (bool, int, float, str)) for part in parts)


def _wrong(kind: str, place: str, got: Any, expected: Any) -> ValueError:
    return ValueError(
        f"The state of {kind} has {got} for {place}, expected {expected}.\n"
        "Nothing was changed: build the same sparsifier on the same model as in the saved run."
    )


def _type(value: Tensor) -> Any:
    return "floating" if value.is_floating_point() else value.dtype


def _named(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) < 80 else type(value).__name__
