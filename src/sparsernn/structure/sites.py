"""Sites: the matrices that read units, each with the second moments of what it really multiplies.

A trace knows which columns of which parameter read a unit; here the model runs over many inputs under a function mode,
which sees the operand of each product with such a parameter: the input of a linear layer or convolution, and inside
torch's fused recurrent calls the input and the state before each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from .frames import operation_name, source_line
from .operands import CELLS, LAYERS, patches, steps_of_cell, steps_of_layer

CHUNK, BLOCK = 1024, 512  # positions that are summed in the inputs' own precision; inputs on a side of a block


@dataclass
class Moments:
    """Sum over `count` positions of [x; 1][x; 1]^T, float64, for inputs x of `size` numbers.

    Inputs of float32 are multiplied as such, a thousand positions at a time.
    """

    size: int
    count: int = 0
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.total = torch.zeros(self.size + 1, self.size + 1, dtype=torch.float64)

    def add(self, x_NI: Tensor) -> None:
        """Take in positions, (positions, size)."""
        x_NI = x_NI.detach().cpu()
        x_NI = x_NI if x_NI.dtype in (torch.float32, torch.float64) else x_NI.float()
        for part in x_NI.split(CHUNK):
            for begin in range(0, self.size, BLOCK):  # the matrix is symmetric: what lies below is what lies above
                end = min(begin + BLOCK, self.size)
                product = part[:, begin:end].T @ part[:, begin:]
                self.total[begin:end, begin:-1] += product
                self.total[end:-1, begin:end] += product[:, end - begin :].T
        sums = x_NI.sum(0, dtype=torch.float64)
        self.total[-1, :-1] += sums
        self.total[:-1, -1] += sums
        self.total[-1, -1] += len(x_NI)
        self.count += len(x_NI)


@dataclass
class Site:
    """One reading matrix: `parameter` along `axis`, seen as rows x inputs; its bias, where it has one of its own.

    Index i of the axis has the inputs `taps` * i to `taps` * (i + 1) - 1 (`taps`: of a convolution, else 1).
    """

    parameter: str
    axis: int
    bias: str | None
    moments: Moments
    taps: int = 1

    def rows(self, weight: Tensor) -> Tensor:
        """The matrix (rows, inputs) in float64, of the parameter's value."""
        return self._seen(weight).flatten(0, -2).to("cpu", torch.float64)

    def put(self, weight: Tensor, rows_RI: Tensor) -> None:
        """Write the matrix back into the parameter."""
        seen = self._seen(weight)
        value = rows_RI.view(seen.shape).to(seen)
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"The solution for {self.parameter} is too large for {weight.dtype}: take the model in float32 "
                "(model.float()), or a larger ridge."
            )
        seen.copy_(value)

    def _seen(self, weight: Tensor) -> Tensor:
        """The parameter with its inputs last: a view."""
        value = weight.detach()
        return value.flatten(self.axis) if self.taps > 1 else value.movedim(self.axis, -1)


class SiteRecorder(TorchFunctionMode):
    """A context manager round forward passes of `model`; `sites` by (parameter, axis), `others` what can't be one.

    `wanted`: the planes of a trace whose operands are of interest. A matrix that is multiplied along both of its axes
    is none: a solution for one product would be wrong in the other. A bias that anything else uses belongs to no site.
    """

    def __init__(self, model: nn.Module, wanted: frozenset[tuple[str, int]]) -> None:
        super().__init__()
        named: dict[int, list[str]] = {}
        for name, p in model.named_parameters(remove_duplicate=False):
            named.setdefault(id(p), []).append(name)
        self._names = {key: names[0] for key, names in named.items()}
        self._wanted = wanted
        self._turned: dict[int, tuple[Tensor, str]] = {}  # transposed views of parameters
        self.sites: dict[tuple[str, int], Site] = {}
        self.others: dict[str, str] = {}  # parameter -> the operation and line that use it in another way
        self.used: set[str] = set()  # every parameter that an operation was given
        self._axes: dict[str, int] = {}  # parameter -> the axis along which it is multiplied
        self._owners: dict[str, str | None] = {}  # bias -> the one parameter whose product it is added to, None: no one

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = operation_name(func)
        used = {n for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor) and (n := self._name(leaf))}
        if not used or name in _READS_NOTHING:
            return result
        self.used |= used
        if name in _TURNS and isinstance(args[0], Tensor) and args[0].dim() == 2:
            self._turned[id(result)] = (result, next(iter(used)))
            return result
        handled = self._products(name, args, kwargs, result)
        for parameter in used - handled:
            self.others.setdefault(parameter, f"{name} at {source_line()}")
            self._shared(parameter)
        return result

    def _shared(self, bias: str) -> None:
        """It can't take anything over for one of its uses."""
        self._owners[bias] = None
        for site in self.sites.values():
            if site.bias == bias:
                site.bias = None

    def _name(self, tensor: Tensor) -> str | None:
        turned = self._turned.get(id(tensor))
        return self._names.get(id(tensor)) or (turned[1] if turned is not None and turned[0] is tensor else None)

    def _products(self, name: str, args: Any, kwargs: Mapping[str, Any], result: Any) -> set[str]:
        """Take in the operands of this call; the parameters that it uses as sites and their biases."""
        if name in LAYERS:
            return self._several(steps_of_layer(name, args, result[0]))
        if name in CELLS:
            return self._several(steps_of_cell(args))

        def get(place: int, key: str) -> Any:
            return args[place] if len(args) > place else kwargs.get(key)

        if name == "linear":
            x, weight, bias = get(0, "input"), get(1, "weight"), get(2, "bias")
            return self._one(x.reshape(-1, x.shape[-1]), weight, 1, bias)
        if name in ("matmul", "__matmul__", "mm"):
            x, weight = get(0, "input"), get(1, "mat2" if name == "mm" else "other")
            if isinstance(weight, Tensor) and weight.dim() == 2 and self._name(weight):
                return self._one(x.reshape(-1, x.shape[-1]), weight, 0, None)
        if name == "addmm" and self._name(get(2, "mat2")) and not set(kwargs) - {"input", "mat1", "mat2"}:
            return self._one(get(1, "mat1"), get(2, "mat2"), 0, get(0, "input"))
        if name in ("conv1d", "conv2d"):
            found = patches(args, kwargs)
            if found is not None:
                weight, bias = get(1, "weight"), get(2, "bias")
                return self._one(found, weight, 1, bias, taps=weight[0, 0].numel())
        if name in ("conv_transpose1d", "conv_transpose2d") and get(6, "groups") in (None, 1):
            x, weight = get(0, "input"), get(1, "weight")
            channel = x.dim() - (weight.dim() - 2) - 1
            bias = self._name(get(2, "bias")) if isinstance(get(2, "bias"), Tensor) else None
            done = self._one(x.movedim(channel, -1).reshape(-1, x.shape[channel]), weight, 0, None)
            if bias:
                self._shared(bias)
            return done | {bias} if bias else done
        return set()

    def _several(self, steps: Any) -> set[str]:
        done: set[str] = set()
        for x_NI, weight, bias in steps:
            done |= self._one(x_NI, weight, 1, bias)
        return done

    def _one(self, x_NI: Tensor, weight: Tensor, axis: int, bias: Any, taps: int = 1) -> set[str]:
        parameter = self._name(weight)
        if parameter is None:
            return set()
        if id(weight) in self._turned:
            axis = 1 - axis
        done = {parameter}
        own = self._names.get(id(bias)) if isinstance(bias, nn.Parameter) else None
        if own is not None:
            done.add(own)
            if self._owners.setdefault(own, parameter) != parameter:
                self._shared(own)
            own = own if self._owners[own] else None
        if self._axes.setdefault(parameter, axis) != axis:
            self.others.setdefault(parameter, f"products along both of its axes, one at {source_line()}")
        if (parameter, axis) in self._wanted:
            site = self.sites.get((parameter, axis))
            if site is None:
                moments = Moments(x_NI.shape[-1])
                site = self.sites[parameter, axis] = Site(parameter, axis, own, moments, taps)
            if site.bias != own or site.taps != taps or site.moments.size != x_NI.shape[-1]:
                self.others.setdefault(parameter, f"several products of different kinds, one at {source_line()}")
                return done
            site.moments.add(x_NI)
        return done


_TURNS = ("t", "T.get", "mT.get", "transpose", "swapaxes")
_READS_NOTHING = {
    "__get__", "shape.get", "dtype.get", "device.get", "size", "dim", "numel", "is_floating_point", "is_complex",
    "requires_grad.get", "grad.get", "is_cuda.get", "ndim.get", "layout.get", "data_ptr", "stride", "is_contiguous",
    "is_sparse.get", "is_quantized.get", "is_meta.get", "names.get", "is_nested.get", "__len__",
}  # fmt: skip
