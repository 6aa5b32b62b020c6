"""Spoken digits: from a dense GRU to a small one that listens frame by frame, tested on speakers it never heard.

Ten rows: *dense*, two GRU layers on log-mel features; *dense-longer*, that net trained on with itself as teacher for
as many steps as *sparse* and *blocks* have; *direct*, a dense net of as many weights as the blocks leave, trained
directly; *sparse*, the dense net shrunk to a target, not compacted; *compact*, the same function as smaller GRUs;
*fast*, that on sparsernn's kernels; *blocks*, that with a share of its 16x1 blocks pruned in some more steps;
*bfloat16* and *int8*, those blocks in that precision; *words*, as many words of 16x4 weights pruned instead, in a
training that sees the rounding of int8, and run in it. The label is the class of the mean of the frames' logits,
which a stream knows at every frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.learn.paths.top_k import TopK
from sparsernn.learn.prune import Prune
from sparsernn.learn.quantise_aware import quantise_aware
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import save
from sparsernn.surgery.compact import compact

from ..claims import Measured
from ..data import DataError
from ..models import FrameClassifier
from ..results import Result, sizes
from ..scores import as_recorded
from ..settings import SettingsError
from ..study import Judge, Loaded, Study
from ..tasks import spoken_digits
from ..tasks.frames import Distillation, FrameClassification, Sequences, accuracy
from ..tasks.log_mel import MELS, RATE, WINDOW
from ..tasks.spoken_digits import WORDS
from ..tasks.wav import read_wav_file, resampled
from ..together import Together
from ..train import Training
from .claims import OF_DIGITS
from .digit_rows import COLUMNS, LABELS, ORDER, Net
from .digit_settings import SMOKE, Settings
from .listening import (
    HOP_SECONDS,
    Listener,
    accuracy_in_int8,
    file_bytes,
    same_labels,
    settling,
    step_bytes,
    time_frames,
)
from .sounds import Sounds, scale_in

PRUNED: Mapping[str, Literal["block", "word"]] = {"blocks": "block", "words": "word"}  # rows -> what goes


class SpokenDigits(Study[Settings, Net]):
    name = "spoken-digits"
    summary = "A GRU on spoken digits, speakers held out: dense, sparse by target, compact, blocks, streamed."
    title = "Spoken digits"
    caption = (
        "One thread, batch 1, {bench_recordings} recordings frame by frame; torch's rows the faster of GRU and "
        "GRUCell; real time: model and features over the 10 ms of a frame."
    )
    scales: ClassVar = {"smoke": SMOKE, "cpu": Settings()}
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 5 minutes"}
    columns = COLUMNS
    labels = LABELS
    judge = Judge("test_accuracy", more=True, rows="blocks")
    timing = "us_step"
    made_in_order = ORDER
    claims = OF_DIGITS

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        torchs = [Net(name) for name in ("dense", "dense-longer", "direct", "sparse", "compact")]
        fast = [Net("blocks", "blocks"), Net("bfloat16", "blocks", "bfloat16"), Net("int8", "blocks", "int8")]
        return [*torchs, Net("fast", "compact"), *fast, Net("words", "words", "int8")]

    @property
    def shown(self) -> Net:
        return self.named("sparse")

    @cached_property
    def sounds(self) -> Sounds:
        recordings = spoken_digits.made() if self.settings.made else spoken_digits.load(self.run.data)
        return Sounds(recordings, self.run.seed, self.run.folder / "features.json")

    @cached_property
    def learnt(self) -> list[Sequences]:
        return self.sounds.training(self.settings.variants)

    @cached_property
    def example_inputs(self) -> Tensor:
        """Something to trace with, of the features' size: known before any recording is."""
        return torch.randn(30, 4, MELS, generator=torch.Generator().manual_seed(self.run.seed))

    def model(self, row: Net) -> FrameClassifier:
        s = self.settings
        torch.manual_seed(self.run.seed)
        widths = self.small_widths if row.name == "direct" else (s.hidden, s.hidden)
        return FrameClassifier(MELS, widths, len(WORDS), s.dropout if row.name == "dense" else s.small_dropout)

    def start(self, row: Net) -> FrameClassifier:
        if row.name in PRUNED:
            return self.stored("compact")
        model = self.model(row)
        if row == self.shown or row.name == "dense-longer":
            model.load_state_dict(self.stored("dense").state_dict())
        return model

    @property
    def small_widths(self) -> tuple[int, ...]:
        """Units of each layer of a net that has as many weights as the blocks leave, shaped like the compact one."""
        blocks = self.stored("blocks")
        shape = [layer.hidden_size for layer in blocks.layers]
        left = sizes(blocks)["nonzero"]
        nets = {tuple(max(1, round(share / 100 * width)) for width in shape) for share in range(1, 101)}
        return min(sorted(nets), key=lambda widths: abs(_weights(widths) - left))

    def objective(self, row: Net) -> FrameClassification:
        """The digit; all but the dense net have the dense one as teacher."""
        s = self.settings
        plain = FrameClassification(self.learnt, s.batch, self.run.seed, s.masked)
        if row.name == "dense" or not s.taught:
            return plain
        return Distillation(**vars(plain), teacher=self.stored("dense"), share=s.taught)

    def training(self, row: Net) -> Training:
        s = self.settings
        if row.name in PRUNED:  # a short training with a rate of its own
            return Training(s.block_steps, s.block_rate, min(s.warm_up, s.block_steps // 10))
        plain = Training(s.steps, s.learning_rate, s.warm_up, weight_decay=s.weight_decay)
        if row == self.shown:
            return replace(plain, learning_rate=s.sparse_rate)
        if row.name == "dense-longer":
            return replace(plain, learning_rate=s.sparse_rate, steps=s.steps + s.block_steps)
        # The equal-size net takes as many steps as dense, sparse and blocks have together.
        return replace(plain, steps=2 * s.steps + s.block_steps) if row.name == "direct" else plain

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.example_inputs
        if row == self.shown:
            path = TopK(begin=s.ramp_begin, end=s.ramp_end, freeze=s.freeze)
            return lambda model: Shrink(model, x, to=s.target, steps=s.steps, path=path, score=as_recorded())
        if level := PRUNED.get(row.name):
            end = max(2, s.block_steps // 2)
            gradual = Gradual(begin=1, end=end, every=max(1, end // 20))

            def prune(model: nn.Module) -> Sparsifier:
                pruned = Prune(model, x, s.block_sparsity, level=level, schedule=gradual)
                return pruned if level == "block" else Together(pruned, quantise_aware(model, x))

            return prune
        return None

    def make(self, row: Net) -> Mapping[str, Any]:
        if row.name == "compact":
            save(compact(self.load(self.shown), self.example_inputs), self.file(row))
        elif not row.stored or row.name in PRUNED:
            return super().make(row)
        return self.measure(row, None)

    def measure(self, row: Net, model: Any) -> dict[str, Any]:
        """The figures of the row's net as it runs; of one that streams also on how many of all recordings its labels
        are those of whole files."""
        model = self.load(row)
        stored: Any = self.stored(row.stored) if row.stored else model
        found = {
            "test_accuracy": accuracy(model, self.sounds.test),
            "valid_accuracy": accuracy(model, self.sounds.valid),
            "units": [layer.hidden_size for layer in stored.layers],
            **sizes(stored),
            "step_bytes": step_bytes(model),
            "file_bytes": file_bytes(model),
        }
        if row.precision == "int8":  # inputs rounded as well, whatever this processor can multiply
            found["test_accuracy_int8"] = accuracy_in_int8(stored, self.sounds.test, self.example_inputs)
        if row.stored:
            every = self.sounds.all
            found |= {"stream_recordings": len(every.frames), "stream_same_labels": same_labels(model, every)}
        return found

    def stored(self, name: str) -> Any:
        """The net of a row as torch runs it."""
        return super().load(self.named(name))

    def load(self, row: Net, kind: str = "") -> Any:
        if not row.stored:
            return super().load(row)
        with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
            warnings.simplefilter("ignore", RuntimeWarning)
            return accelerate(self.stored(row.stored), precision=row.precision)

    @property
    def timed_rows(self) -> list[Net]:
        """All but the control, which takes the times of the dense net."""
        return [row for row in self.rows if row.name != "dense-longer"]

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of a frame added."""
        count = self.settings.bench_recordings
        models = {row.name: self.load(row) for row in self.timed_rows}
        step = max(1, len(self.sounds.test.frames) // count)
        heard = [r.samples_N for r in self.sounds.split.test[::step][:count]]
        frames = self.sounds.test.frames[::step][:count]
        found = time_frames(models, frames, heard, scale_in(self.sounds.kept))
        return {row: self.run.add(result, found.get(row, {})) for row, result in rows.items()}

    def show(self, rows: Mapping[str, Result]) -> None:
        super().show(rows)
        self.run.console.print(f"Tested on {self.sounds.split.test[0].speaker}, who was left out of training.")

    def verdict(self, measured: Measured) -> str:
        dense, small, last = measured["dense"], measured["blocks"], measured["int8"]
        return (
            f"{small['nonzero'] / dense['weights']:.0%} of the weights: accuracy {dense['test_accuracy']:.1%} → "
            f"{small['test_accuracy']:.1%}; in int8 {last['test_accuracy']:.1%}, and a step is "
            f"{last['speedup_step']:.1f}x faster on this CPU, one thread."
        )

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        measured = {self.labels[row]: result.measured for row, result in rows.items()}
        return {
            "benchmark": [
                {
                    "work": f"{label}, one frame",
                    "against": "dense, torch",
                    "ratio": figures["speedup_step"],
                    "spread": figures["spread_step"],
                }
                for label, figures in measured.items()
                if label != self.labels["dense"] and "speedup_step" in figures
            ],
            "checks": {
                **{
                    f"{label}: labels of the stream that are those of the whole file": (
                        f"{figures['stream_same_labels']} of {figures['stream_recordings']}"
                    )
                    for label, figures in measured.items()
                    if "stream_recordings" in figures
                },
                "seed": self.run.seed,
                **rows["dense"].versions,
            },
        }

    def loaded(self) -> Loaded:
        return Loaded({row.name: self.load(row) for row in self.rows}, self.example_inputs, self.shown.name)

    def listen(self, file: Path, row: str | None = None) -> None:
        """Stream the WAV file through the model of a finished run and show its label as it settles.

        Raises SettingsError for a row that does not stream, DataError for a file that is no WAV file or shorter than a
        frame.
        """
        able = [each.name for each in self.rows if each.stored]
        if (row or "int8") not in able:
            raise SettingsError(f"--row {row}: expected one of the rows that stream, {', '.join(able)}.")
        chosen = self.named(row or "int8")
        sound = resampled(read_wav_file(file), RATE)
        if len(sound.samples_N) < WINDOW:
            raise DataError(
                f"{file} lasts {1e3 * sound.seconds:.0f} ms, expected at least one frame of "
                f"{1e3 * WINDOW / RATE:.0f} ms."
            )
        listener = Listener(self.load(chosen).stream(batch=1), scale_in(self.sounds.kept))
        show = self.run.console.print
        label = -1
        for seconds, label, share in settling(listener, sound.samples_N):
            show(f"{seconds:6.2f} s  {WORDS[label]} ({share:.0%})", highlight=False)
        times = sorted(listener.frame_seconds)
        p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
        show(
            f"{WORDS[label]} ({float(listener.shares_C[label]):.0%}), {sound.seconds:.2f} s heard by "
            f"{self.labels[chosen.name]!r}; a frame takes {1e6 * p50:.0f} µs (p50), {1e6 * p99:.0f} µs (p99) "
            f"of {1e3 * HOP_SECONDS:.0f} ms: "
            f"real-time factor {sum(times) / sound.seconds:.4f}.",
            highlight=False,
        )


def _weights(widths: Sequence[int]) -> int:
    """Weights in the matrices of a net of these layers."""
    inputs = (MELS, *widths)
    return sum(3 * o * (i + o) for i, o in zip(inputs, widths)) + len(WORDS) * widths[-1]
