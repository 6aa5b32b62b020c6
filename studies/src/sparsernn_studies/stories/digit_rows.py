"""The rows of the spoken digits table: how each model is made, measured, loaded and timed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsernn.files import write_atomically
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.learn.target import Ramp
from sparsernn.runtime.costs import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact

from .. import checkpoint
from ..models import FrameClassifier
from ..results import Result, sizes
from ..runs import Run, RunError
from ..scores import as_recorded
from ..tasks import spoken_digits
from ..tasks.augment import augmented
from ..tasks.frames import Distillation, FrameClassification, Sequences, accuracy
from ..tasks.log_mel import MELS, Scale, features, frames_of, levelled, log_mel, scale_of
from ..tasks.spoken_digits import Recording, Split
from ..train import Training, train
from .digit_settings import Settings
from .listening import same_labels, step_bytes, time_frames

ROWS = {
    "dense": "dense",
    "direct": "equal-size dense, trained directly",
    "sparse": "sparse, not compacted",
    "compact": "compact (torch)",
    "fast": "compact (sparsernn)",
    "blocks": "and 16x1 blocks (sparsernn)",
    "bfloat16": "and blocks in bfloat16",
    "int8": "and blocks in int8",
}
FAST: dict[str, tuple[str, Precision]] = {  # row -> whose weights it runs, and in which precision
    "fast": ("compact", "float32"),
    "blocks": ("blocks", "float32"),
    "bfloat16": ("blocks", "bfloat16"),
    "int8": ("blocks", "int8"),
}


class SpokenDigits:
    """The rows, each made from what the rows before left in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings
        self.folder: Path = run.folder
        torch.set_num_threads(self.settings.threads or torch.get_num_threads())

    @cached_property
    def recordings(self) -> list[Recording]:
        return spoken_digits.made() if self.settings.made else spoken_digits.load(self.run.data)

    @cached_property
    def split(self) -> Split:
        return spoken_digits.split(self.recordings, self.run.seed)

    @cached_property
    def training(self) -> list[Sequences]:
        """The training recordings as they are, and in their augmented forms."""
        generator = np.random.default_rng(self.run.seed)
        forms = [[levelled(log_mel(frames_of(r.samples_N)))[0] for r in self.split.train]]
        for _ in range(self.settings.variants):
            forms.append([augmented(r.samples_N, generator) for r in self.split.train])
        scale = scale_of(np.concatenate([frames for form in forms for frames in form]))
        write_atomically(self._scale_file, json.dumps(asdict(scale)) + "\n")
        return [
            Sequences([torch.from_numpy(scale.apply(frames)) for frames in form], _classes(self.split.train))
            for form in forms
        ]

    @property
    def _scale_file(self) -> Path:
        return self.folder / "features.json"

    @property
    def scale(self) -> Scale:
        """Mean and deviation of the training features, as the run's folder keeps them."""
        if not self._scale_file.is_file():
            raise RunError(f"{self._scale_file} is missing, so nothing can be heard: run the recipe again.")
        try:
            content = json.loads(self._scale_file.read_text(encoding="utf-8"))
            return Scale(tuple(content["mean"]), tuple(content["deviation"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self._scale_file} cannot be read ({error}); delete it and run the recipe again."
            ) from None

    def heard(self, recordings: Sequence[Recording]) -> Sequences:
        """Features of whole recordings."""
        frames = [torch.from_numpy(features(r.samples_N, self.scale)) for r in recordings]
        return Sequences(frames, _classes(recordings))

    @cached_property
    def test(self) -> Sequences:
        return self.heard(self.split.test)

    @cached_property
    def valid(self) -> Sequences:
        return self.heard(self.split.valid)

    @cached_property
    def all(self) -> Sequences:
        parts = [self.test, self.valid, self.heard(self.split.train)]
        return Sequences([x for part in parts for x in part.frames], torch.cat([part.classes_N for part in parts]))

    @cached_property
    def example_inputs(self) -> Tensor:
        """Something to trace with, of the features' size: known before any recording is."""
        return torch.randn(30, 4, MELS, generator=torch.Generator().manual_seed(self.run.seed))

    def model(self, row: str) -> FrameClassifier:
        """The untrained net of `row`."""
        s = self.settings
        torch.manual_seed(self.run.seed)
        widths = self.small_widths if row == "direct" else (s.hidden, s.hidden)
        dropout = s.dropout if row == "dense" else s.small_dropout
        return FrameClassifier(MELS, widths, len(spoken_digits.WORDS), dropout)

    def file(self, row: str) -> Path:
        return self.folder / f"{row}.safetensors"

    def _train(
        self,
        row: str,
        model: nn.Module,
        settings: Training,
        sparsify: Callable[[nn.Module], Sparsifier] | None = None,
    ) -> float:
        """Train and save `model`, all but the dense one with the dense one as teacher; the seconds that it took."""
        s = self.settings
        objective = FrameClassification(self.training, s.batch, self.run.seed, s.masked)
        if row != "dense" and s.taught:
            objective = Distillation(**vars(objective), teacher=self.load("dense"), share=s.taught)
        history = train(
            model, objective, settings, name=row, seed=self.run.seed, sparsify=sparsify, folder=self.folder / row
        )
        save(model.eval(), self.file(row))
        return round(history.seconds, 1)

    def measure(self, row: str) -> dict[str, Any]:
        model = self.load(row)
        stored = self.load(FAST[row][0]) if row in FAST else model
        return {
            "test_accuracy": accuracy(model, self.test),
            "valid_accuracy": accuracy(model, self.valid),
            "units": [layer.hidden_size for layer in stored.layers],  # type: ignore[union-attr]
            **sizes(stored),
            "step_bytes": step_bytes(model),
        }

    def dense(self) -> Mapping[str, Any]:
        seconds = self._train("dense", self.model("dense"), self.settings.training())
        return {**self.measure("dense"), "train_seconds": seconds}

    def sparse(self) -> Mapping[str, Any]:
        s = self.settings

        def sparsify(model: nn.Module) -> Sparsifier:
            ramp = Ramp(begin=s.ramp_begin, end=s.ramp_end, freeze=s.freeze)
            return GroupLasso(
                model, self.example_inputs, target=s.target, steps=s.steps, ramp=ramp, score=as_recorded()
            )

        model = self.model("sparse")
        model.load_state_dict(self.load("dense").state_dict())
        seconds = self._train("sparse", model, s.thinning(), sparsify)
        return {**self.measure("sparse"), "train_seconds": seconds}

    def compact(self) -> Mapping[str, Any]:
        save(compact(self.load("sparse"), self.example_inputs), self.file("compact"))
        return self.measure("compact")

    def direct(self) -> Mapping[str, Any]:
        seconds = self._train("direct", self.model("direct"), self.settings.direct())
        return {**self.measure("direct"), "train_seconds": seconds}

    @property
    def small_widths(self) -> tuple[int, ...]:
        """Units of each layer of a net that has as many weights as the blocks leave, shaped like the compact one."""
        blocks = self._stored("blocks")
        shape = [layer.hidden_size for layer in blocks.layers]  # type: ignore[union-attr]
        left = sizes(blocks)["nonzero"]
        nets = {tuple(max(1, round(share / 100 * width)) for width in shape) for share in range(1, 101)}
        return min(sorted(nets), key=lambda widths: abs(_weights(widths) - left))

    def blocks(self) -> Mapping[str, Any]:
        s = self.settings
        end = max(2, s.block_steps // 2)
        ramp = Gradual(begin=1, end=end, every=max(1, end // 20))

        def sparsify(model: nn.Module) -> Sparsifier:
            return Prune(model, self.example_inputs, s.block_sparsity, level="block", schedule=ramp)

        seconds = self._train("blocks", self.load("compact"), s.pruning(), sparsify)
        return {**self._streamed("blocks"), "train_seconds": seconds}

    def fast(self) -> Mapping[str, Any]:
        return self._streamed("fast")

    def bfloat16(self) -> Mapping[str, Any]:
        return self._streamed("bfloat16")

    def int8(self) -> Mapping[str, Any]:
        return self._streamed("int8")

    def _streamed(self, row: str) -> dict[str, Any]:
        """The figures of a row that streams, and on how many of all recordings its labels are those of whole files."""
        same = same_labels(self.load(row), self.all)
        return {**self.measure(row), "stream_recordings": len(self.all.frames), "stream_same_labels": same}

    def load(self, row: str) -> nn.Module:
        """The model of a row that is done, in eval mode."""
        if row in FAST:
            weights, precision = FAST[row]
            with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
                warnings.simplefilter("ignore", RuntimeWarning)
                return accelerate(self._stored(weights), precision=precision)
        return self._stored(row)

    def _stored(self, row: str) -> nn.Module:
        if not self.file(row).is_file():
            raise RunError(f"{self.file(row)} is missing, so the run is not done: run the recipe again, to its end.")
        return load(self.model(row), self.file(row)).eval()

    def timed(self, made: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of a frame added."""
        count = self.settings.bench_recordings
        models = {row: self.load(row) for row in ROWS}
        step = max(1, len(self.test.frames) // count)
        sounds = [r.samples_N for r in self.split.test[::step][:count]]
        found = time_frames(models, self.test.frames[::step][:count], sounds, self.scale)
        return {row: self.run.add(result, found[row]) for row, result in made.items()}

    def history(self) -> dict[str, list[float]]:
        """The course of the sparse row's training."""
        course = checkpoint.read(self.folder / "sparse" / "checkpoint.safetensors")["history"]
        return {"step": course["step"], "loss": course["loss"], "kept": course["density"], "rate": course["rate"]}


def _weights(widths: Sequence[int]) -> int:
    """Weights in the matrices of a net of these layers."""
    inputs = (MELS, *widths)
    return sum(3 * o * (i + o) for i, o in zip(inputs, widths)) + len(spoken_digits.WORDS) * widths[-1]


def _classes(recordings: Sequence[Recording]) -> Tensor:
    return torch.tensor([recording.digit for recording in recordings])
