"""Some thousand positions of input through a model: the operands of its matrices, and calls to compare outputs on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import chain

from torch import nn

from .._modules import copied, in_eval
from ..structure import examples
from ..structure.sites import Site, SiteRecorder
from .batches import positions_in
from .outputs import Outputs
from .progress import shown

KEPT_BATCHES, KEPT_POSITIONS = 8, 5_000  # on which the change of the outputs is measured
FEW = 10  # positions an input


@dataclass(frozen=True)
class Recording:
    """`model`: a copy in evaluation mode that has not run. `recorder`: what its matrices multiplied; `outputs`: what
    it gives on the first calls."""

    model: nn.Module
    recorder: SiteRecorder
    outputs: Outputs

    def site(self, name: str) -> Site | str:
        """The one site of a matrix, or why it has none."""
        if name in self.recorder.others:
            return f"it is used by {self.recorder.others[name]}"
        found = [site for site in self.recorder.sites.values() if site.parameter == name]
        if len(found) != 1:
            return "it is multiplied in no product whose operand is seen, or in two directions"
        return found[0]


def first_of(calls: Iterator[examples.Call], positions: float) -> tuple[list[examples.Call], Iterator[examples.Call]]:
    """The first calls, those that outputs are measured on, and the iterator with them put back."""
    first, enough = [], min(positions, KEPT_POSITIONS)
    for call in calls:
        first.append(call)
        if len(first) == KEPT_BATCHES or sum(map(positions_in, first)) >= enough:
            break
    return first, chain(first, calls)


def kinds(model: nn.Module, calls: Iterable[examples.Call]) -> tuple[list[examples.Call], set[str]]:
    """Each of `calls` that uses a parameter which those before don't (the first in any case), and all of these."""
    model = in_eval(model)
    recorder, found = SiteRecorder(model, frozenset()), []
    for number, call in enumerate(calls, start=1):
        before = len(recorder.used)
        with recorder:
            examples.run(model, examples.fresh(call), number)
        if len(recorder.used) > before or not found:
            found.append(call)
    return found, recorder.used


Record = Callable[[Iterable[tuple[str, int]]], Recording]


def recorded(
    model: nn.Module,
    calls: Iterable[examples.Call],
    positions: int,
    wanted: Iterable[tuple[str, int]],
    name: str = "fold",
    known: Set[str] | None = None,
) -> Recording:
    """The operands of all planes `wanted`, (parameter, axis), until so many positions were seen; and the first outputs.

    `name`: of the function that asks. Raises ValueError for a call that can't be run, that brings NaN or infinity, or
    that uses parameters beside the `known` ones.
    """
    model = in_eval(model)
    twin = copied(model)  # running may change it: a state that it keeps, a buffer
    recorder, kept, seen = SiteRecorder(twin, frozenset(wanted)), [], 0
    for number, call in enumerate(shown(calls, f"{name}: inputs"), start=1):
        with recorder:
            examples.run(twin, examples.fresh(call), number)
        if known is not None and (new := sorted(recorder.used - known)):
            raise ValueError(
                f"{name}: batch {number} takes another way through the model than those before: it uses "
                f"{', '.join(new[:3])}.\nPut one batch of each kind first, within {KEPT_BATCHES} batches and "
                f"{KEPT_POSITIONS} positions."
            )
        if not all(bool(site.moments.total.diagonal().isfinite().all()) for site in recorder.sites.values()):
            raise ValueError(
                f"{name}: batch {number} brings NaN, infinity or numbers too large to be squared to the readers of the "
                "units: leave such inputs out."
            )
        if len(kept) < KEPT_BATCHES and sum(map(positions_in, kept)) < KEPT_POSITIONS:
            kept.append(examples.fresh(call))
        seen = max((site.moments.count for site in recorder.sites.values()), default=seen + positions_in(call))
        if seen >= positions:
            break
    if seen == 0:
        raise ValueError(f"{name}: the batches hold no position (batch times steps); give some thousand.")
    return Recording(model, recorder, Outputs(model, kept))


def warn_of_few(recorder: SiteRecorder, most: int, what: str, name: str = "fold") -> None:
    """Warn where fewer positions were seen than settle the weights of `most` of `what`."""
    seen = min((site.moments.count for site in recorder.sites.values()), default=0)
    if seen < FEW * most:
        warnings.warn(
            f"{name}: {seen} positions (batch times steps) were seen for {most} {what}; give at least "
            f"{FEW * most}, better {100 * most}.",
            stacklevel=5,
        )
