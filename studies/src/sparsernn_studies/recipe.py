"""What a recipe is, and how its settings are changed from the command line."""

from __future__ import annotations

import contextlib
import difflib
import io
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from .runs import Run
from .tables import Column


class RecipeError(ValueError):
    """A recipe or setting that does not exist, or a value of another type; the message says what is expected."""

    exit_code = 2


@dataclass(frozen=True)
class Loaded:
    """The models of a finished run by their row, and inputs for them; `sparsified` is the one before compaction."""

    models: Mapping[str, nn.Module]
    example_inputs: Any
    sparsified: str


@dataclass(frozen=True)
class Judge:
    """What a sweep compares: the mean of `metric` over the rows whose names fit the pattern `rows` (as of file names).

    `more`: whether more of it is better. `size`: the metric that quality is set against.
    """

    metric: str
    more: bool
    rows: str = "*"
    size: str = "nonzero"


@dataclass(frozen=True)
class Recipe:
    """One table. `scales` maps smoke, cpu and paper (where there is one) to settings, all of one dataclass.

    `run` makes the rows and shows the table; `load` brings back the models of a finished run; `bench` times them;
    `report` writes the report and returns its path; `listen`, where there is one, streams a WAV file through the row of
    that name (None: the recipe's choice); `answer`, where there is one, shows what a net of the run says to a question
    about the text in a file. `minutes` is what a scale takes on two cores; `columns` are the table's, `labels` what its
    rows are called, in their order. `judge` is what a sweep compares; without it the first metric of quality that the
    rows measure, over all rows.
    """

    name: str
    summary: str
    scales: Mapping[str, Any]
    minutes: Mapping[str, str]
    run: Callable[[Run], None]
    load: Callable[[Run], Loaded]
    bench: Callable[[Run], None]
    report: Callable[[Run], Path]
    columns: Sequence[Column]
    labels: Mapping[str, str] = field(default_factory=dict)
    listen: Callable[[Run, Path, str | None], None] | None = None
    answer: Callable[[Run, Path, str], None] | None = None
    judge: Judge | None = None

    def settings(self, scale: str) -> Any:
        """The settings of `scale`. Raises RecipeError if the recipe has no such scale."""
        if scale not in self.scales:
            raise RecipeError(f"Recipe {self.name} has no scale {scale!r}, only {', '.join(self.scales)}.")
        return self.scales[scale]


def with_changes(settings: Any, changes: Sequence[str]) -> Any:
    """`settings` with each "key=value" of `changes` applied, the value read as the field's type, never evaluated.

    Raises RecipeError for a key that does not exist (the nearest are offered) and for a value of another type.
    """
    changed: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: expected key=value, for example --set {fields(settings)[0].name}=...")
        try:
            changed[key] = read_value(type_of(settings, key), text)
        except ValueError as error:
            raise RecipeError(f"--set {change}: {error}") from None
    try:
        return replace(settings, **changed)
    except ValueError as error:
        raise RecipeError(f"--set {' '.join(changes)}: {error}") from None


def type_of(settings: Any, key: str) -> Any:
    """The type of the setting `key`. Raises ValueError, which offers the nearest names, if there is none."""
    types_of = typing.get_type_hints(type(settings))
    if key not in types_of:
        near = difflib.get_close_matches(key, types_of, n=3, cutoff=0.3) or sorted(types_of)
        raise ValueError(f"there is no setting {key!r}; did you mean {' or '.join(near)}?")
    return types_of[key]


def read_value(kind: Any, text: str) -> Any:
    """`text` as a value of type `kind` (number, text, bool, Literal, optional, or a tuple of them, comma-separated).

    tyro reads it, so nothing is evaluated. Raises ValueError, which says what was expected.
    """
    import tyro

    several = typing.get_origin(kind) is tuple
    words = [word.strip() for word in text.split(",")] if several else [text]
    if kind is bool:
        words = [text.capitalize()]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(kind, args=words)
    except SystemExit:
        raise ValueError(f"{text!r} is not {_expected(kind)}.") from None


def _expected(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    nouns = {int: "a whole number", float: "a number", bool: "true or false"}
    return nouns.get(kind, f"a value of type {getattr(kind, '__name__', kind)}")
