"""A linear layer whose weight is a product of two thinner ones, and the product with such a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .protocol import Kept, Layer, Misfit, check_size, register_layer

Factors = tuple[Tensor, Tensor]  # (rows, r), (r, columns)


def product(x: Tensor, weight: Tensor | Factors, bias: Tensor | None) -> Tensor:
    """x (..., columns) times a matrix, or one factor after the other, plus the bias."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    return F.linear(F.linear(x, weight[1]), weight[0], bias)


@register_layer
class FactorisedLinear(Layer):
    """torch.nn.Linear, its weight `weight_out` (out, rank) x `weight_in` (rank, in); ValueError for too high a rank."""

    linear = ("weight_out", "weight_in")
    in_features: int
    out_features: int
    rank: int
    weight_out: nn.Parameter
    weight_in: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= rank <= min(in_features, out_features):
            most = min(in_features, out_features)
            raise ValueError(f"rank is {rank!r}; expected a whole number from 1 to {most}, the smaller of both sizes.")
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.register_parameter("bias", None)
        for name, shape in (self.shapes() | ({"bias": (out_features,)} if bias else {})).items():
            bound = (in_features if name == "weight_in" else rank if name == "weight_out" else in_features) ** -0.5
            value = torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound)
            self.register_parameter(name, nn.Parameter(value))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of its parameters at the present sizes."""
        found: dict[str, tuple[int, ...]] = {
            "weight_out": (self.out_features, self.rank),
            "weight_in": (self.rank, self.in_features),
        }
        return found | ({} if self._parameters["bias"] is None else {"bias": (self.out_features,)})

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return product(input, (self.weight_out, self.weight_in), self.bias)

    @classmethod
    def from_dense(cls, layer: nn.Linear, factors: Factors) -> Self:
        """`layer` with these factors in the place of its weight, and the very bias."""
        new = cls(layer.in_features, layer.out_features, factors[1].shape[0], layer.bias is not None, "meta")
        for name, value in zip(cls.linear, factors):
            new._parameters[name] = nn.Parameter(value.to(layer.weight).contiguous(), layer.weight.requires_grad)
        new._parameters["bias"] = layer.bias
        return new.train(layer.training)

    def narrowed(self, kept: Kept) -> nn.Module:
        """This layer in the sizes of its factors; torch's, where their rank is no longer the smaller."""
        self.out_features, self.rank = self.weight_out.shape
        self.in_features = self.weight_in.shape[1]
        return self if self.rank <= min(self.out_features, self.in_features) else self.to_dense()

    def config(self) -> dict[str, Any]:
        """Both sizes and the rank."""
        return {name: getattr(self, name) for name in ("in_features", "out_features", "rank")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Layer:
        """A layer of these sizes for the place of `dense`; Misfit for sizes that do not fit."""
        if not isinstance(dense, nn.Linear | cls):
            raise Misfit("class", f"{cls.__name__}, but the model has a {type(dense).__name__} there.")
        sizes = [check_size(n, config.get(n), getattr(dense, n)) for n in ("in_features", "out_features")]
        rank = check_size("rank", config.get("rank"), min(sizes))
        weight = next(dense.parameters())
        return cls(sizes[0], sizes[1], rank, dense.bias is not None, "meta", weight.dtype)

    def to_dense(self) -> nn.Module:
        """torch's layer, the weight multiplied out."""
        weight, bias = self.weight_out @ self.weight_in, self.bias
        dense = nn.Linear(self.in_features, self.out_features, bias is not None, weight.device, weight.dtype)
        with torch.no_grad():
            dense.weight.copy_(weight)
            if bias is not None:
                dense.bias.copy_(bias)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        """Sizes, rank, and whether there is a bias."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"
