"""The report of one inspection: numbers, a table in the terminal, figures, and one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import words
from .snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderableType


class Report:
    """What `inspect` returns. `print(report)` shows the verdict, the layers and the reasons."""

    def __init__(self, snapshot: Snapshot, source: tuple[Any, Any] | None = None) -> None:
        self.snapshot = snapshot
        self._source = source

    @property
    def verdict(self) -> str:
        """One or two sentences: what can go, and what that saves."""
        found = self.snapshot
        units = found.units
        size, dead = sum(u.size for u in units), sum(u.dead for u in units)
        constant = sum(layer.constant_gates for layer in found.layers)
        gates = f" {words.plural(constant, 'gate')} of the units that stay are constant." if constant else ""
        if not dead:
            free = sum(u.free for u in units)
            can = f"{free:,} may go once all that reads them is zero" if free else "none of them may go"
            return (
                f"No unit of {words.plural(size, 'unit')} can be removed yet: {can}, "
                f"{words.percent(found.now.density)} of the weights are not zero.{gates}"
            )
        now, compact = found.now, found.compact
        return (
            f"{dead:,} of {words.plural(size, 'unit')} can go: {words.count(now.parameters)} → "
            f"{words.count(compact.parameters)} parameters, {words.times(_ratio(now.mult_adds, compact.mult_adds))} "
            f"fewer multiply-adds a time step.{gates}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, ready for JSON, by the names that the report shows."""
        found = self.snapshot
        return {
            "model": found.model,
            "verdict": self.verdict,
            "now": found.now.to_dict(),
            "compact": found.compact.to_dict(),
            "layers": [layer.to_dict() for layer in found.layers],
            "kept": [reason.to_dict() for reason in found.kept],
            "notes": list(found.notes),
            **({"footprint": dict(found.footprint)} if found.footprint else {}),
        }

    def gradient_lag(self, lags: int = 50, *, units: int = 32, sequences: int = 4) -> dict[str, Any]:
        """How long each kind of unit remembers: see `sparsernn.analysis.gradient_lag.gradient_lag`."""
        from .gradient_lag import gradient_lag

        if self._source is None:
            raise ValueError(
                "gradient_lag: this report has no model to run. Call sparsernn.inspect(model, example_inputs)."
            )
        model, example_inputs = self._source
        return gradient_lag(
            model, example_inputs, self.snapshot.recurrent, self.snapshot.kinds, lags, units=units, sequences=sequences
        )

    def plot_weights(self, *, sort: bool = False) -> Figure:
        """The weight matrices, non-zeros dark, dead units as white strips (Wen, arXiv 1709.05027, figures 4 and 5).

        Rows are inputs and hidden units, columns the units gate by gate. `sort` moves units of one kind together,
        the dead ones to the end.
        """
        from .plots import weights_figure

        return weights_figure(self.snapshot, sort=sort)

    def plot_groups(self) -> Figure:
        """Histogram of the 2-norms of the unit groups (Wen, arXiv 1709.05027, appendix C)."""
        from .plots import groups_figure

        return groups_figure(self.snapshot)

    def plot_gates(self) -> Figure:
        """For each unit which gates are alive, units sorted by kind, with the number of each kind."""
        from .plots import gates_figure

        return gates_figure(self.snapshot)

    def plot_gradient_lag(self, lags: int = 50, *, units: int = 32, sequences: int = 4) -> Figure:
        """Norm of the gradient of h_t with respect to the input `lag` steps before, by kind of unit."""
        from .plots import lag_figure

        return lag_figure(self.gradient_lag(lags, units=units, sequences=sequences))

    def html(
        self,
        path: str | Path,
        *,
        title: str | None = None,
        verdict: str | None = None,
        command: str | None = None,
        runs: Sequence[Mapping[str, Any]] = (),
        layer_times: Mapping[str, Mapping[str, float]] | None = None,
        gradient_lag: Mapping[str, Any] | None = None,
        history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
        benchmark: Sequence[Mapping[str, Any]] = (),
        checks: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        figures: Sequence[tuple[Figure, str]] = (),
        sweep: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the report as one file that needs no network and no script; return its path.

        A section appears when its data is given:

        - `verdict` replaces the sentence on top, `command` is what repeats the run.
        - `runs`: rows of a results table, `{"row", "measured": {metric: number}, "paper": {...}, "seed"}`; rows of one
          name and several seeds are averaged. The dense net of equal size and the paper's rows belong here.
        - `layer_times`: layer -> {"before": ms, "after": ms} for one batch.
        - `gradient_lag`: what `gradient_lag()` returned.
        - `history`: series by name, of equal length: "step", "loss", "valid", "kept", "target", "strength", "rate";
          or a list of such rows.
        - `benchmark`: rows such as `{"work", "against", "ratio", "spread", "max_error"}`.
        - `checks`: name -> result, or rows.
        - `figures`: more figures of matplotlib, each with a description.
        - `sweep`: `{"trials": [{"number", "settings": {name: value}, "state", "quality", "size"}], "quality": metric,
          "more": whether more of it is better, "size": metric, "log": names of settings on a logarithmic scale}`.

        The write is atomic. Raises ValueError for data of another form and FileNotFoundError for a missing folder.
        """
        from .page import Extras, write_page

        extras = Extras.read(
            title=title,
            verdict=verdict,
            command=command,
            runs=runs,
            layer_times=layer_times,
            gradient_lag=gradient_lag,
            history=history,
            benchmark=benchmark,
            checks=checks,
            figures=figures,
            sweep=sweep,
        )
        return write_page(Path(path), self.snapshot, self.verdict, extras)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from .terminal import render

        yield render(self.snapshot, self.verdict, options.max_width)

    def __str__(self) -> str:
        from .terminal import plain_text

        return plain_text(self.snapshot, self.verdict)

    __repr__ = __str__


def _ratio(before: float, after: float) -> float:
    return before / after if after else float("inf")
