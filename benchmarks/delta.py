"""Delta streams on spoken digits: `python -m benchmarks.delta --data DIR`.

The nets of the study `spoken-digits` (dense, compact, with blocks; trained first where RUNS has none) hear the test
speaker frame by frame, in plain streams and in delta streams. Thresholds are chosen on the validation speaker: 0; the
largest with which at most one recording in a hundred has another label than in the plain stream; and the largest with
which the cross entropy rises by at most a hundredth. Bytes are of weights and indices; times are of whole recordings,
the quickest of some turns, plain and delta one after the other. In pauses: the same recordings with half a second of
their own quietest twentieth of a second before and after. Writes results/benchmarks/delta.json, with how far running
sums drift in 100,000 steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.files import write_atomically
from sparsernn.runtime import delta
from sparsernn_studies.results import surroundings
from sparsernn_studies.stories.stepping import CLOCK
from sparsernn_studies.tasks.frames import Sequences
from sparsernn_studies.tasks.log_mel import RATE
from sparsernn_studies.tasks.spoken_digits import Recording

from .digits_m4 import trained
from .measure import RESULTS, Row

NETS = ("dense", "compact", "blocks")
RISE = 0.01  # of the loss on the validation speaker
TURNS, TIMED = 9, 60  # of plain and delta; recordings that are timed
DRIFT = 100_000  # steps


def logits(stream: Any, x_TF: Tensor) -> Tensor:
    """Of each frame, (T, C)."""
    stream.reset()
    return torch.cat([stream.step(x_1F).clone() for x_1F in x_TF.split(1)])


def labels(stream: Any, frames: Sequence[Tensor]) -> list[int]:
    return [int(logits(stream, x_TF).mean(0).argmax()) for x_TF in frames]


def accuracy(found: Sequence[int], classes_N: Tensor) -> float:
    return sum(a == b for a, b in zip(found, classes_N.tolist())) / len(found)


def cross_entropy(logits_TBC: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(logits_TBC.mean(0), batch[1])


def other_label(logits_TBC: Tensor, batch: tuple[Tensor, Tensor]) -> float:
    """2 where the label is not that of the batch, else 1: a rise of the mean by 0.01 is one in a hundred."""
    return 1.0 + float(logits_TBC.mean(0).argmax(1) != batch[1])


def thresholds_by(rule: str, fast: Any, heard: Sequences) -> Any:
    if rule == "0":
        return 0.0
    targets_N = heard.classes_N if rule == "cross entropy" else torch.tensor(labels(fast.stream(), heard.frames))
    batches = [(x_TF[:, None], target_N[None]) for x_TF, target_N in zip(heard.frames, targets_N)]
    return srn.delta_thresholds(fast, batches, cross_entropy if rule == "cross entropy" else other_label, RISE)


def seconds(streams: Sequence[Any], x_TF: Tensor) -> list[float]:
    """Of one step of each stream on this recording, the quickest of some turns."""
    steps = x_TF.split(1)
    best = [float("inf")] * len(streams)
    for _ in range(TURNS):
        for n, stream in enumerate(streams):
            stream.reset()
            began = CLOCK()
            for x_1F in steps:
                stream.step(x_1F)
            best[n] = min(best[n], (CLOCK() - began) / len(steps))
    return best


def paused(recording: Recording) -> Recording:
    """Half a second of its own quietest twentieth of a second before and after it."""
    length = RATE // 20
    pieces = recording.samples_N[: len(recording.samples_N) // length * length].reshape(-1, length)
    quiet = pieces[(pieces**2).sum(1).argmin()]
    pause = np.concatenate([quiet, quiet[::-1]] * 5)  # there and back: no jumps
    return replace(recording, samples_N=np.concatenate([pause, recording.samples_N, pause]))


def compared(fast: Any, thresholds: Any, heard: Sequences) -> Row:
    """A delta stream beside the plain one on these recordings."""
    plain, stream = fast.stream(), fast.stream(delta=thresholds)
    expected, found = labels(plain, heard.frames), labels(stream, heard.frames)
    read = stream.read
    both = [seconds((plain, stream), x_TF) for x_TF in heard.frames[:: max(1, len(heard.frames) // TIMED)]]
    ratios = sorted(a / b for a, b in both)
    quarter = len(ratios) // 4
    return {
        "columns": read.columns,
        "bytes": round(read.bytes),
        "plain_bytes": read.plain,
        "fewer_bytes": read.plain / read.bytes,
        "accuracy": accuracy(found, heard.classes_N),
        "plain_accuracy": accuracy(expected, heard.classes_N),
        "same_labels": sum(a == b for a, b in zip(found, expected)),
        "recordings": len(found),
        "us_step": 1e6 * median(b for _, b in both),
        "plain_us_step": 1e6 * median(a for a, _ in both),
        "faster": median(ratios),
        "spread": (ratios[-1 - quarter] - ratios[quarter]) / median(ratios),
    }


def drift() -> list[Row]:
    """Largest error of a running sum in float32, of the largest sum, at threshold 0: all columns move in all steps."""
    torch.manual_seed(0)
    fast, found = srn.accelerate(nn.GRU(40, 128).eval()), []
    period = delta.REFRESH
    for every in (period, None):
        delta.REFRESH = every or 10 * DRIFT
        stream, generator, worst = fast.stream(delta=0.0), torch.Generator().manual_seed(0), 0.0
        for step in range(1, DRIFT + 1):
            x_1F = torch.randn(1, 40, generator=generator)
            stream.step(x_1F)
            if step % 4999 == 0 or step == DRIFT:
                fresh = fast.stream(delta=0.0)
                fresh.step(x_1F)
                a, b = (s.state[1][0].double()[0, : 4 * 128] for s in (stream, fresh))
                worst = max(worst, float((a - b).abs().max() / b.abs().max()))
        found.append({"made_anew_every": every, "steps": DRIFT, "relative_error": worst})
    delta.REFRESH = period
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delta", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with data sets; SPARSERNN_DATA otherwise")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default runs)")
    parser.add_argument("--seed", type=int, default=0, help="of the study: who is tested (default 0)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = trained(chosen.runs, chosen.seed, chosen.data)
    valid, test = study.sounds.valid, study.sounds.test
    quiet = study.sounds.heard([paused(recording) for recording in study.sounds.split.test])
    rows: list[Row] = []
    with torch.no_grad():
        for name in NETS:
            fast = srn.accelerate(study.stored(name))
            for rule in ("0", "labels", "cross entropy"):
                thresholds = thresholds_by(rule, fast, valid)
                before = accuracy(labels(fast.stream(), valid.frames), valid.classes_N)
                after = accuracy(labels(fast.stream(delta=thresholds), valid.frames), valid.classes_N)
                for sounds, heard in (("recordings", test), ("in pauses", quiet)):
                    row = {"work": name, "sounds": sounds, "thresholds": rule, **compared(fast, thresholds, heard)}
                    rows.append({**row, "valid_accuracy": after, "plain_valid_accuracy": before})
                    print(json.dumps(rows[-1]), flush=True)
        content = {"name": "delta", "clock": CLOCK.__name__, "seed": chosen.seed, "rows": rows, "drift": drift()}
    write_atomically(RESULTS / "delta.json", json.dumps(content | surroundings(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
