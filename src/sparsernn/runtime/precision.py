"""Which layer is computed in which precision: by name, or chosen by what each layer does to the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, cast, get_args

from torch import nn

from .held import Precision, precision_of
from .layouts import multiplied
from .modules import Accelerated
from .weights import ends

Wanted = Precision | Literal["auto"] | Mapping[str, Precision]


@dataclass(frozen=True)
class Unit:
    """What has one precision: a layer and direction of an accelerated stack, a cell or a linear layer.

    `names`: first its own ("lstm.l0_reverse"; of a cell or linear layer its path), then those of its module, of which
    there are several where the module has several names.
    """

    names: tuple[str, ...]
    module: Any
    end: str  # "l0_reverse"; "" for a module of one unit


def units(model: nn.Module) -> list[Unit]:
    """Everything on kernels, in the model's order."""
    paths: dict[int, tuple[Any, list[str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(cast(Any, module), Accelerated):
            paths.setdefault(id(module), (module, []))[1].append(path)
    return [unit for module, own in paths.values() for unit in _units_of(module, own)]


def _units_of(module: Any, paths: list[str]) -> Iterator[Unit]:
    if not hasattr(module, "num_layers"):
        yield Unit(tuple(paths), module, "")
        return
    for _, _, end in ends(module):
        own = [f"{path}.{end[1:]}" if path else end[1:] for path in paths]
        yield Unit((*own, *filter(None, paths)), module, end[1:])


def check_wanted(wanted: object) -> None:
    """ValueError for anything that is no precision, nor names with one each."""
    known = get_args(Precision)
    if isinstance(wanted, Mapping):
        wrong = {name: value for name, value in wanted.items() if value not in known or not isinstance(name, str)}
        if wrong or not wanted:
            raise ValueError(f"accelerate: precision is {dict(wanted)!r}; expected names with {', '.join(known)} each.")
    elif wanted not in (*known, "auto"):
        raise ValueError(
            f"accelerate: precision is {wanted!r}; expected {', '.join(known)}, auto or a dict by layer names."
        )


def by_name(found: list[Unit], wanted: Mapping[str, Precision], left: Mapping[str, str]) -> list[Precision]:
    """The precision of each unit: by its own name, else by its module's, else by the first pattern that fits, else
    float32.

    left: path of a layer -> why it is on torch. Raises ValueError for a name or pattern that fits nothing.
    """
    unused = dict(wanted)
    chosen: list[Precision] = []
    for unit in found:
        fitting = [key for key in wanted if any(fnmatchcase(name, key) for name in unit.names)]
        for key in fitting:
            unused.pop(key, None)
        exact = [name for name in unit.names if name in wanted]
        best = (exact or fitting)[:1]
        chosen.append(wanted[best[0]] if best else "float32")
    for key in unused:
        if key in left:
            raise ValueError(f"accelerate: precision names {key!r}, which stays on torch: {left[key]}.")
        names = ", ".join(unit.names[0] for unit in found)
        raise ValueError(f"accelerate: precision names {key!r}, which fits no layer on kernels; these are {names}.")
    return chosen


def assign(found: list[Unit], chosen: list[Precision]) -> None:
    """Give the modules engines of these precisions; a module whose layers have one in common keeps that alone."""
    for module in {id(unit.module): unit.module for unit in found}.values():
        own = {unit.end: p for unit, p in zip(found, chosen) if unit.module is module}
        one = set(own.values())
        # New engines: what was packed in another precision is dropped.
        module.__dict__["_engine"] = type(module._engine)(one.pop() if len(one) == 1 else own)


def precisions(model: nn.Module) -> dict[str, Precision]:
    """The precision of each layer of an accelerated model, by its own name."""
    return {unit.names[0]: precision_of(unit.module._engine.precision, unit.end) for unit in units(model)}


def runs_in_float32(chosen: list[Precision]) -> bool:
    """Whether a precision is asked for of which this processor has no products: they are of float32 then."""
    return any(multiplied(precision) != precision for precision in chosen)
