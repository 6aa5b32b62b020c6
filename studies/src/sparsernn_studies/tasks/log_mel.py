"""Log-mel features of speech, one frame at a time: what a stream hears and what a file holds give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # samples a second
WINDOW = 200  # samples of a frame: 25 ms
HOP = 80  # samples from one frame to the next: 10 ms
MELS = 40
FOURIER = 256
LOWEST = 60.0  # Hz: below is hum
FLOOR = 1e-6  # power that silence counts for, with samples from -1 to 1
QUIET = -7.0  # log power of the loudest band below which nobody speaks
RANGE = 10.0  # log power: how far below the loudest so far a band can still be told from silence

Floats = NDArray[np.float64]


def mel_filters(stretch: float = 1.0) -> Floats:
    """Triangles (MELS, FOURIER / 2 + 1), evenly spaced in mel = 2595 log10(1 + f / 700 Hz), each of height 1.

    `stretch` moves all frequencies, as a shorter or longer vocal tract does.
    """
    bottom, top = (2595 * np.log10(1 + f / 700) for f in (LOWEST, RATE / 2))
    corners = 700 * (10 ** (np.linspace(bottom, top, MELS + 2) / 2595) - 1) * stretch
    f = np.linspace(0, RATE / 2, FOURIER // 2 + 1)
    left, middle, right = (corners[n : n + MELS, None] for n in range(3))
    return np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle)))


_FILTERS = mel_filters()
_WINDOW = np.hanning(WINDOW + 1)[:-1]


def log_mel(frames_TS: Floats, filters: Floats = _FILTERS) -> Floats:
    """Frames of WINDOW samples (T, WINDOW) -> log power in each mel band (T, MELS)."""
    spectrum = np.fft.rfft(frames_TS * _WINDOW, FOURIER)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(power @ filters.T + FLOOR)


def levelled(features_TM: Floats, loudest: float = QUIET) -> tuple[Floats, float]:
    """Log power relative to the loudest band of all frames up to each, from -RANGE to 0, and the loudest in the end.

    How loud somebody speaks, and how near to the microphone, is then of no matter, and no frame needs a later one.
    """
    loudest_T = np.maximum.accumulate(np.maximum(features_TM.max(1), loudest))
    return np.maximum(features_TM - loudest_T[:, None], -RANGE), float(loudest_T[-1])


def frames_of(samples_N: Floats) -> Floats:
    """All whole frames of a recording (T, WINDOW), a view; one shorter than a frame is filled up with silence."""
    if len(samples_N) < WINDOW:
        samples_N = np.pad(samples_N, (0, WINDOW - len(samples_N)))
    return np.lib.stride_tricks.sliding_window_view(samples_N, WINDOW)[::HOP]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each band (MELS,) over the training recordings."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            fine = len(values) == MELS and all(isinstance(v, float) and np.isfinite(v) for v in values)
            if not fine or (name == "deviation" and min(values) <= 0):
                raise ValueError(f"{name} holds {len(values)} values, expected {MELS} finite numbers, deviations > 0.")

    def apply(self, features_TM: Floats) -> NDArray[np.float32]:
        """Features (..., MELS) with mean 0 and deviation 1, float32."""
        mean, deviation = self._arrays
        return ((features_TM - mean) / deviation).astype(np.float32)

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats]:
        return np.array(self.mean), np.array(self.deviation)


def scale_of(features_TM: Floats) -> Scale:
    """The scale that gives `features_TM` (frames, MELS) mean 0 and deviation 1."""
    mean, deviation = features_TM.mean(0), features_TM.std(0)
    return Scale(tuple(map(float, mean)), tuple(float(max(d, 1e-3)) for d in deviation))


class Ear:
    """Features as they come: feed samples in pieces of any size, get each frame as soon as its last sample is there."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._loudest = QUIET
        # Every frame is worked out at the same place in memory, by calls of the same shape: the same bits each time.
        self._frame = np.zeros((1, WINDOW))
        self._filled = 0

    def feed(self, samples_N: Floats) -> Iterator[NDArray[np.float32]]:
        """The frames (MELS,), float32, that are whole with these samples."""
        frame = self._frame[0]
        begin = 0
        while begin < len(samples_N):
            take = min(WINDOW - self._filled, len(samples_N) - begin)
            frame[self._filled : self._filled + take] = samples_N[begin : begin + take]
            self._filled, begin = self._filled + take, begin + take
            if self._filled == WINDOW:
                level_1M, self._loudest = levelled(log_mel(self._frame), self._loudest)
                yield self._scale.apply(level_1M[0])
                frame[:-HOP] = frame[HOP:].copy()
                self._filled = WINDOW - HOP


def features(samples_N: Floats, scale: Scale) -> NDArray[np.float32]:
    """Features of a whole recording (T, MELS), float32: frame by frame, the same bits as from an `Ear`."""
    if len(samples_N) < WINDOW:
        samples_N = np.pad(samples_N, (0, WINDOW - len(samples_N)))
    return np.stack(list(Ear(scale).feed(samples_N)))
