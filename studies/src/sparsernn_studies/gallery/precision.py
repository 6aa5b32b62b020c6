"""A net in int8: all of its layers, or as many as the bar leaves there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

import sparsernn as srn
from sparsernn.runtime.costs import Precision
from sparsernn.runtime.precision import Wanted, precisions

from .subject import Subject

EXACT = "bfloat16"  # of a layer that int8 spoils


def in_int8(subject: Subject, net: nn.Module, good: Callable[[float], bool]) -> tuple[nn.Module, Wanted]:
    """`net` with its matrices on grids of int8, what that loses made up for on the calibration, and its precision.

    Where that is not `good` on validation, though `net` is, the layer whose rounding costs most stays in bfloat16,
    then the next. Where even one layer in int8 is too much, all are: that is a miss.
    """
    rounded = srn.fold(net, list(subject.calibration), to=1, bits=8, include="all").model.eval()
    layers, kept = list(precisions(srn.accelerate(rounded))), list[str]()

    def tried(more: str) -> float:
        score = validated(subject, *mixed(net, rounded, [*kept, more]))
        return -score if subject.bar.at_most else score

    if not good(validated(subject, net, "float32")):
        return rounded, "int8"
    while not good(validated(subject, *mixed(net, rounded, kept))):
        if len(kept) >= len(layers) - 1:
            return rounded, "int8"
        kept.append(max((layer for layer in layers if layer not in kept), key=tried))
    return mixed(net, rounded, kept)


def mixed(net: nn.Module, rounded: nn.Module, kept: Sequence[str]) -> tuple[nn.Module, Wanted]:
    """`rounded` with the weights that `net` has in the layers `kept`, and the precision of each layer."""
    if not kept:
        return rounded, "int8"
    made, exact = copy.deepcopy(rounded), net.state_dict()
    own = {name: exact[name] for name in exact if any(within(name, layer) for layer in kept)}
    made.load_state_dict(rounded.state_dict() | own)
    return made, {"*": "int8", **dict.fromkeys(kept, EXACT)}


def within(parameter: str, layer: str) -> bool:
    """Whether a parameter is of a layer by its name: "lstm.weight_ih_l0" is of "lstm.l0", "head.weight" of "head"."""
    path, _, end = layer.rpartition(".")
    module, _, name = parameter.rpartition(".")
    return module == layer or (module == path and name.endswith(f"_{end}"))


def online(net: nn.Module, part: nn.Module, precision: Wanted) -> Wanted:
    """The precision of `part`, a module of `net`, by the names that its layers have there."""
    if isinstance(precision, str):
        return precision
    path = next(path for path, module in net.named_modules() if module is part)
    start = f"{path}." if path else ""
    own: dict[str, Precision] = {"*": "int8"}
    own |= {name.removeprefix(start): each for name, each in precision.items() if name.startswith(start)}
    return own if len(own) > 1 else "int8"


def validated(subject: Subject, net: nn.Module, precision: Wanted) -> float:
    """The bar's metric on what sizes and precisions are chosen by."""
    with torch.no_grad():
        return float(subject.judge(srn.accelerate(net, precision), subject.validation)[subject.bar.metric])
