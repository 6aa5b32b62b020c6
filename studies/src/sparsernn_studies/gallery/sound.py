"""Sound for the gallery: spoken digits where the data folder has them, else something like a voice, in noise."""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..tasks.spoken_digits import load

PARTS = ("training", "test", "validation")
RATE = 16_000  # samples a second
LEVELS = (0.0, 30.0)  # speech over noise, dB
Sound = NDArray[np.float32]


def speech(seconds: float, seed: int = 0) -> Sound:
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


@functools.cache
def fourier() -> Tensor:
    """A basis of spectra, (258, 1, 256): cosines and sines of 129 frequencies in a Hann window."""
    n, k = torch.arange(256).double(), torch.arange(129).double()[:, None]
    window, angle = 0.5 - 0.5 * torch.cos(2 * math.pi * n / 256), 2 * math.pi * k * n / 256
    return torch.cat([window * torch.cos(angle), -window * torch.sin(angle)]).float()[:, None]


def part_of(name: str) -> str:
    """Which of PARTS an item is of, by the hash of its name: a fifth each is tested on and chosen by."""
    return {0: "test", 1: "validation"}.get(int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5, "training")


class Talk:
    """Makes speech in noise: digits spoken by people where `folder` has them (8 kHz, brought to 16), or synthetic."""

    def __init__(self, folder: Path | None) -> None:
        found = [] if folder is None or not (folder / "fsdd").is_dir() else load(folder)
        self._recordings = {part: list[Any]() for part in PARTS}
        for r in found:
            self._recordings[part_of(f"{r.digit}_{r.speaker}_{r.number}")].append(r)
        real = f"{len(found):,} digits spoken by {len({r.speaker for r in found})} people (free-spoken-digit-dataset)"
        self.data = f"{real if found else 'synthetic syllables'}, with pauses, in noise 0 to 30 dB below"

    def made(self, seconds: float, seed: int, part: str = "training") -> Sound:
        """16 kHz in [-1, 1]; always the same for a seed. part: one of PARTS, whose recordings are in no other."""
        from scipy.signal import resample_poly

        pool, number = self._recordings[part], PARTS.index(part)
        if not pool:
            return speech(seconds, len(PARTS) * seed + number)
        random, parts = np.random.default_rng([seed, number]), list[np.ndarray]()
        while sum(map(len, parts)) < seconds * RATE:
            x = resample_poly(pool[random.integers(len(pool))].samples_N, 2, 1)
            parts.append(x / (np.abs(x).max() + 1e-9) * random.uniform(0.05, 0.6))
            parts.append(np.zeros(int(RATE * random.exponential(0.4))))
        clean = np.concatenate(parts)[: int(seconds * RATE)]
        noise = random.normal(size=len(clean))
        if random.random() < 0.5:  # a rumble: low frequencies without the lowest
            noise = np.cumsum(noise)
            noise -= np.convolve(noise, np.ones(800) / 800, "same")
        level = np.sqrt((clean**2).mean()) / 10 ** (random.uniform(*LEVELS) / 20)
        return (clean + level * noise / noise.std()).clip(-1, 1).astype(np.float32)
