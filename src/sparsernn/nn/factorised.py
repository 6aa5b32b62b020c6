"""LSTM, GRU and RNN stacks whose matrices are products of two thinner ones.

A matrix `weight_ih_l0` (rows, columns) of rank r is there as `weight_ih_out_l0` (rows, r) and `weight_ih_in_l0` (r,
columns); its product with an input is two products of r (rows + columns) weights. Where the rank is 0 the matrix is
there whole, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..structure.cells import MODES
from .factorised_linear import FactorisedLinear, Factors, product
from .layers import LayeredRecurrent, States, TanhOrRelu
from .packing import options_of, widths_of
from .protocol import Kept, Misfit, Packing, check_table, register_layer
from .ragged import RAGGED
from .time_loop import flattened, run_cell

MATRICES = ("weight_ih", "weight_hh")


def halves(name: str) -> tuple[str, str]:
    """Names of the two factors of the matrix `name` ("weight_ih_l0_reverse")."""
    kind, end = name[: name.rindex("_l")], name[name.rindex("_l") :]
    return f"{kind}_out{end}", f"{kind}_in{end}"


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

    def packing(self) -> Packing:
        """What kernels need: the matrices by their own names, and which of them are two."""
        own = self.shapes()
        factors = {name: halves(name) for name in super().shapes() if name not in own}
        return replace(self._stacked(), shapes=own, factors=factors)

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
        run = partial(run_cell, MODES[self.mode], weights, states=states, product=product)
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
    loop, the kernels of `accelerate` and a C file of `export_c` multiply with one factor after the other; `to_dense`
    gives the layer with the matrices multiplied out. ValueError for ranks that do not fit.
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


def factorised(layer: nn.Module, factors: Mapping[str, Factors]) -> nn.Module:
    """A linear layer or a stack, torch's or ragged, with `factors` in the place of the matrices that are named."""
    if isinstance(layer, nn.Linear):
        return FactorisedLinear.from_dense(layer, factors["weight"])
    source: Any = layer
    kind = type(source).__name__ if isinstance(source, nn.RNNBase) else source.kind
    return FACTORISED[kind].from_dense(source, factors)
