"""A branch that the examples did not take fails with a sentence, not with a size mismatch."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..structure.structure import Structure
from .attachments import attachments, register_attachment, remember


@register_attachment
class Unreached:
    """Pre-hook of a module that no example reached: raises RuntimeError if its input is not of its own width."""

    tag: ClassVar[str] = "unreached"

    def __init__(self, path: str, width: int) -> None:
        self.path, self.width = path, width

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "width": self.width}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        if not isinstance(data["path"], str) or type(data["width"]) is not int:
            raise ValueError("unreached: a path and a width are expected.")
        return cls(data["path"], data["width"])

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None:
        width = small.in_features if isinstance(small, nn.Linear) else getattr(small, "input_size", None)
        if self.width != width:
            raise ValueError(f"unreached: the width is {self.width}, but the module takes {width}.")

    def attach(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self)
        remember(module, self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.is_floating_point() and first.dim() and first.shape[-1] != self.width:
            raise RuntimeError(
                f"{self.path} got width {first.shape[-1]}, expected {self.width}: no example reached this branch when "
                "the model was compacted.\nCompact again with a list of examples that covers it."
            )


def guard_unreached(model: nn.Module, names: Mapping[int, str], structure: Structure) -> None:
    """Guard the modules whose input width may have changed behind their back."""
    used = {name for name, _ in structure.classes.planes}
    for path, module in model.named_modules():
        weight = module._parameters.get("weight", module._parameters.get("weight_ih_l0"))
        if not isinstance(module, (nn.Linear, nn.RNNBase)) or weight is None or attachments(module):
            continue
        if names.get(id(weight)) in structure.unused and names.get(id(weight)) not in used:
            Unreached(path, weight.shape[1]).attach(module)
