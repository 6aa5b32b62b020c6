"""What `trace` has to say beside the units: what was not reached, and why nothing was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from .channels import Reason
from .refusals import unreadable
from .structure import Structure

# What to do about a cell of one's own; said by every function that goes by declared cells.
DECLARE = (
    'register_cell names its gates and lets include="recurrent" govern its weights; include="all" governs its units'
)


def undeclared_cells(
    looped: Mapping[int, tuple[str, str]], names: Sequence[str], found: Sequence[str], lost: Sequence[Reason]
) -> list[str]:
    """A note on cells without a declaration: those that were found, or else weights that meet their own results."""
    if found:
        return [f"{', '.join(found)}: a cell without a declaration; {DECLARE}"]
    if not looped:
        return []
    which = ", ".join(names[number] for number in list(looped)[:3])
    operation, where = next(iter(looped.values()))
    why = f": {lost[0].text} ({lost[0].operation} at {lost[0].where})" if lost else ""
    return [
        f"{which}: what they compute comes back to them ({operation} at {where}), but no unit there can be followed, "
        f"so all stay{why}; gates of a cell of your own are declared with register_cell"
    ]


def why_none(model: nn.Module, structure: Structure) -> str:
    lost = structure.remarks
    name = type(model).__name__
    if lost:
        return (
            f"{name} has no recurrent layer that can be followed: {lost[0]}.\n"
            "If a class of its modules is a recurrent cell, declare its gates with register_cell."
        )
    instead = unreadable(model)
    if instead:
        return f"{name} has no recurrent layer that can be seen.\n{instead}"
    return (
        f"{name} has no recurrent layer: expected torch.nn.LSTM, GRU, RNN, a cell, or a hand-written cell whose value "
        "feeds back into itself.\n"
        "A cell that is not recognised (a scan without a loop, say) is declared with register_cell."
    )


def unused_modules(model: nn.Module, untouched: tuple[str, ...]) -> list[str]:
    """Leaf modules none of whose own parameters was used."""
    unused = set(untouched)
    found = []
    for path, module in model.named_modules():
        own = [f"{path}.{n}" if path else n for n, _ in module.named_parameters(recurse=False)]
        if own and all(n in unused for n in own):
            found += [path] if path else own
    return found
