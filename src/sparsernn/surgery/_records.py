"""What a file says of each module: the name of its class in a table, and the sizes that surgery may have changed.

Layers of this package answer for themselves (`nn.protocol`), torch's modules stand in `torch_modules`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nn.protocol import LAYERS, Layer, Misfit, check_size, layer_class
from ._container import Fault, short
from .narrow import carry_over
from .torch_modules import TABLE, Shapes, check_sizes, sizes_of, tag_of

_WIDTHS = ("hidden_size", "proj_size")


def describe(module: nn.Module) -> dict[str, Any] | None:
    """The record of `module` in a file, or None for a class that is in no table."""
    kind = layer_class(module)
    if isinstance(module, Layer) and kind is not None:
        # Surgery may leave the width before it on the module, for code that reads hidden_size.
        widths = {name: vars(module)[name] for name in _WIDTHS if type(vars(module).get(name)) is int}
        return {"class": kind.__name__} | module.config() | widths
    tag = tag_of(module)
    return None if tag is None else {"class": tag} | sizes_of(module)


def from_record(field: str, record: dict[str, Any], module: nn.Module) -> tuple[Layer | None, Shapes]:
    """The layer that stands in the file where the model has `module`, None for one of torch's, and the shapes of its
    parameters and buffers. It is on the meta device: no memory is taken for it. Raises Fault."""
    tag = record.get("class")
    known = isinstance(tag, str) and (tag in LAYERS or tag in TABLE)
    if not known:
        raise Fault(
            f"{field}.class",
            f"got {short(tag)}, expected one of the layers of torch.nn or sparsernn.nn that this version knows.",
        )
    try:
        if tag in TABLE:
            return None, check_sizes(str(tag), record, module)
        layer = LAYERS[str(tag)].from_config(record, module)
        widths = {name: _width(name, record, module) for name in _WIDTHS if name in record}
    except Misfit as error:
        raise Fault(f"{field}.{error.field}" if error.field else field, error.text) from None
    carry_over(module, layer)
    for name in _WIDTHS:
        layer.__dict__.pop(name, None)
    layer.__dict__ |= widths
    own = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
    return layer, {name: tuple(tensor.shape) for name, tensor in own}


def _width(name: str, record: dict[str, Any], module: nn.Module) -> int:
    most = max((n for row in getattr(module, name + "s", None) or () for n in row), default=0)
    return check_size(name, record[name], vars(module).get(name, most))
