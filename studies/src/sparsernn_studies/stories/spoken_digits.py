"""Spoken digits: from a dense GRU to a small one that listens frame by frame, tested on speakers it never heard.

Eight rows: *dense*, two GRU layers on log-mel features; *direct*, a dense net of as many weights as the blocks leave,
trained directly; *sparse*, the dense net after group lasso with a target, not compacted; *compact*, the same function
as smaller GRUs; *fast*, that on sparsernn's kernels; *blocks*, that with a share of its 16x1 blocks pruned in some more
steps; *bfloat16* and *int8*, those blocks in that precision. The label is the class of the mean of the frames' logits,
which a stream knows at every frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsernn.analysis.sparsity import inspect

from ..data import DataError
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..settings import SettingsError
from ..tables import Column, figure, file_size, rich_table
from ..tasks.log_mel import RATE, WINDOW
from ..tasks.spoken_digits import WORDS
from ..tasks.wav import read_wav_file, resampled
from .digit_rows import FAST, ROWS, SpokenDigits
from .digit_settings import SMOKE, Settings
from .listening import HOP_SECONDS, Listener, settling

COLUMNS = (
    figure("accuracy", "test_accuracy", "{:.1%}"),
    figure("units", "units"),
    figure("weights", "nonzero", "{:,}"),
    Column("a step reads", lambda m: file_size(m["step_bytes"])),
    figure("step", "us_step", "{:.1f} µs"),
    figure("p99", "us_step_p99", "{:.1f} µs"),
    figure("", "speedup_step", "{:.1f}x"),
    figure("real time", "real_time_factor", "{:.4f}"),
    Column("stream = file", lambda m: f"{m['stream_same_labels']:,} of {m['stream_recordings']:,}"),
)


def _make(run: Run) -> tuple[SpokenDigits, dict[str, Result]]:
    work = SpokenDigits(run)
    order = ("dense", "sparse", "compact", "fast", "blocks", "bfloat16", "int8", "direct")  # each needs those before it
    made = {row: run.row(row, getattr(work, row)) for row in order}
    return work, {row: made[row] for row in ROWS}


def _show(run: Run, work: SpokenDigits, rows: Mapping[str, Result]) -> None:
    s: Settings = run.settings
    measured = {row: result.measured for row, result in rows.items()}
    speaker = work.split.test[0].speaker
    run.console.print()
    run.console.print(
        rich_table(
            f"Spoken digits, tested on {speaker}, whom no net has heard",
            COLUMNS,
            {ROWS[row]: result for row, result in rows.items()},
            f"One thread, batch 1, {s.bench_recordings} recordings frame by frame; torch's rows the faster of GRU and "
            f"GRUCell; real time: model and features ({measured['dense']['us_features']:.0f} µs) over the 10 ms of a "
            "frame.",
        )
    )
    run.console.print(_verdict(measured))


def _verdict(rows: Mapping[str, Mapping[str, Any]]) -> str:
    dense, small, last = rows["dense"], rows["blocks"], rows["int8"]
    return (
        f"{small['nonzero'] / dense['weights']:.0%} of the weights: accuracy {dense['test_accuracy']:.1%} → "
        f"{small['test_accuracy']:.1%}; in int8 {last['test_accuracy']:.1%}, and a step is {last['speedup_step']:.1f}x "
        "faster on this CPU, one thread."
    )


def run(run: Run) -> None:
    """Make the rows, time them, show the table and write the report."""
    work, made = _make(run)
    _show(run, work, work.timed(made))
    run.console.print(f"Report: {report(run)}")


def bench(run: Run) -> None:
    """Time the models of a finished run anew and show the table."""
    work, made = _make(run)
    _show(run, work, work.timed(made))


def report(run: Run) -> Path:
    """Write report.html in the run's folder and return its path."""
    work, rows = _make(run)
    if any("us_step" not in result.measured for result in rows.values()):
        rows = work.timed(rows)
    measured = {row: dict(result.measured) for row, result in rows.items()}
    path = run.folder / "report.html"
    inspect(work.load("sparse"), work.example_inputs).html(
        path,
        title="Spoken digits",
        verdict=_verdict(measured),
        command=run.command,
        runs=[{**row, "row": ROWS[row["row"]]} for row in as_rows(list(rows.values()))],
        history=work.history(),
        benchmark=[
            {
                "work": f"{ROWS[row]}, one frame",
                "against": "dense, torch",
                "ratio": figures["speedup_step"],
                "spread": figures["spread_step"],
            }
            for row, figures in measured.items()
            if row != "dense"
        ],
        checks={
            **{
                f"{ROWS[row]}: labels of the stream that are those of the whole file": (
                    f"{measured[row]['stream_same_labels']} of {measured[row]['stream_recordings']}"
                )
                for row in FAST
            },
            "seed": run.seed,
            **rows["dense"].versions,
        },
    )
    return path


def loaded(run: Run) -> Loaded:
    """The models of a finished run."""
    work = SpokenDigits(run)
    return Loaded({row: work.load(row) for row in ROWS}, work.example_inputs, "sparse")


def listen(run: Run, file: Path, row: str | None = None) -> None:
    """Stream the WAV file through the model of a finished run and show its label as it settles.

    Raises SettingsError for a row that does not stream, DataError for a file that is no WAV file or shorter than a
    frame.
    """
    chosen = "int8" if row is None else row
    if chosen not in FAST:
        raise SettingsError(f"--row {chosen}: expected one of the rows that stream, {', '.join(FAST)}.")
    work = SpokenDigits(run)
    sound = resampled(read_wav_file(file), RATE)
    if len(sound.samples_N) < WINDOW:
        raise DataError(
            f"{file} lasts {1e3 * sound.seconds:.0f} ms, expected at least one frame of {1e3 * WINDOW / RATE:.0f} ms."
        )
    listener = Listener(work.load(chosen).stream(batch=1), work.scale)  # type: ignore[operator]
    show = run.console.print
    label = -1
    for seconds, label, share in settling(listener, sound.samples_N):
        show(f"{seconds:6.2f} s  {WORDS[label]} ({share:.0%})", highlight=False)
    times = sorted(listener.frame_seconds)
    p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    show(
        f"{WORDS[label]} ({float(listener.shares_C[label]):.0%}), {sound.seconds:.2f} s heard by {ROWS[chosen]!r}; "
        f"a frame takes {1e6 * p50:.0f} µs (p50), {1e6 * p99:.0f} µs (p99) of {1e3 * HOP_SECONDS:.0f} ms: "
        f"real-time factor {sum(times) / sound.seconds:.4f}.",
        highlight=False,
    )


RECIPE = Recipe(
    name="spoken-digits",
    summary="A GRU on spoken digits, speakers held out: dense, sparse by target, compact, blocks, streamed.",
    scales={"smoke": SMOKE, "cpu": Settings()},
    minutes={"smoke": "seconds", "cpu": "about 5 minutes"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    listen=listen,
    columns=COLUMNS,
    judge=Judge("test_accuracy", more=True, rows="blocks"),
    labels=ROWS,
)
