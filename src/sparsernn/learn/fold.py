"""`fold`: make a trained model small without training it.

Units are taken out in the order in which the rest can make up for them best, and the matrices that read them are solved
anew by least squares over the inputs that the model really sees. No labels, no gradients: some thousand positions of
input are enough. The idea is that of optimal brain surgery (Hassibi and Stork, NeurIPS 1992) a whole unit at a time,
for every matrix that reads the unit: the next layer, the head, the layer itself at the next step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from .._modules import copied, in_eval, unwrap
from ..structure import examples
from ..structure.groups import SliceGroups
from ..structure.sites import SiteRecorder
from ..structure.trace import quiet, trace
from .batches import inputs_of, positions_in
from .cost import Cost, multiplied
from .folding import Folding, Step
from .governed import Include, governed
from .least_squares import Sizes
from .levels import Slices
from .units import governed_units

KEPT_BATCHES, KEPT_POSITIONS = 8, 20_000  # on which the change of the outputs is measured
FEW = 10  # positions a unit


@dataclass(frozen=True)
class Folded:
    """What `fold` made.

    `model`: a new model of the same widths, the units that went read by nothing; `compact` takes them out. `removed`:
    unit set -> bool (size,). `kept`: unit set -> why units of it could not be folded. `share`: of the governed weights
    (or of the cost) that `compact` leaves. `predicted`, `measured`: root mean squared change of the outputs, in shares
    of their own root mean square about their means; measured on the first batches.
    """

    model: nn.Module
    removed: Mapping[str, Tensor]
    kept: Mapping[str, str]
    share: float
    predicted: float
    measured: float


class FoldedSizes(tuple[Folded, ...]):
    """One `Folded` for each size, as a table (`print`) and a figure (`plot`)."""

    def __str__(self) -> str:
        table = Table("share kept", "units left", "predicted change", "measured change")
        for f in self:
            units = ", ".join(str(int((~gone).sum())) for gone in f.removed.values())
            table.add_row(f"{f.share:.1%}", units, f"{f.predicted:.2%}", f"{f.measured:.2%}")
        console = Console(width=100, no_color=True)
        with console.capture() as captured:
            console.print(table)
        return captured.get()

    def plot(self) -> Any:
        """A matplotlib figure: change of the outputs over the share kept."""
        from ..extras import require

        require("matplotlib", "figures")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, style in (("measured", "-o"), ("predicted", "--s")):
            axes.plot([100 * f.share for f in self], [100 * getattr(f, name) for f in self], style, label=name)
        axes.set(xlabel="share kept, %", ylabel="change of the outputs, %")
        axes.legend()
        return figure


def fold(
    model: nn.Module,
    batches: Iterable[Any],
    to: float | Sequence[float] = 0.5,
    *,
    cost: Cost = "weights",
    include: Include = "recurrent",
    ridge: float = 0.1,
    carried_states: bool = False,
    inputs: Callable[[Any], Any] | None = None,
    positions: int = 40_000,
) -> Any:
    """A new model in which as few units are read as `to` asks for, the others making up for those that went.

    - `batches`: inputs as the model meets them, each as in `example_inputs` of `trace`; a DataLoader serves, labels
      are left out (of a list as many items are taken as `forward` has required arguments); `inputs`: what to take of
      a batch, where that is something else. No more is read than brings `positions` positions (batch times steps).
    - `to`: the share of the governed weights that `compact` leaves, or of `cost`: "mult-adds", or a function of the
      units left in each set, as in `GroupLasso`. Several shares give several models, in one pass.
    - `ridge`: keeps the solution from leaning on what few positions say, in shares of the inputs' mean power.

    What reads a unit has to be a linear layer, a convolution (of one group), a matrix product or a recurrent layer;
    units read in another way stay (`.kept`). Returns `Folded`, or `FoldedSizes` for several sizes. The model handed in
    is not changed. Raises ValueError where a batch can't be run or holds NaN, and where `to` can't be reached.
    """
    model = unwrap(model)
    shares = _shares(to)
    calls = inputs_of(batches, model, inputs, "fold")
    first = next(calls, None)
    if first is None:
        raise ValueError("fold: batches is empty; give some thousand positions of what the model takes.")
    structure = trace(model, [first[1] or first[0]], carried_states=carried_states)
    chosen = governed(model, include)
    groups = governed_units(structure, model, chosen, include)
    with quiet():
        twin = in_eval(model)
        recorder, kept = _recorded(twin, groups, chain([first], calls), positions)
        _warn_of_few(recorder, groups)
        work = Folding(twin, structure, groups, recorder, kept, ridge)
        counted = _counted(model, chosen.weights, groups, cost)
        steps = work.run(shares, _measure(groups, counted, cost), Sizes(counted, groups.count))
        made = []
        for step in steps:
            folded = work.written(copied(model), step.gone)
            change = work.change(in_eval(folded))
            made.append(_result(folded, step, change, groups, work))
    results = FoldedSizes(made)
    return results[0] if isinstance(to, (int, float)) else results


def _shares(to: float | Sequence[float]) -> list[float]:
    shares = [to] if isinstance(to, (int, float)) else list(to)
    if not shares or not all(isinstance(s, (int, float)) and 0 < s < 1 for s in shares):
        raise ValueError(f"fold: to is {to!r}, expected a share between 0 and 1, or several of them.")
    return sorted(map(float, shares), reverse=True)


def _recorded(
    model: nn.Module, groups: SliceGroups, calls: Iterable[examples.Call], positions: int
) -> tuple[SiteRecorder, list[examples.Call]]:
    """The operands of all readers over the calls, until so many positions were seen; and the first calls."""
    wanted = frozenset((m.parameter, m.axis) for m in groups.members if m.role == "outgoing")
    recorder, kept, seen = SiteRecorder(model, wanted), [], 0
    for number, call in enumerate(calls, start=1):
        with recorder:
            examples.run(model, examples.fresh(call), number)
        if not all(bool(site.moments.total[-1].isfinite().all()) for site in recorder.sites.values()):
            raise ValueError(
                f"fold: batch {number} brings NaN or infinity to the readers of the units: leave such inputs out."
            )
        if len(kept) < KEPT_BATCHES and sum(map(positions_in, kept)) < KEPT_POSITIONS:
            kept.append(examples.fresh(call))
        seen = max((site.moments.count for site in recorder.sites.values()), default=seen + positions_in(call))
        if seen >= positions:
            break
    return recorder, kept


def _warn_of_few(recorder: SiteRecorder, groups: SliceGroups) -> None:
    units = max((len(u) for u in groups.units.values()), default=0)
    seen = min((site.moments.count for site in recorder.sites.values()), default=0)
    if seen < FEW * units:
        warnings.warn(
            f"fold: {seen} positions (batch times steps) were seen for {units} units a layer; give at least "
            f"{FEW * units}, better {100 * units}.",
            stacklevel=3,
        )


Members = Mapping[str, tuple[Tensor, Tensor]]


def _counted(model: nn.Module, weights: Sequence[str], groups: SliceGroups, cost: Cost) -> Members:
    """The matrices that count, with the group of each row and column, -1: none."""
    parameters = dict(model.named_parameters())
    names = set(weights)
    if cost == "mult-adds":
        names |= set(multiplied(model, Slices(groups, parameters)))
    elif cost != "weights" and not callable(cost):
        raise ValueError(f'fold: cost is {cost!r}, expected "weights", "mult-adds" or a function of the units left.')
    found = {}
    for name in sorted(names):
        axes = [torch.full((size,), -1) for size in parameters[name].shape]
        for member in groups.members:
            if member.parameter == name:
                axes[member.axis] = torch.where(member.group >= 0, member.group, axes[member.axis])
        found[name] = (axes[0], axes[1])
    return found


def _measure(groups: SliceGroups, counted: Members, cost: Cost) -> Callable[[Tensor], float]:
    """What is left once the groups in `gone` are out, in the unit of `cost`."""

    def there(gone: Tensor, numbers: Tensor) -> int:
        return int((~torch.cat([gone, gone.new_zeros(1)])[numbers]).sum())

    if callable(cost):
        return lambda gone: float(cost({name: there(gone, units) for name, units in groups.units.items()}))
    return lambda gone: float(sum(there(gone, rows) * there(gone, columns) for rows, columns in counted.values()))


def _result(model: nn.Module, step: Step, change: float, groups: SliceGroups, work: Folding) -> Folded:
    gone = torch.cat([step.gone, torch.zeros(1, dtype=torch.bool)])
    kept: dict[str, str] = {}
    for name, units in groups.units.items():
        reasons = dict.fromkeys(why for u in units.tolist() if u >= 0 and (why := work.reasons[u]) is not None)
        if reasons:
            kept[name] = "; ".join(reasons)
    removed = {name: gone[units] for name, units in groups.units.items()}
    return Folded(model, removed, kept, step.share, step.predicted**0.5, change**0.5)
