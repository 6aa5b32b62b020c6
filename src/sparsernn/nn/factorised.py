"""LSTM, GRU and RNN stacks and linear layers whose matrices are products of two thinner ones.

A matrix `weight_ih_l0` (rows, columns) of rank r is there as `weight_ih_out_l0` (rows, r) and `weight_ih_in_l0` (r,
columns); its product with an input is two products of r (rows + columns) weights. Where the rank is 0 the matrix is
there whole, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structure.cells import MODES
from .layers import LayeredRecurrent, States, TanhOrRelu
from .packing import options_of, widths_of
from .protocol import Kept, Layer, Misfit, check_size, check_table, register_layer
from .ragged import RAGGED
from .time_loop import flattened, run_cell

MATRICES = ("weight_ih", "weight_hh")
Factors = tuple[Tensor, Tensor]  # (rows, r), (r, columns)


def halves(name: str) -> tuple[str, str]:
    """Names of the two factors of the matrix `name` ("weight_ih_l0_reverse")."""
    kind, end = name[: name.rindex("_l")], name[name.rindex("_l") :]
    return f"{kind}_out{end}", f"{kind}_in{end}"


def _product(x: Tensor, weight: Tensor | Factors, bias: Tensor | None) -> Tensor:
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    return F.linear(F.linear(x, weight[1]), weight[0], bias)


class _Factorised(LayeredRecurrent):
    like_torch = True

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int | Sequence[int]],
        ranks: Sequence[Sequence[Sequence[int]]],
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_sizes, **options)
        self.ranks = tuple(tuple(tuple(pair) for pair in row) for row in ranks)
        sizes = [len(row) for row in self.hidden_sizes]
        if [len(row) for row in self.ranks] != sizes:
            raise ValueError(f"ranks has entries for {[len(row) for row in self.ranks]} directions, expected {sizes}.")
        whole = super().shapes()
        for row, ends in zip(self.ranks, self.suffixes()):
            for pair, end in zip(row, ends):
                most = [min(whole[name + end]) for name in MATRICES]
                if len(pair) != 2 or not all(type(r) is int and 0 <= r <= m for r, m in zip(pair, most)):
                    raise ValueError(
                        f"ranks of {end[1:]} are {list(pair)}; expected two whole numbers, of weight_ih and weight_hh, "
                        f"from 0 (whole) to {most}."
                    )
        self._register(device, dtype)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        rank = {
            name + end: r
            for row, ends in zip(self.ranks, self.suffixes())
            for pair, end in zip(row, ends)
            for name, r in zip(MATRICES, pair)
        }
        found: dict[str, tuple[int, ...]] = {}
        for name, shape in super().shapes().items():
            if r := rank.get(name, 0):
                found |= dict(zip(halves(name), ((shape[0], r), (r, shape[1]))))
            else:
                found[name] = shape
        return found

    def packing(self) -> None:
        """None: kernels take what `to_dense` gives."""

    def config(self) -> dict[str, Any]:
        return super().config() | {"ranks": self.ranks}

    @classmethod
    def counts(cls, config: Mapping[str, Any], source: Any) -> dict[str, Any]:
        ranks = check_table("ranks", config.get("ranks"), source.num_layers, 1 + source.bidirectional)
        if not all(isinstance(pair, list | tuple) for row in ranks for pair in row):
            raise Misfit("ranks", "expected a list of two ranks for each layer and direction.")
        return {"ranks": ranks}

    def matrix(self, name: str) -> Tensor | Factors:
        """A matrix, or its two factors."""
        whole = self._parameters.get(name)
        if whole is not None:
            return whole
        out, inner = halves(name)
        return getattr(self, out), getattr(self, inner)

    def _run_direction(self, end: str, x: Tensor, batch_sizes: Tensor | None, states: States) -> tuple[Tensor, States]:
        others = [self._parameters.get(name + end) for name in ("bias_ih", "bias_hh")]
        others += [getattr(self, "weight_hr" + end)] if self.proj_sizes is not None else []
        weights = [*(self.matrix(name + end) for name in MATRICES), *others]
        run = partial(run_cell, MODES[self.mode], weights, states=states, product=_product)
        return flattened(run, x, batch_sizes, len(states[0]), self.batch_first)

    def narrowed(self, kept: Kept) -> nn.Module:
        hidden, ranks, projected = [], [], []
        for name in [name + end for row in self.suffixes() for end in row for name in MATRICES]:
            self._whole_if_smaller(name)
        for row in self.suffixes():
            own = [[self.matrix(name + end) for name in MATRICES] for end in row]
            ranks.append(tuple(tuple(0 if isinstance(m, Tensor) else m[1].shape[0] for m in pair) for pair in own))
            rows = [pair[1] if isinstance(pair[1], Tensor) else pair[1][0] for pair in own]
            hidden.append(tuple(len(each) // self.gates for each in rows))
            projected.append(tuple(len(getattr(self, "weight_hr" + end)) for end in row) if self.proj_sizes else ())
        first = self.matrix("weight_ih_l0")
        self.input_size = (first if isinstance(first, Tensor) else first[1]).shape[1]
        self.hidden_sizes, self.ranks = tuple(hidden), tuple(ranks)
        self.proj_sizes = tuple(projected) if self.proj_sizes is not None else None
        return self

    def _whole_if_smaller(self, name: str) -> None:
        """Multiply the factors of a matrix out that has become smaller than its rank."""
        matrix = self.matrix(name)
        if isinstance(matrix, Tensor) or matrix[1].shape[0] <= min(len(matrix[0]), matrix[1].shape[1]):
            return
        for half in halves(name):
            del self._parameters[half]
        whole = (matrix[0] @ matrix[1]).detach()
        self.register_parameter(name, nn.Parameter(whole, matrix[0].requires_grad))

    @classmethod
    def from_dense(cls, layer: nn.Module, factors: Mapping[str, Factors]) -> Self:
        """`layer`, torch's or one of `nn.ragged`, with two factors in the place of each matrix that is named.

        factors: name ("weight_hh_l0") -> (rows, r), (r, columns). Other parameters are those of `layer` itself.
        """
        source: Any = layer
        ends = [[f"_l{n}{e}" for e in ("", "_reverse")[: 1 + source.bidirectional]] for n in range(source.num_layers)]
        rank = {name: len(inner) for name, (_, inner) in factors.items()}
        ranks = [[[rank.get(name + end, 0) for name in MATRICES] for end in row] for row in ends]
        projected = widths_of(source, "proj_size")
        options: dict[str, Any] = (
            options_of(source) | {"device": "meta"} | ({"proj_sizes": projected} if projected[0][0] else {})
        )
        new = cls(source.input_size, widths_of(source, "hidden_size"), ranks, **options)
        new.dropout = source.dropout
        for name in new._parameters:
            new._parameters[name] = source._parameters.get(name)
        for name, pair in factors.items():
            old = source._parameters[name]
            for own, value in zip(halves(name), pair):
                new._parameters[own] = nn.Parameter(value.to(old).contiguous(), old.requires_grad)
        return new.train(source.training)

    def to_dense(self) -> nn.Module:
        """The ragged stack of the same function, its matrices multiplied out."""
        options: dict[str, Any] = options_of(self) | {"proj_sizes": self.proj_sizes}
        dense: Any = RAGGED[self.kind](self.input_size, self.hidden_sizes, **options)
        dense.dropout = self.dropout
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                own = self.matrix(name)
                parameter.copy_(own if isinstance(own, Tensor) else own[0] @ own[1])
        return dense.train(self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ranks={[list(map(list, row)) for row in self.ranks]}"


@register_layer
class FactorisedLSTM(_Factorised):
    """torch.nn.LSTM whose matrices are products of two thinner ones, made by `factorise`; called like torch's.

    `ranks`: for each layer and direction those of weight_ih and weight_hh, 0 where a matrix is whole. Its own time
    loop multiplies with the factors; the kernels of `accelerate` take the matrices multiplied out. ValueError for ranks
    that do not fit.
    """

    cell = MODES["LSTM"]


@register_layer
class FactorisedGRU(_Factorised):
    """torch.nn.GRU whose matrices are products of two thinner ones; see `FactorisedLSTM`."""

    cell = MODES["GRU"]


@register_layer
class FactorisedRNN(TanhOrRelu, _Factorised):
    """torch.nn.RNN whose matrices are products of two thinner ones; see `FactorisedLSTM`."""


FACTORISED: dict[str, type[_Factorised]] = {
    kind.cell.name: kind for kind in (FactorisedLSTM, FactorisedGRU, FactorisedRNN)
}


@register_layer
class FactorisedLinear(Layer):
    """torch.nn.Linear, its weight `weight_out` (out, rank) x `weight_in` (rank, in); ValueError for too high a rank."""

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
        for name, shape in self._shapes(bias).items():
            bound = (in_features if name == "weight_in" else rank if name == "weight_out" else in_features) ** -0.5
            value = torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound)
            self.register_parameter(name, nn.Parameter(value))
        if not bias:
            self.register_parameter("bias", None)

    def _shapes(self, bias: bool) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {
            "weight_out": (self.out_features, self.rank),
            "weight_in": (self.rank, self.in_features),
        }
        return found | ({"bias": (self.out_features,)} if bias else {})

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return _product(input, (self.weight_out, self.weight_in), self.bias)

    @classmethod
    def from_dense(cls, layer: nn.Linear, factors: Factors) -> Self:
        """`layer` with these factors in the place of its weight, and the very bias."""
        new = cls(layer.in_features, layer.out_features, factors[1].shape[0], layer.bias is not None, "meta")
        for name, value in zip(("weight_out", "weight_in"), factors):
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


def factorised(layer: nn.Module, factors: Mapping[str, Factors]) -> nn.Module:
    """A linear layer or a stack, torch's or ragged, with `factors` in the place of the matrices that are named."""
    if isinstance(layer, nn.Linear):
        return FactorisedLinear.from_dense(layer, factors["weight"])
    source: Any = layer
    kind = type(source).__name__ if isinstance(source, nn.RNNBase) else source.kind
    return FACTORISED[kind].from_dense(source, factors)
