"""Which weights and layers a sparsifier governs: `include="recurrent"`, `"all"` or name patterns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from ..nn.factorised import FACTORISED
from ..structure.cells import RecurrentLayer, made_plain_by, recurrent_layers, unmanaged_modules
from ..structure.notes import DECLARE

Include = str | Iterable[str]


@dataclass(frozen=True)
class Governed:
    """`weights`: names of the 2-D parameters that count for the density; `layers`: those whose units may go."""

    weights: tuple[str, ...]
    layers: tuple[RecurrentLayer, ...]


def governed(model: nn.Module, include: Include) -> Governed:
    """Find what `include` selects.

    "recurrent": the matrices of recurrent layers (ih, hh, hr); "all": every 2-D parameter; otherwise one or several
    shell patterns that are matched with parameter names ("encoder.*", "*weight_hh*"). Lengths and directions of
    weights under `weight_norm` are no matrices here: a direction of zeros would be divided by its own norm.

    Raises ValueError if nothing is selected and TypeError if `include` holds anything but strings.
    """
    parameters = dict(model.named_parameters())
    layers = recurrent_layers(model)
    normed = _lengths_and_directions(model)
    matrices = tuple(name for name, p in parameters.items() if p.dim() == 2 and name not in normed)
    recurrent = tuple(dict.fromkeys(name for layer in layers for name in layer.matrices()))
    if include == "recurrent":
        if not layers:
            raise ValueError(_no_layers(model))
        return Governed(recurrent, layers)
    if include == "all":
        if not matrices:
            raise ValueError("The model has no 2-D parameters, expected at least one weight matrix to sparsify.")
        return Governed(matrices, layers)
    patterns = (include,) if isinstance(include, str) or not isinstance(include, Iterable) else tuple(include)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f'include is {include!r}, expected "recurrent", "all" or patterns of parameter names.')
    if not patterns:
        raise ValueError('include holds no pattern: give "recurrent", "all" or patterns of parameter names.')
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            if any(fnmatchcase(name, pattern) for name in normed):
                raise ValueError(
                    f'include="{pattern}" matches a weight under weight_norm, where zeros would be divided by their '
                    "own norm.\nTake the norm off first (torch.nn.utils.parametrize.remove_parametrizations, or "
                    "remove_weight_norm)."
                )
            near = difflib.get_close_matches(pattern, matrices, 3, 0.3) or list(matrices[:3])
            raise ValueError(
                f'include="{pattern}" matches no weight matrix of the model.\n'
                f'Give "recurrent", "all" or a pattern such as {", ".join(near)}.'
            )
    chosen = tuple(name for name in matrices if any(fnmatchcase(name, pattern) for pattern in patterns))
    return Governed(chosen, tuple(layer for layer in layers if set(layer.matrices()) & set(chosen)))


def _lengths_and_directions(model: nn.Module) -> set[str]:
    """Names of the parameters that `torch.nn.utils.weight_norm`, old and new, keeps in place of a weight."""
    found: set[str] = set()
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        for name, chain in getattr(module, "parametrizations", {}).items():
            if any(type(part).__name__ == "_WeightNorm" for part in chain):
                found |= {f"{start}parametrizations.{name}.{own}" for own, _ in chain.named_parameters()}
        for hook in module._forward_pre_hooks.values():
            if type(hook).__name__ == "WeightNorm":
                found |= {f"{start}{hook.name}_{part}" for part in "gv"}  # type: ignore[union-attr]
    return found


def _no_layers(model: nn.Module) -> str:
    unmanaged = unmanaged_modules(model)
    if unmanaged:
        return (
            f"The weights of {', '.join(unmanaged)} are not plain parameters, but computed at each call.\n"
            f"Make them plain before sparsifying by {made_plain_by(unmanaged[0], model.get_submodule(unmanaged[0]))}, "
            "or give include= patterns of plain weights."
        )
    thin = [path for path, module in model.named_modules() if isinstance(module, tuple(FACTORISED.values()))]
    if thin:
        return (
            f"Matrices of {', '.join(thin) or type(model).__name__} are products of two factors.\n"
            "Take out units, gates or weights first and call factorise() on what is left, or name the factors: "
            f'include="{thin[0] and thin[0] + "."}*" governs units and single weights, but no gates.'
        )
    return (
        f"{type(model).__name__} has no recurrent layers that are declared (nn.LSTM, nn.GRU, nn.RNN, their cells or "
        f"registered ones).\nFor a cell written by hand, whose units trace finds: {DECLARE}.\n"
        "Give name patterns for other weights."
    )
