"""Fold constant gates: a gate whose incoming rows are zero is act(bias) at every step, and needs no product."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .._modules import copied
from ..nn.gated import GATED
from ..structure import examples
from ..structure.structure import Structure
from .narrow import carry_over, replace_module
from .verify import mismatch


def fold_gates(
    model: nn.Module, small: nn.Module, structure: Structure, calls: list[examples.Call], dead: Tensor
) -> tuple[nn.Module, dict[str, Tensor], str]:
    """`small` with every stack that has constant gates as a gated one, if that passes the check against `model`.

    With it for each parameter of such a stack the rows that are left, in their new order. Else (the model reads the
    weights of the stack by hand, say) `small` as it is, and a sentence that says why.
    """
    folded = copied(small)
    orders: dict[str, Tensor] = {}
    names = {id(p): name for name, p in folded.named_parameters()}
    owners = [id(p) for module in folded.modules() for p in module._parameters.values()]
    tied = ""
    for path, module in list(folded.named_modules()):
        kind = next((kind for kind in GATED.values() if isinstance(module, kind.dense_types)), None)
        if kind is None:
            continue
        gated = kind.from_dense(module)
        if all(len(gate) == 0 for gate in _constants(gated)):
            continue
        if any(owners.count(id(p)) > 1 for p in module.parameters(recurse=False)):
            tied = f"constant gates of {path} stay as they are: it shares its weights with another module."
            continue
        for name, p in module.named_parameters(recurse=False):
            own = gated.get_parameter(name).requires_grad_(p.requires_grad)
            if not name.startswith("weight_hr"):
                orders[names[id(p)]] = getattr(gated, "rows" + name[name.index("_l") :])[: len(own)]
        carry_over(module, gated)
        folded = replace_module(folded, path, gated)
    if not orders:
        return small, {}, tied
    problem = mismatch(model, folded, calls, structure, dead)
    return (small, {}, f"constant gates stay as they are: {problem}.") if problem else (folded, orders, tied)


def _constants(gated: Any) -> list[Any]:
    """For each layer and direction a list with one entry for each gate row that was folded."""
    found = []
    for layer, ends in enumerate(gated.suffixes()):
        for direction, end in enumerate(ends):
            rows = gated.gates * gated.hidden_sizes[layer][direction]
            found.append([None] * (rows - len(getattr(gated, "weight_ih" + end))))
    return found
