"""The user's own integer attributes that hold a width (`self.hidden_size = 128`), brought up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..structure.cells import RecurrentLayer
from .attachments import attachments, register_attachment, remember


@register_attachment
class UpdatedWidths:
    """Integer attributes of a module that surgery changed, by name."""

    tag: ClassVar[str] = "updated_widths"

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)

    def to_json(self) -> dict[str, Any]:
        return {"values": self.values}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        if not all(type(value) is int and value > 0 for value in data["values"].values()):
            raise ValueError("updated widths: names with positive whole numbers are expected.")
        return cls(data["values"])

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None:
        for name, value in self.values.items():
            old = vars(dense).get(name) if _may_change(dense, name) else None
            if type(old) is not int:
                raise ValueError(f"updated widths: {type(dense).__name__} has no width {name[:40]}.")
            if (old, value) not in narrowed:
                raise ValueError(
                    f"updated widths: {name[:40]} is {value}, but no width of the model went from {old} to it."
                )

    def attach(self, module: nn.Module) -> None:
        for name, value in self.values.items():
            setattr(module, name, value)
        for old in attachments(module):
            if isinstance(old, UpdatedWidths):
                old.values.update(self.values)
                return
        remember(module, self)


def _may_change(module: nn.Module, name: str) -> bool:
    """Of the user's own modules only, and nothing private."""
    return not type(module).__module__.startswith(("torch.", "sparsernn.nn")) and not name.startswith("_")


Widths = Mapping[int, int]  # old width -> new width


def width_attributes(model: nn.Module, changed: Mapping[str, Widths]) -> Iterator[tuple[nn.Module, str, int]]:
    """(module, attribute, new value) of integers in the user's own modules that equal a width that changed.

    `changed` has the widths by the path of the module that they are inside of.
    """
    for path, module in model.named_modules():
        inside, anywhere = changed.get(path, {}), changed[""]
        for name, value in vars(module).items():
            new = inside.get(value, anywhere.get(value)) if type(value) is int and _may_change(module, name) else None
            if new is not None and new != value:
                yield module, name, new


def changed_widths(layers: tuple[RecurrentLayer, ...], dead: Mapping[str, Tensor]) -> dict[str, Widths]:
    """Path of a module ("": the model) -> the widths inside it, for unit sets and for both directions of a layer
    together, where they are unambiguous."""
    found: dict[str, dict[int, set[int]]] = {"": {}}

    def note(name: str, old: int, new: int) -> None:
        steps = name.split(".")
        for path in [".".join(steps[:n]) for n in range(len(steps) + 1)]:
            found.setdefault(path, {}).setdefault(old, set()).add(new)

    for name, mask in dead.items():
        note(name, len(mask), int((~mask).sum()))
    for layer in layers:
        if layer.reverse:
            name = layer.unit_sets[-1]
            pair = [dead[n] for n in (name.replace("_reverse", ""), name) if n in dead]
            if len(pair) == 2:
                note(name, sum(map(len, pair)), sum(int((~m).sum()) for m in pair))
    return {path: {old: min(new) for old, new in of.items() if len(new) == 1} for path, of in found.items()}


def update_attributes(model: nn.Module, changed: Mapping[str, Widths], *, named: tuple[str, ...] = ()) -> bool:
    """Set those attributes (with `named`: only names that contain one of the words); whether there was any."""
    updates: dict[nn.Module, dict[str, int]] = {}
    for module, name, value in width_attributes(model, changed):
        if not named or any(word in name.lower() for word in named):
            updates.setdefault(module, {})[name] = value
    for module, values in updates.items():
        UpdatedWidths(values).attach(module)
    return bool(updates)
