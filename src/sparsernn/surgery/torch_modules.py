"""torch's own modules that surgery narrows and files record, in one table; those of this package answer for themselves.

A file names an entry of this table and never a class. Every size is checked against the dense module that the caller
built, which surgery only ever makes narrower, before anything of that size is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ..nn.packing import packing_of
from ..nn.protocol import Misfit, check_size
from ..nn.ragged import fitted

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Axes:
    """Axes of a weight that stand for channels: number of the argument -> (axis of the weight, dimension of the
    activation), and the same for the result."""

    inputs: Mapping[int, tuple[int, int]]
    output: tuple[int, int]


@dataclass(frozen=True)
class TorchModule:
    """`sizes`: the attributes that hold its widths; `read`: what these are, from its tensors (None: unknown there);
    `shapes`: of its parameters and buffers, from the module with these attributes; `axes`: for adapters."""

    kind: type[nn.Module]
    sizes: tuple[str, ...]
    read: Callable[[Any], tuple[int, ...] | None]
    shapes: Callable[[Any], Shapes]
    axes: Callable[[Any], Axes] | None = None


def _recurrent(kind: type[nn.Module], *more: str) -> TorchModule:
    def shapes(module: Any) -> Shapes:
        found = packing_of(module)
        assert found is not None
        return dict(found.shapes)

    return TorchModule(kind, ("input_size", "hidden_size", *more), _cell_sizes, shapes)


def _cell_sizes(cell: Any) -> tuple[int, ...]:
    return cell.weight_ih.shape[1], cell.weight_hh.shape[1]


def _rows(*sizes: str) -> Callable[[Any], Shapes]:
    """Shapes of a weight whose axes are these sizes, and of a bias as long as its first one."""

    def shapes(module: Any) -> Shapes:
        first, *rest = (getattr(module, name) for name in sizes)
        return {"weight": (first, *rest), "bias": (first,)}

    return shapes


def _vectors(size: str) -> Callable[[Any], Shapes]:
    names = ("weight", "bias", "running_mean", "running_var")
    return lambda module: dict.fromkeys(names, (getattr(module, size),))


def _groups_shapes(module: Any) -> Shapes:
    if module.num_channels % module.num_groups:
        text = f"{module.num_channels} channels can't be shared out among {module.num_groups} groups."
        raise Misfit("GroupNorm", text)
    return _vectors("num_channels")(module)


def _read_groups(module: Any) -> tuple[int, ...] | None:
    # A group for each channel, or nothing was cut.
    return (len(module.weight),) * 2 if len(module.weight) < module.num_channels else None


def _conv_shapes(module: Any) -> Shapes:
    inner, outer, groups = module.in_channels, module.out_channels, module.groups
    if inner % groups or outer % groups:
        raise Misfit("Conv", f"{inner} and {outer} channels can't be shared out among {groups} groups.")
    first, second = (inner, outer) if module.transposed else (outer, inner)
    return {"weight": (first, second // groups, *module.kernel_size), "bias": (outer,)}


def _read_conv(module: Any) -> tuple[int, ...]:
    first, second = module.weight.shape[:2]
    if module.groups > 1:  # depthwise
        return first, second if module.transposed else first, first
    return (first, second, 1) if module.transposed else (second, first, 1)


def _conv_axes(module: Any) -> Axes:
    spatial = -(module.weight.dim() - 1)
    inner, outer = (0, 1) if isinstance(module, _ConvTransposeNd) else (1, 0)
    return Axes({0: (inner, spatial)}, (outer, spatial))


def _read_norm(module: Any) -> tuple[int, ...] | None:
    # Without weights only the statistics tell how wide it has become.
    known = module.weight if module.running_mean is None else module.running_mean
    return None if known is None else (len(known),)


def _shape(module: Any) -> tuple[int, ...]:
    return tuple(module.weight.shape)


_EMBEDDING = ("num_embeddings", "embedding_dim")
TABLE: dict[str, TorchModule] = {
    "LSTM": _recurrent(nn.LSTM, "proj_size"),
    "GRU": _recurrent(nn.GRU),
    "RNN": _recurrent(nn.RNN),
    "LSTMCell": _recurrent(nn.LSTMCell),
    "GRUCell": _recurrent(nn.GRUCell),
    "RNNCell": _recurrent(nn.RNNCell),
    "Linear": TorchModule(
        nn.Linear,
        ("in_features", "out_features"),
        lambda m: _shape(m)[::-1],
        _rows("out_features", "in_features"),
        lambda m: Axes({0: (1, -1)}, (0, -1)),
    ),
    "Bilinear": TorchModule(
        nn.Bilinear,
        ("in1_features", "in2_features", "out_features"),
        lambda m: (*_shape(m)[1:], len(m.weight)),
        _rows("out_features", "in1_features", "in2_features"),
        lambda m: Axes({0: (1, -1), 1: (2, -1)}, (0, -1)),
    ),
    "Embedding": TorchModule(nn.Embedding, _EMBEDDING, _shape, _rows(*_EMBEDDING), lambda m: Axes({}, (1, -1))),
    "EmbeddingBag": TorchModule(nn.EmbeddingBag, _EMBEDDING, _shape, _rows(*_EMBEDDING)),
    "BatchNorm": TorchModule(
        _BatchNorm, ("num_features",), _read_norm, _vectors("num_features"), lambda m: Axes({0: (0, 1)}, (0, 1))
    ),
    "InstanceNorm": TorchModule(_InstanceNorm, ("num_features",), _read_norm, _vectors("num_features")),
    "GroupNorm": TorchModule(nn.GroupNorm, ("num_channels", "num_groups"), _read_groups, _groups_shapes),
    "Conv": TorchModule(_ConvNd, ("in_channels", "out_channels", "groups"), _read_conv, _conv_shapes, _conv_axes),
    "PReLU": TorchModule(
        nn.PReLU, ("num_parameters",), _shape, _rows("num_parameters"), lambda m: Axes({0: (0, 1)}, (0, 1))
    ),
}
UNSAID = ("InstanceNorm", "GroupNorm")  # that files of earlier versions do not speak of: they were never cut then


def tag_of(module: nn.Module) -> str | None:
    """The entry of the table for `module`, None for any other module."""
    return next((tag for tag, entry in TABLE.items() if isinstance(module, entry.kind)), None)


def is_leaf(module: nn.Module) -> bool:
    """Whether adapters can give the module the dense width, or an embedding bag."""
    tag = tag_of(module)
    return tag == "EmbeddingBag" or (tag is not None and TABLE[tag].axes is not None)


def leaf_axes(module: nn.Module) -> Axes | None:
    """The axes of a module that adapters can give the dense width; None for any other."""
    tag = tag_of(module)
    axes = None if tag is None else TABLE[tag].axes
    return None if axes is None or not isinstance(getattr(module, "weight", None), Tensor) else axes(module)


def fit(module: nn.Module) -> nn.Module:
    """The module, its sizes in line with its tensors; a stack of unequal widths is another, ragged one."""
    if isinstance(module, nn.RNNBase):
        return fitted(module)
    tag = tag_of(module)
    if tag is not None and (getattr(module, "weight", module) is not None or isinstance(module, _NormBase)):
        found = TABLE[tag].read(module)
        for name, size in zip(TABLE[tag].sizes, found or ()):
            setattr(module, name, size)
    return module


def sizes_of(module: Any) -> dict[str, int]:
    """Name and value of its widths, for its record in a file."""
    entry = TABLE[str(tag_of(module))]
    known = _read_norm(module) if isinstance(module, _NormBase) and module.running_mean is not None else None
    return {name: getattr(module, name) for name in entry.sizes} if known is None else {entry.sizes[0]: known[0]}


def check_sizes(tag: str, record: Mapping[str, Any], module: nn.Module) -> Shapes:
    """Shapes of the parameters and buffers of `module` at the recorded sizes. Raises Misfit."""
    entry = TABLE[tag]
    if not isinstance(module, entry.kind):
        raise Misfit("class", f"{tag}, but the model has a {type(module).__name__} there.")
    sizes = {name: check_size(name, record.get(name), getattr(module, name)) for name in entry.sizes}
    small = type(module).__new__(type(module))
    small.__dict__.update(vars(module) | sizes)
    return entry.shapes(small)
