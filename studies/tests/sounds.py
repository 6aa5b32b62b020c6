"""Sounds for tests: noise, and WAV files as other programs write them."""

import io
import wave

import numpy as np

from sparsernn_studies.tasks.log_mel import RATE


def noise(count: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(count)


def wav(raw: bytes, *, channels: int = 1, width: int = 2, rate: int = RATE) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return content.getvalue()
