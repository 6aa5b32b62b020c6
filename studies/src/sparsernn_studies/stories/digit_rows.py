"""The rows of the study of spoken digits, and the columns of its table."""

from __future__ import annotations

from dataclasses import dataclass

from sparsernn.runtime.held import Precision

from ..study import Row
from ..tables import Column, figure, file_size

# Each row after those that it needs.
ORDER = ("dense", "dense-longer", "sparse", "compact", "fast", "blocks", "bfloat16", "int8", "words", "direct")
COLUMNS = (
    figure("accuracy", "test_accuracy", "{:.1%}"),
    figure("units", "units"),
    figure("weights", "nonzero", "{:,}"),
    Column("file", lambda m: file_size(m["file_bytes"])),
    Column("a step reads", lambda m: file_size(m["step_bytes"])),
    figure("step", "us_step", "{:.1f} µs"),
    figure("p99", "us_step_p99", "{:.1f} µs"),
    figure("", "speedup_step", "{:.1f}x"),
    figure("real time", "real_time_factor", "{:.4f}"),
    Column("stream = file", lambda m: f"{m['stream_same_labels']:,} of {m['stream_recordings']:,}"),
)
LABELS = {
    "dense": "dense",
    "dense-longer": "dense, trained on, same teacher",
    "direct": "equal-size dense, trained directly",
    "sparse": "sparse, not compacted",
    "compact": "compact (torch)",
    "fast": "compact (sparsernn)",
    "blocks": "and 16x1 blocks (sparsernn)",
    "bfloat16": "and blocks in bfloat16",
    "int8": "and blocks in int8",
    "words": "and 16x4 words, trained in int8",
}


@dataclass(frozen=True)
class Net(Row):
    """`stored`: the row whose weights an accelerated one runs, in `precision`."""

    stored: str = ""
    precision: Precision = "float32"
