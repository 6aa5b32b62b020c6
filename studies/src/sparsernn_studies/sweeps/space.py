"""What a sweep goes over: lists of values and ranges, each for one setting and read by that setting's type.

Values stay text until a trial begins, as they would stand after `--set`; nothing is ever evaluated.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..settings import SettingsError, read_value, type_of, with_changes

EXAMPLES = "for example hidden=16,32,64, sparsity=0.5:0.95 or learning_rate=log:1e-3:1e-1"


class SpaceError(SettingsError):
    """`--over` names no setting of the recipe, or values that it cannot have; the message says what is expected."""


@dataclass(frozen=True)
class Choice:
    """A list of values."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`; `whole`: integers only; `log`: even on a logarithmic scale."""

    key: str
    low: float
    high: float
    whole: bool
    log: bool


Axis = Choice | Range


def read_over(settings: Any, over: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of `over`: "key=a,b,c" (in a list of lists, "+" joins the parts of one), "key=a:b", "key=log:a:b".

    Raises SpaceError for what does not parse, for a key that does not exist (the nearest are offered), and for values
    that the recipe's settings refuse.
    """
    if not over:
        raise SpaceError(f"A sweep needs --over key=values, {EXAMPLES}.")
    axes = tuple(_axis(settings, text) for text in over)
    keys = [axis.key for axis in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise SpaceError(f"--over names {twice} twice; give all its values at once.")
    return axes


def _axis(settings: Any, text: str) -> Axis:
    key, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise SpaceError(f"--over {text}: expected key=values, {EXAMPLES}.")
    try:
        kind = type_of(settings, key)
        number = _number(kind)
        axis = _range(key, values, number) if number and ":" in values else _choice(key, values, kind)
        ends = axis.values if isinstance(axis, Choice) else (as_text(axis.low), as_text(axis.high))
        for value in ends:
            _checked(settings, key, value)
    except ValueError as error:
        raise SpaceError(f"--over {text}: {error}") from None
    return axis


def _choice(key: str, text: str, kind: Any) -> Choice:
    values = tuple(value.strip() for value in text.split(","))
    if typing.get_origin(kind) is tuple:
        values = tuple(value.replace("+", ",") for value in values)
    if "" in values:
        raise ValueError(f"there is an empty value; expected a list, {EXAMPLES}.")
    if len(set(values)) < len(values):
        raise ValueError("a value stands there twice.")
    return Choice(key, values)


def _range(key: str, text: str, kind: type) -> Range:
    scale, *rest = text.split(":")
    log = scale.strip() == "log"
    ends = rest if log else [scale, *rest]
    if len(ends) != 2:
        raise ValueError("expected a range a:b or log:a:b.")
    low, high = (read_value(kind, end.strip()) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("expected two numbers, the smaller one first.")
    if log and low <= 0:
        raise ValueError("a logarithmic range begins above zero.")
    return Range(key, low, high, whole=kind is int, log=log)


def _number(kind: Any) -> type | None:
    """int or float if `kind` is (or may be) that, None for all else."""
    several = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return next((number for number in (int, float) if number in several), None)


def _checked(settings: Any, key: str, value: str) -> None:
    try:
        with_changes(settings, [f"{key}={value}"])
    except SettingsError as error:
        raise ValueError(str(error).partition(": ")[2]) from None


def as_text(value: object) -> str:
    """A value as it would stand after `--set key=`; floats without loss."""
    return value if isinstance(value, str) else repr(value)
