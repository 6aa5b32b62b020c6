"""What surgery leaves on a module besides narrower weights, in a form that can be saved.

An attachment is a plain object that a module carries in its attribute `_sparsernn` (a list), for example a pre-hook
that cuts wide initial states down to the units that were kept. `save` writes its `to_json()` under its tag; `load`
looks the tag up here, so that no class named in a file is ever imported.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from torch import nn


@runtime_checkable
class Attachment(Protocol):
    """`to_json` gives a dict of JSON values (numbers, strings, booleans, lists, dicts, None) and tensors, at any depth.

    `from_json` makes the object again and raises ValueError, TypeError or KeyError for data that it did not write.
    `attach` puts it to work on `module`: it registers its hook or sets attributes, and calls `remember`.
    An attachment that holds sizes also has `check(dense, small, narrowed)`, see `Checked`.
    """

    tag: ClassVar[str]

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self: ...

    def attach(self, module: nn.Module) -> None: ...


@runtime_checkable
class Checked(Protocol):
    """An attachment whose sizes `load` compares with the model before it is attached.

    `check` raises ValueError unless every size fits `dense`, the module that the caller built, and `small`, the one
    that takes its place. `narrowed`: all (dense, small) pairs of widths in the model that surgery made smaller.
    """

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None: ...


Kind = TypeVar("Kind", bound=Attachment)

_known: dict[str, type[Attachment]] = {}


def register_attachment(kind: type[Kind]) -> type[Kind]:
    """Make a class of attachments known to `save` and `load`; usable as a decorator. Its tag is part of the format."""
    if _known.setdefault(kind.tag, kind) is not kind:
        raise ValueError(f"The tag {kind.tag!r} belongs to {_known[kind.tag].__name__}; give {kind.__name__} another.")
    return kind


def attachment_of(tag: str) -> type[Attachment] | None:
    """The class that was registered with `tag`."""
    return _known.get(tag)


def attachments(module: nn.Module) -> tuple[Attachment, ...]:
    """What surgery left on `module`, in the order in which it was attached."""
    return tuple(module.__dict__.get("_sparsernn", ()))


def remember(module: nn.Module, attachment: Attachment) -> None:
    """List `attachment` on `module`, so that `save` finds it."""
    module.__dict__.setdefault("_sparsernn", []).append(attachment)
