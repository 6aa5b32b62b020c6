"""What `fold` gives back: models of one or several sizes, with what went and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn


@dataclass(frozen=True)
class Folded:
    """What `fold` made.

    `model`: a new model of the same widths, the units that went read by nothing, and `compact` takes them out; or with
    zeros at the weights that went. `removed`: unit set -> bool (size,), with those that nothing read before; or
    parameter -> bool of its shape. `kept`: unit set or parameter -> why nothing or not all of it could be folded.
    `share`: of the governed weights (or of the cost) that is left. `predicted`, `measured`: root mean squared change of
    the outputs, in shares of their own root mean square about their means (about zero if they are constant); measured
    on the first batches, from the same random numbers. NaN where the model gives no finite real numbers.
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
        single = all(gone.dim() == 1 for f in self for gone in f.removed.values())
        table = Table("share kept", "units left" if single else "weights left", "predicted change", "measured change")
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
