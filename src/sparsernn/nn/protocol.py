"""What a layer of this package offers. Surgery, files and the runtime ask for it and know no class by name.

A new layer is a subclass of `Layer` (stacks of recurrent layers: of `layers.LayeredRecurrent`, which has most of it)
under `@register_layer`. Sizes follow from its tensors, which surgery cuts before it calls `narrowed`; a file holds
`config()` and the tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from ..tensors import short


@dataclass(frozen=True)
class Kept:
    """What surgery leaves of a layer, as bool tensors; what is not named stays.

    units: name of the unit set below the layer ("l0_reverse", "l0.projected", "components.0.1.l0") -> (units,).
    columns: parameter -> (its columns,).
    """

    units: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]


@dataclass(frozen=True)
class Sides:
    """What surgery leaves of a layer as seen from outside, as bool tensors.

    inputs: (input size,). states: for h, or h and c, the units of each layer and direction. output: (output size,).
    """

    inputs: Tensor
    states: tuple[tuple[Tensor, ...], ...]
    output: Tensor


@dataclass(frozen=True)
class Direction:
    """One layer and direction by names of parameters.

    `hh` and `bias` have one for each depth of a time step; `bias_hh` is added to the product with the state of the
    first, where there is such a bias; `hr` is the projection.
    """

    layer: int
    reverse: bool
    ih: str
    hh: tuple[str, ...]
    bias: tuple[str | None, ...]
    bias_hh: str | None = None
    hr: str | None = None


@dataclass(frozen=True)
class Packing:
    """What compiled kernels need of a layer.

    `mode`: their cell ("LSTM", "RNN_RELU", "RHN", ...); `shapes` of all parameters that are read; `whole`: each layer
    reads the one before, so that one call runs all; else the layer's own forward runs one after the other. `factors`:
    a matrix that directions name and that is there as two, (rows, r) and (r, columns) -> the names of these.
    """

    mode: str
    shapes: Mapping[str, tuple[int, ...]]
    directions: tuple[Direction, ...]
    whole: bool = True
    factors: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Misfit(ValueError):
    """A recorded size that does not fit the layer that the caller built. `field`: of the record."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field, self.text = field, text


class Layer(nn.Module):
    """Base of the layers of this package: what it offers besides its forward.

    linear: of a layer that is called like torch.nn.Linear, of the same attributes, the names of the two factors that
    its weight is there as, (out_features, r) and (r, in_features); else nothing.
    """

    linear: ClassVar[tuple[str, ...]] = ()

    def narrowed(self, kept: Kept) -> nn.Module:
        """This layer, its sizes in line with its tensors, which have been cut.

        Or another one of the very same parameters that takes its place. Raises ValueError where there is no such layer.
        """
        return self

    def sides(self, kept: Kept) -> Sides | None:
        """What is left of it as seen from outside, asked before anything is cut.

        None: what its weights by layer and direction say.
        """
        return None

    def config(self) -> dict[str, Any]:
        """The sizes that surgery may have changed, as JSON has them."""
        raise NotImplementedError(f"{type(self).__name__} can't be saved: its class has no config() of its own.")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Layer:
        """A layer of these sizes for the place of `dense`, which the caller built; its tensors are on the meta device.

        Misfit for a size that `dense` does not have. Parts that are modules are those of `dense`.
        """
        raise NotImplementedError(f"{cls.__name__} can't be loaded: it has no from_config() of its own.")

    def check_tensors(self) -> None:
        """Called once all tensors are in place; ValueError where they contradict each other."""

    def to_dense(self) -> nn.Module:
        """The same function with plain rows of weights, as torch.nn has them; the layer itself where it is so."""
        return self

    def packing(self) -> Packing | None:
        """What kernels need; None where they can't run it, or only what `to_dense` gives."""
        return None

    @classmethod
    def _own(cls, module: nn.Module) -> Self:
        """`module`, if it is of this class."""
        if not isinstance(module, cls):
            raise Misfit("class", f"{cls.__name__}, but the model has a {type(module).__name__} there.")
        return module

    def _copied(self) -> Self:
        """Another module of the same attributes, parts and tensors."""
        new = copy.copy(self)
        new._parameters, new._buffers = dict(self._parameters), dict(self._buffers)
        return new

    def _empty(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Its own tensors get these shapes, on the meta device."""
        for name, old in self._parameters.items():
            if old is not None:
                new = torch.empty(shapes[name], dtype=old.dtype, device="meta")
                self._parameters[name] = nn.Parameter(new, old.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = torch.empty(shapes[name], dtype=buffer.dtype, device="meta")
        return self


Kind = TypeVar("Kind", bound=type[Layer])
LAYERS: dict[str, type[Layer]] = {}  # by the name that files know them by


def register_layer(kind: Kind) -> Kind:
    """Make a layer known by its name to files; subclasses without a name of their own count as it."""
    LAYERS[kind.__name__] = kind
    return kind


def layer_class(module: nn.Module) -> type[Layer] | None:
    """The registered class that `module` is of, the nearest one."""
    return next((base for base in type(module).__mro__ if LAYERS.get(base.__name__) is base), None)


def check_size(field: str, size: object, dense: int) -> int:
    """`size`, if it is a whole number from 1 to the dense module's (0 stays 0)."""
    if type(size) is not int or not min(1, dense) <= size <= dense:
        raise Misfit(field, f"got {short(size)}, expected a whole number from {min(1, dense)} to {dense}.")
    return size


def check_table(field: str, value: object, layers: int, directions: int) -> list[list[Any]]:
    """`value`, if it has one list for each layer with one entry for each direction."""
    rows = value if isinstance(value, list | tuple) else ()
    if [len(row) if isinstance(row, list | tuple) else -1 for row in rows] != [directions] * layers:
        raise Misfit(field, f"got {short(value)}, expected {layers} lists of {directions}.")
    return [list(row) for row in rows]


def fitting_widths(field: str, value: object, dense: Any) -> list[list[int]]:
    """`value`, if it has a width from 1 to that of `dense` (widths by layer and direction) for each of them."""
    rows = check_table(field, value, len(dense), len(dense[0]))
    for layer, row in enumerate(rows):
        for direction, size in enumerate(row):
            check_size(f"{field}[{layer}][{direction}]", size, dense[layer][direction])
    return rows
