"""What a model of a package brings to the benchmark, and what each file here builds it from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 10_000
RATE = 16_000  # samples a second


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


def installed(package: str, path: str) -> str:
    """Where a file of an installed package lies; the package is not imported."""
    found = Path(str(metadata.distribution(package).locate_file(path)))
    if not found.is_file():
        raise FileNotFoundError(f"{path}: not in {package} {metadata.version(package)}.")
    return str(found)


def tensors(path: str) -> dict[str, Tensor]:
    """The stored tensors of an ONNX file by name."""
    from onnx import load, numpy_helper

    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in load(path).graph.initializer}


def session(model: str | bytes) -> Any:
    """onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like a voice in a noisy room, 16 kHz in [-1, 1]: syllables of a buzz through three formants, with
    hisses and pauses between them. Always the same for a seed."""
    from scipy.signal import lfilter

    random = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * RATE:
        n = int(RATE * random.uniform(0.08, 0.35))
        if random.random() < 0.25:
            parts.append(np.zeros(int(RATE * random.uniform(0.05, 0.8))))
        if random.random() < 0.3:
            hiss = random.normal(size=n // 3)
            parts.append(0.1 * (hiss - np.roll(hiss, 1)) * np.hanning(n // 3))
        pitch = random.uniform(90, 220) * (1 + 0.1 * np.sin(np.linspace(0, random.uniform(1, 6), n)))
        voice = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
        for low, high in ((280, 850), (900, 2300), (2300, 3200)):
            angle, radius = 2 * np.pi * random.uniform(low, high) / RATE, random.uniform(0.96, 0.985)
            voice = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], voice)
        parts.append(voice / (np.abs(voice).max() + 1e-9) * np.hanning(n) * random.uniform(0.1, 0.6))
    audio = np.concatenate(parts)[: int(seconds * RATE)]
    return (audio + 0.01 * random.normal(size=len(audio))).clip(-1, 1).astype(np.float32)


def digest(path: str) -> str:
    """The first digits of a file's SHA-256, so that the table says which weights they were."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
