"""A branch that the examples did not take fails with a sentence, not with a size mismatch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..structure.structure import Structure
from .attachments import attachments, register_attachment, remember


@register_attachment
class Unreached:
    """Pre-hook of a module that no example reached: raises RuntimeError if its input is not of its own width.

    Width 0: it raises for every input, which has zeros where units were cut (see `adapters`).
    """

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
        if not isinstance(small, _READERS) or self.width not in (0, width):
            raise ValueError(f"unreached: the width is {self.width}, but the module takes {width}.")

    def attach(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self)
        remember(module, self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.is_floating_point() and first.dim() and first.shape[-1] != self.width:
            got = f"got width {first.shape[-1]}, expected {self.width}" if self.width else "reads units that were cut"
            raise RuntimeError(
                f"{self.path} {got}: no example reached this branch when the model was compacted.\n"
                "Compact again with a list of examples that covers it."
            )


def guard_unreached(
    model: nn.Module, names: Mapping[int, str], structure: Structure, zeros: Collection[int] = ()
) -> None:
    """Guard the modules whose input may have changed behind their back.

    `zeros`: dense widths that adapters hand out, with zeros for units that such a module may still read.
    """
    used = {name for name, _ in structure.classes.planes}
    for path, module in model.named_modules():
        weight = module._parameters.get("weight", module._parameters.get("weight_ih_l0"))
        weight = module._parameters.get("weight_ih") if weight is None else weight
        if not isinstance(module, _READERS) or weight is None or weight.dim() < 2 or attachments(module):
            continue
        if names.get(id(weight)) in structure.unused and names.get(id(weight)) not in used:
            width = getattr(module, "in_channels", weight.shape[1])
            if width in zeros:
                Unreached(path, 0).attach(module)
            elif isinstance(module, (nn.Linear, nn.RNNBase)):
                Unreached(path, width).attach(module)


# Modules that read an activation through a weight; all but two know themselves when its width is wrong.
_READERS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.modules.conv._ConvNd)
