"""What the nets of spoken digits hear: features of the recordings, scaled as the run's folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from sparsernn.files import write_atomically

from ..runs import RunError
from ..tasks import spoken_digits
from ..tasks.augment import augmented
from ..tasks.frames import Sequences
from ..tasks.log_mel import Scale, features, frames_of, levelled, log_mel, scale_of
from ..tasks.spoken_digits import Recording, Split


class Sounds:
    """The parts of `recordings`, split by `seed`; mean and deviation of the features lie in the file `kept`."""

    def __init__(self, recordings: Sequence[Recording], seed: int, kept: Path) -> None:
        self.recordings, self.seed, self.kept = recordings, seed, kept

    @cached_property
    def split(self) -> Split:
        return spoken_digits.split(self.recordings, self.seed)

    def training(self, variants: int) -> list[Sequences]:
        """The training recordings as they are, and in so many augmented forms."""
        generator = np.random.default_rng(self.seed)
        forms = [[levelled(log_mel(frames_of(r.samples_N)))[0] for r in self.split.train]]
        forms += [[augmented(r.samples_N, generator) for r in self.split.train] for _ in range(variants)]
        scale = scale_of(np.concatenate([frames for form in forms for frames in form]))
        write_atomically(self.kept, json.dumps(asdict(scale)) + "\n")
        classes_N = torch.tensor([recording.digit for recording in self.split.train])
        return [Sequences([torch.from_numpy(scale.apply(frames)) for frames in form], classes_N) for form in forms]

    def heard(self, recordings: Sequence[Recording]) -> Sequences:
        """Features of whole recordings."""
        frames = [torch.from_numpy(features(r.samples_N, scale_in(self.kept))) for r in recordings]
        return Sequences(frames, torch.tensor([recording.digit for recording in recordings]))

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


def scale_in(path: Path) -> Scale:
    """Mean and deviation of the training features. Raises RunError, which names the file, if it is missing or other."""
    if not path.is_file():
        raise RunError(f"{path} is missing, so nothing can be heard: run the recipe again.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Scale(tuple(content["mean"]), tuple(content["deviation"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it and run the recipe again.") from None
