"""Settings of a study: a frozen dataclass whose values are checked by its annotations.

    @settings
    class Settings:
        cells: Some[Literal["lstm", "gru"]] = ("lstm", "gru")
        hidden: Count = 64
        sparsity: Part = 0.9

What several settings have to be together is said by a method `check`, which raises ValueError.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from .errors import StudyError

T = TypeVar("T")


class SettingsError(StudyError, ValueError):
    """A study or setting that does not exist, or a value that it cannot have; the message says what is expected."""

    exit_code = 2


@dataclass(frozen=True)
class Is:
    """Stands in an annotation: what is expected of a value, in words and as a test."""

    expected: str
    test: Callable[[Any], bool]


Count = Annotated[int, Is("a whole number, at least 1", lambda value: value >= 1)]
Whole = Annotated[int, Is("a whole number from 0 on", lambda value: value >= 0)]
Positive = Annotated[float, Is("a number above 0", lambda value: value > 0 and math.isfinite(value))]
NotNegative = Annotated[float, Is("a number from 0 on", lambda value: 0 <= value < math.inf)]
Part = Annotated[float, Is("a share between 0 and 1", lambda value: 0 < value < 1)]
Share = Annotated[float, Is("a share from 0 to below 1", lambda value: 0 <= value < 1)]
Fraction = Annotated[float, Is("a share from 0 to 1", lambda value: 0 <= value <= 1)]
Percent = Annotated[int, Is("a percentage above 0, at most 100", lambda value: 0 < value <= 100)]
Some = Annotated[tuple[T, ...], Is("at least one", bool)]


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """`cls` as a frozen dataclass that raises ValueError for a value which its annotation, or `check`, refuses."""

    def checked(self: Any) -> None:
        for name, kind in _annotations(type(self)).items():
            _check(name, getattr(self, name), kind)
        if hasattr(self, "check"):
            self.check()

    cls.__post_init__ = checked  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


@cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _check(name: str, value: Any, kind: Any, whole: Any = None) -> None:
    """Raise ValueError where `value`, or one of its elements, is not as `kind` says; `whole`: of which it is one."""
    shown = value if whole is None else whole
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *rules = typing.get_args(kind)
        _check(name, value, inner, whole)
        for rule in rules:
            if isinstance(rule, Is) and not rule.test(value):
                raise ValueError(f"{name} is {_text(shown)}, expected {rule.expected}{_known(inner)}.")
    elif origin is Literal and value not in typing.get_args(kind):
        several = "one of" if whole is None else "some of"
        raise ValueError(f"{name} is {_text(shown)}, expected {several} {', '.join(map(str, typing.get_args(kind)))}.")
    elif origin is tuple:
        kinds = typing.get_args(kind)
        if kinds[-1] is ... or len(kinds) == len(value):
            for n, each in enumerate(value):
                _check(name, each, kinds[0] if kinds[-1] is ... else kinds[n], value)
        else:
            raise ValueError(f"{name} is {_text(value)}, expected {len(kinds)} values.")


def _text(value: Any) -> str:
    texts = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    return repr(",".join(value)) if texts else repr(value)


def _known(kind: Any) -> str:
    """ " of a, b, c" for a tuple of those."""
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    return f" of {', '.join(map(str, typing.get_args(inner)))}" if typing.get_origin(inner) is Literal else ""


def with_changes(settings: Any, changes: Sequence[str]) -> Any:
    """`settings` with each "key=value" of `changes` applied, the value read as the field's type, never evaluated.

    Raises SettingsError for a key that does not exist (the nearest are offered) and for a value of another type.
    """
    changed: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"--set {change}: expected key=value, for example --set {fields(settings)[0].name}=...")
        try:
            changed[key] = read_value(type_of(settings, key), text)
        except ValueError as error:
            raise SettingsError(f"--set {change}: {error}") from None
    try:
        return replace(settings, **changed)
    except ValueError as error:
        raise SettingsError(f"--set {' '.join(changes)}: {error}") from None


def type_of(settings: Any, key: str) -> Any:
    """The type of the setting `key`. Raises ValueError, which offers the nearest names, if there is none."""
    types_of = typing.get_type_hints(type(settings))
    if key not in types_of:
        near = difflib.get_close_matches(key, types_of, n=3, cutoff=0.3) or sorted(types_of)
        raise ValueError(f"there is no setting {key!r}; did you mean {' or '.join(near)}?")
    return types_of[key]


def read_value(kind: Any, text: str) -> Any:
    """`text` as a value of type `kind` (number, text, bool, or a tuple of them, comma-separated).

    tyro reads it, so nothing is evaluated. Raises ValueError, which says what was expected. Which of some words it may
    be, the settings say.
    """
    import tyro

    if typing.get_origin(kind) is Literal:
        return text
    if typing.get_origin(kind) is tuple and typing.get_origin(typing.get_args(kind)[0]) is Literal:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    words = [word.strip() for word in text.split(",")] if typing.get_origin(kind) is tuple else [text]
    if kind is bool:
        words = [text.capitalize()]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(kind, args=words)
    except SystemExit:
        nouns = {int: "a whole number", float: "a number", bool: "true or false"}
        expected = nouns.get(kind, f"a value of type {getattr(kind, '__name__', kind)}")
        raise ValueError(f"{text!r} is not {expected}.") from None
