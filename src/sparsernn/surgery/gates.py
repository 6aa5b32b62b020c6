"""Fold constant gates: a gate whose incoming rows are zero is act(bias) at every step, and needs no product."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..nn.gated import GatedGRU, GatedLSTM, GatedRNN
from ..structure import examples
from ..structure.structure import Structure
from .narrow import STACKS, carry_over, replace_module
from .verify import mismatch

GATED: dict[str, type[Any]] = {"LSTM": GatedLSTM, "GRU": GatedGRU, "RNN": GatedRNN}


def fold_gates(
    model: nn.Module, small: nn.Module, structure: Structure, calls: list[examples.Call], dead: Tensor
) -> tuple[nn.Module, str]:
    """`small` with every stack that has constant gates as a gated one, if that passes the check against `model`.

    Else (the model reads the weights of the stack by hand, say) `small` as it is, and a sentence that says why.
    """
    folded = copy.deepcopy(small)
    found = False
    for path, module in list(folded.named_modules()):
        if not isinstance(module, STACKS):
            continue
        stack: Any = module
        gated = GATED[stack.mode.split("_")[0]].from_dense(stack)
        if all(len(gate) == 0 for gate in _constants(gated)):
            continue
        for name, p in module.named_parameters(recurse=False):
            if name in gated._parameters:
                gated._parameters[name].requires_grad_(p.requires_grad)
        carry_over(module, gated)
        folded = replace_module(folded, path, gated)
        found = True
    if not found:
        return small, ""
    problem = mismatch(model, folded, calls, structure, dead)
    return (small, f"constant gates stay as they are: {problem}.") if problem else (folded, "")


def _constants(gated: Any) -> list[Any]:
    """For each layer and direction a list with one entry for each gate row that was folded."""
    found = []
    for layer, ends in enumerate(gated.suffixes()):
        for direction, end in enumerate(ends):
            rows = gated.gates * gated.hidden_sizes[layer][direction]
            found.append([None] * (rows - len(getattr(gated, "weight_ih" + end))))
    return found
