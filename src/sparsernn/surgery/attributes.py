"""The user's own integer attributes that hold a width (`self.hidden_size = 128`), brought up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        if not all(isinstance(k, str) and type(v) is int and v > 0 for k, v in data["values"].items()):
            raise ValueError("updated widths: names with positive whole numbers are expected.")
        return cls(data["values"])

    def attach(self, module: nn.Module) -> None:
        for name, value in self.values.items():
            if type(getattr(module, name, None)) is not int:
                raise ValueError(f"updated widths: {type(module).__name__} has no whole number {name}.")
            setattr(module, name, value)
        for old in attachments(module):
            if isinstance(old, UpdatedWidths):
                old.values.update(self.values)
                return
        remember(module, self)


def width_attributes(model: nn.Module, changed: Mapping[int, int]) -> Iterator[tuple[nn.Module, str, int]]:
    """(module, attribute, new value) of integers in the user's own modules that equal a width that changed."""
    for module in model.modules():
        if type(module).__module__.startswith(("torch.", "sparsernn.nn")):
            continue
        for name, value in vars(module).items():
            if type(value) is int and value in changed and not name.startswith("_"):
                yield module, name, changed[value]


def changed_widths(layers: tuple[RecurrentLayer, ...], dead: Mapping[str, Tensor]) -> dict[int, int]:
    """Old width -> new width, for every unit set (and both directions of a layer together) where it is unambiguous."""
    found: dict[int, set[int]] = {}
    for mask in dead.values():
        found.setdefault(len(mask), set()).add(int((~mask).sum()))
    for layer in layers:
        if layer.reverse:
            name = layer.unit_sets[-1]
            pair = [dead[n] for n in (name.replace("_reverse", ""), name) if n in dead]
            if len(pair) == 2:
                found.setdefault(sum(map(len, pair)), set()).add(sum(int((~m).sum()) for m in pair))
    return {old: new.pop() for old, new in found.items() if len(new) == 1 and new != {old}}


def update_attributes(model: nn.Module, changed: Mapping[int, int], *, named: tuple[str, ...] = ()) -> bool:
    """Set those attributes (with `named`: only names that contain one of the words); whether there was any."""
    updates: dict[nn.Module, dict[str, int]] = {}
    for module, name, value in width_attributes(model, changed):
        if not named or any(word in name.lower() for word in named):
            updates.setdefault(module, {})[name] = value
    for module, values in updates.items():
        UpdatedWidths(values).attach(module)
    return bool(updates)
