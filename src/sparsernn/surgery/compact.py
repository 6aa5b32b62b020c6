"""`compact`: take dead units out exactly. The same function, in smaller modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._modules import copied, unwrap
from ..nn.protocol import Sides
from ..structure import examples
from ..structure.classes import Plane
from ..structure.structure import Structure
from ..structure.trace import quiet, trace
from .adapters import adapt
from .attributes import changed_widths, update_attributes
from .gates import fold_gates
from .guards import guard_unreached
from .narrow import fit_modules, narrow_tensors, sides_of
from .norms import fit_weightless_norms
from .optimizers import repoint, repoint_plan
from .torch_modules import is_leaf
from .verify import mismatch
from .words import forget_zero_rows, narrow_words


def compact(
    model: nn.Module,
    example_inputs: Any,
    *,
    gates: bool = False,
    words: bool = False,
    carried_states: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    strict: bool = False,
) -> nn.Module:
    """A new model with the same function and without its dead units; the model given is not changed.

    A unit is dead if every slice that reads it is zero, or if its value is always zero. Recurrent layers stay plain
    `torch.nn` modules where their widths stay equal, else they become `sparsernn.nn.ragged` ones under the same path;
    names, dtype, device, training mode, `requires_grad`, hooks and ties stay.

    - `example_inputs`: as for `trace`. The result is compared with the original on them before it is returned, in
      float64 within 1e-10.
    - `gates`: also fold gates whose incoming rows are zero into constants (`sparsernn.nn.gated`).
    - `words`: also let all rows of an embedding that are zero share one row; word numbers stay what they are, by a map
      that is saved with the model.
    - `carried_states`: states that the model hands out are only fed back into it, so their units may go.
    - `optimizer`: pointed at the new model's parameters, its state cut in the same way, once the check has passed.
    - `strict`: raise RuntimeError where something that could go has to stay.

    Where no smaller form of a layer runs and passes the check, its dead units stay, the rest goes, and a UserWarning
    names layers, numbers and why (so for gates and words that were asked for). It warns as well where nothing is dead.
    Raises ValueError for bad input.
    """
    model = unwrap(model)
    plan = repoint_plan(model, optimizer)
    structure = trace(model, example_inputs, carried_states=carried_states)
    calls = examples.calls(example_inputs)
    parameters = dict(model.named_parameters())
    dead = structure.classes.dead(parameters)
    stay = replace(structure.classes, equal=()).dead(parameters) & ~dead if structure.classes.equal else dead[:0]
    rows: dict[Plane, Tensor] = {}
    orders: dict[str, Tensor] = {}
    left = [_uneven(structure, stay)] if bool(stay.any()) else []
    with quiet():
        (small, gone), dead, problem = _smallest(model, structure, dead, calls)
        left += [problem] if problem else []
        if words:
            small, rows, problem = narrow_words(model, small, structure, calls, dead)
            left += [problem] if problem else []
        if gates:
            small, orders, problem = fold_gates(model, small, structure, calls, dead)
            left += [problem] if problem else []
    if strict and left:
        raise RuntimeError(f"compact: {left[0]}\nWithout strict=True this stays, and the rest goes.")
    for problem in left:
        warnings.warn(f"compact: {problem}", UserWarning, stacklevel=2)
    if not left and not bool(dead.any()) and not gates and not words:
        warnings.warn(_why_nothing(structure), UserWarning, stacklevel=2)
    if optimizer is not None:
        repoint(optimizer, plan, small, {**gone, **rows}, orders)
        forget_zero_rows(optimizer, small, rows)
    return small


class Smaller(NamedTuple):
    """A smaller model and what was cut from its tensors: of some the dense width may have stayed."""

    model: nn.Module
    gone: Mapping[Plane, Tensor]


@dataclass(frozen=True)
class _Cut:
    """What one form of surgery has to work with; `model` is a copy that it may change."""

    model: nn.Module
    structure: Structure
    dead: Mapping[str, Tensor]  # unit set -> bool
    gone: Mapping[Plane, Tensor]
    states: bool = True  # recurrent modules take states of the dense width as well, by a hook

    def plain(self, zeros: Collection[int] = ()) -> Smaller:
        names = {id(p): name for name, p in self.model.named_parameters()}
        sides = self.sides
        narrow_tensors(self.model, self.gone)
        small = fit_modules(self.model, self.dead, self.gone, sides, self.states)
        guard_unreached(small, names, self.structure, zeros)
        return Smaller(small, self.gone)

    def widths(self, *named: str) -> Smaller | None:
        small = self.plain()
        found = update_attributes(small.model, changed_widths(self.structure.layers, self.dead), named=named)
        return small if found else None

    @property
    def sides(self) -> dict[str, Sides]:
        return sides_of(self.model, self.structure.layers, self.dead, self.gone)

    def adapters(self, *, leaves: bool) -> Smaller | None:
        """Dense-width adapters on recurrent modules and, with `leaves`, on linear layers, convolutions and the like.

        Parameters of all others keep their dense width. None where a dead unit would keep what it is computed from.
        """
        names = {id(t): name for name, t in (*self.model.named_parameters(), *self.model.named_buffers())}
        recurrent = [part for path in self.sides for part in self.model.get_submodule(path).modules()]
        chosen = recurrent + [m for m in self.model.modules() if leaves and is_leaf(m)]
        own = [t for m in chosen for t in (*m.parameters(recurse=False), *m.buffers(recurse=False))]
        mine = {names[id(tensor)] for tensor in own}
        gone = {plane: mask for plane, mask in self.gone.items() if plane[0] in mine}
        if not self._computed_from() <= gone.keys():
            return None
        masks = [mask for mask in self.dead.values() if bool(mask.any())]
        zeros = {n * len(mask) for mask in masks for n in (1, 2)}  # of one direction, and of both
        cut = replace(self, gone=gone)
        sides = cut.sides
        small = cut.plain(zeros)
        adapt(small.model, names, gone, sides)
        return small

    def _computed_from(self) -> set[Plane]:
        """The matrices that hold the rows of dead units; a bias or the buffer of a first state may keep its width."""
        layers = [layer for layer in self.structure.layers if any(bool(self.dead[n].any()) for n in layer.unit_sets)]
        found = {(name, 0) for layer in layers for name in layer.matrices()}
        declared = {name for layer in self.structure.layers for name in layer.unit_sets}
        classes = self.structure.classes
        names = {name for name, p in self.model.named_parameters() if p.dim() > 1}
        for name in self.dead.keys() - declared:
            mine = classes.sets[name][self.dead[name]]
            found |= {
                plane
                for plane, p in classes.planes.items()
                if plane[0] in names and bool(torch.isin(p.classes[p.owner >= 0], mine).any())
            }
        return found & self.gone.keys()


# The forms, in the order in which they are tried: plain narrowing (without a hook where no state of the dense width is
# passed), the user's width attributes, dense-width adapters.
FORMS: tuple[Callable[[_Cut], Smaller | None], ...] = (
    lambda cut: replace(cut, states=False).plain(),
    lambda cut: cut.plain(),
    lambda cut: cut.widths(),
    lambda cut: cut.widths("hid", "unit", "dim", "width"),
    lambda cut: cut.adapters(leaves=True),
    lambda cut: cut.adapters(leaves=False),
)


def _smallest(
    model: nn.Module, structure: Structure, dead: Tensor, calls: list[examples.Call]
) -> tuple[Smaller, Tensor, str]:
    """The smaller model, the classes that are gone from it, and a sentence where dead units had to stay."""
    if not bool(dead.any()):
        return Smaller(copied(model), {}), dead, ""
    small, problem = _try_forms(model, structure, dead, calls)
    if small is not None:
        return small, dead, ""
    # Code that reads the one width of a stack (`self.lstm.weight_hh_l0.shape[1]`), or has one attribute for all its
    # layers, takes layers of one width.
    parameters = dict(model.named_parameters())
    for equal in (_stacks(structure), _alike(structure)):
        even = replace(structure.classes, equal=equal).dead(parameters)
        if bool(even.any()) and not torch.equal(even, dead):
            small, _ = _try_forms(model, structure, even, calls)
            if small is not None:
                text = f"the code of {type(model).__name__} asks for one width of all layers, so of each go as many as"
                counts = _counts(structure, dead & ~even)
                return small, even, f"dead units stay ({counts}): {text} of the one with the fewest."
    best, done = _one_by_one(model, structure, dead, calls)
    counts = _counts(structure, dead & ~done) or "columns of embeddings"
    return best, done, f"dead units stay ({counts}): no smaller form of {type(model).__name__} runs: {problem}."


def _one_by_one(
    model: nn.Module, structure: Structure, dead: Tensor, calls: list[examples.Call]
) -> tuple[Smaller, Tensor]:
    """Not all at once: what can't be cut stays, the rest goes, unit set by unit set."""
    parameters = dict(model.named_parameters())
    best, done = Smaller(copied(model), {}), torch.zeros_like(dead)
    refused = torch.zeros_like(dead)

    def cut(only: Tensor) -> bool:
        nonlocal best, done
        wider = structure.classes.dead(parameters, only=only)
        if not torch.equal(wider, done):
            small, _ = _try_forms(model, structure, wider, calls)
            if small is None:
                return False
            best, done = small, wider
        return True

    for of_unit in structure.classes.sets.values():
        mine = torch.zeros_like(dead)
        mine[of_unit[of_unit >= 0]] = True
        if bool((mine & dead & ~done).any()) and not cut(done | (mine & dead)):
            refused |= mine & ~done
    cut(dead & ~refused)  # with the columns of embeddings that only those read
    return best, done


def _stacks(structure: Structure) -> tuple[tuple[str, ...], ...]:
    """Unit sets of one module, kind by kind (cell units, projected units)."""
    found: dict[tuple[str, int], list[str]] = {}
    for layer in structure.layers:
        for kind, name in enumerate(layer.unit_sets):
            found.setdefault((layer.module, kind), []).append(name)
    return tuple(tuple(names) for names in found.values() if len(names) > 1)


def _alike(structure: Structure) -> tuple[tuple[str, ...], ...]:
    """Unit sets that have one width now."""
    found: dict[int, list[str]] = {}
    for name, size in structure.unit_sets.items():
        found.setdefault(size, []).append(name)
    return tuple(tuple(names) for names in found.values() if len(names) > 1)


def _try_forms(
    model: nn.Module, structure: Structure, dead: Tensor, calls: list[examples.Call]
) -> tuple[Smaller | None, str]:
    padded = torch.cat([dead, torch.zeros(1, dtype=torch.bool)])
    sets = {name: padded[of_unit] for name, of_unit in structure.classes.sets.items()}
    gone = structure.classes.gone(dead)
    first = ""
    for form in FORMS:
        try:
            small = form(_Cut(copied(model), structure, sets, gone))
            if small is not None:
                fit_weightless_norms(small.model, calls[0])
            problem = None if small is None else mismatch(model, small.model, calls, structure, dead)
        except (RuntimeError, ValueError, TypeError) as error:
            small, problem = None, str(error).split("\n")[0]
        if small is not None and problem is None:
            return small, ""
        first = first or (problem or "").split("\n")[0].rstrip(".")
    return None, first


def _counts(structure: Structure, stay: Tensor) -> str:
    counts = {name: int(stay[of_unit[of_unit >= 0]].sum()) for name, of_unit in structure.classes.sets.items()}
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)


def _uneven(structure: Structure, stay: Tensor) -> str:
    return (
        f"dead units stay ({_counts(structure, stay)}): the layers of a subclass of torch's layers have one "
        "width, so of each go as many as of the one with the fewest. torch's own nn.LSTM, nn.GRU or nn.RNN in its "
        "place gives them all up."
    )


def _why_nothing(structure: Structure) -> str:
    if any(bool(mask.any()) for mask in structure.removable().values()):
        return (
            "compact: no unit is dead, so nothing was removed. Units die when all that reads them is zero: train with "
            "Shrink or Prune(level='unit'), or see Structure.explain() for who reads them."
        )
    kept = [f"{k.unit_set}: {k.reason} ({k.operation} at {k.where})" for k in structure.kept]
    reasons = "; ".join(dict.fromkeys(kept or structure.notes))
    return f"compact: no unit may be removed, so nothing was. {reasons}"


__all__ = ["FORMS", "compact"]
