"""Augmentation of speech: the same word as another voice, room and microphone might give it."""

from __future__ import annotations

import numpy as np

from .log_mel import MELS, WINDOW, Floats, frames_of, levelled, log_mel, mel_filters

SPEED = 1.25  # at most so much faster or slower, and the pitch with it
TRACT = 0.15  # share by which a vocal tract is shorter or longer
SHIFT = 400  # samples that silence goes before a recording, or are cut off: 50 ms
GAIN = (-10.0, 10.0)  # dB
NOISE = (15.0, 50.0)  # dB below the voice, white
MICROPHONE = 3.0  # dB, deviation of each of three waves over the mel bands


def augmented(samples_N: Floats, generator: np.random.Generator) -> Floats:
    """Log-mel features (T, MELS) of a recording, varied at random.

    Speed, shift in time, gain and noise act on the samples; vocal tract (Jaitly & Hinton, ICML workshop 2013) and
    microphone on the mel filters.
    """
    x = _at_speed(samples_N, SPEED ** generator.uniform(-1, 1))
    shift = int(generator.integers(-SHIFT, SHIFT + 1))
    x = np.pad(x, (shift, 0)) if shift > 0 else x[min(-shift, max(0, len(x) - WINDOW)) :]
    noise = np.sqrt(np.mean(x**2)) * 10 ** (-generator.uniform(*NOISE) / 20)
    x = (x + noise * generator.standard_normal(len(x))) * 10 ** (generator.uniform(*GAIN) / 20)
    filters = mel_filters(1 + TRACT * generator.uniform(-1, 1)) * _microphone(generator)[:, None]
    return levelled(log_mel(frames_of(x), filters))[0]


def _at_speed(samples_N: Floats, speed: float) -> Floats:
    """Straight lines between samples: what they lose in the highest tones is one more variation."""
    places = np.arange(0, len(samples_N) - 1, speed)
    return np.interp(places, np.arange(len(samples_N)), samples_N)


def _microphone(generator: np.random.Generator) -> Floats:
    """A factor for the power in each band, smooth over the bands."""
    bands = np.arange(MELS) / MELS
    waves = [generator.normal(0, MICROPHONE) * np.cos(np.pi * n * bands + generator.uniform(0, 6.3)) for n in (1, 2, 3)]
    return 10 ** (np.sum(waves, 0) / 10)
