"""What a model of a package brings to the benchmark, and what each file here builds it from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparsernn_studies.gallery.packages import installed as installed
from sparsernn_studies.gallery.packages import session as session
from sparsernn_studies.gallery.sound import RATE as RATE
from sparsernn_studies.gallery.sound import speech as speech

STEPS = 10_000


class Stepper(NamedTuple):
    """Something that runs step by step: `reset` starts a sequence, from zero or from given states; `step` gives the
    output, or None where it has none after this step. own_steps: whether it computes step by step, and can be timed."""

    reset: Callable[[Sequence[Tensor]], Any]
    step: Callable[[Tensor], Any]
    own_steps: bool = True


class Run(NamedTuple):
    """Inputs of the steps of one sequence, and the states that it starts from (empty: zero)."""

    frames: Sequence[Tensor]
    start: Sequence[Tensor] = ()


class Real(NamedTuple):
    """A model with everything that it is compared with.

    model, stream: what is streamed, and the arguments. single: one step with its states as inputs and outputs, for
    torch and onnxruntime: forward(frame, *states) gives (output, *states). states: zeros of their shapes. originals:
    the package's own runtimes. starts: what the stream calls the states that a sequence starts from. aims: least
    ratios, by the engine. weights, licence: for the table. operations: of one step; 0: two for each weight.
    """

    package: str
    weights: str
    licence: str
    model: nn.Module
    stream: Mapping[str, Any]
    single: nn.Module
    states: Sequence[Tensor]
    runs: Sequence[Run]
    originals: Mapping[str, Stepper]
    starts: Sequence[str] = ()
    aims: Mapping[str, float] = {}
    operations: float = 0


def tensors(path: str) -> dict[str, Tensor]:
    """The stored tensors of an ONNX file by name."""
    from onnx import load, numpy_helper

    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in load(path).graph.initializer}


def digest(path: str) -> str:
    """The first digits of a file's SHA-256, so that the table says which weights they were."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
