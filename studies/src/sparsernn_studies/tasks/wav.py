"""WAV files: samples as numbers from -1 to 1, one channel, read by the standard library."""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import DataError

MOST_BYTES = 1 << 28
MOST_SECONDS = 600  # of one file; what a header claims is compared with it before anything is read


@dataclass(frozen=True)
class Sound:
    """`samples_N`: float64, -1 to 1; `rate`: samples a second."""

    samples_N: NDArray[np.float64]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples_N) / self.rate


def read_wav(content: bytes, name: str) -> Sound:
    """The sound in a WAV file of linear PCM with 8, 16, 24 or 32 bits; several channels become their mean.

    `name` is what error messages call the file. Raises DataError if it is not such a file, is cut short, has no
    samples or lasts more than ten minutes.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate, count, *_ = file.getparams()
            if rate < 1 or count > MOST_SECONDS * rate:
                raise DataError(
                    f"{name} claims {count} samples at {rate} a second; expected at most {MOST_SECONDS} seconds."
                )
            raw = file.readframes(count)
    except DataError:
        raise
    except (wave.Error, EOFError, RuntimeError, ValueError, OverflowError, ZeroDivisionError, struct.error) as error:
        # The standard library raises whatever its arithmetic meets in a damaged header, often without a word.
        raise DataError(
            f"{name} is not a WAV file of linear PCM ({str(error) or 'its sizes do not fit its content'}).\n"
            f"Convert it, for example: ffmpeg -i {name} -c:a pcm_s16le converted.wav"
        ) from None
    if width not in (1, 2, 3, 4) or channels < 1:
        raise DataError(f"{name} has {channels} channels of {8 * width} bits, expected 1 or more of 8, 16, 24 or 32.")
    if not count or len(raw) != count * channels * width:
        raise DataError(f"{name} holds {len(raw)} bytes of sound, expected {count * channels * width} and more than 0.")
    return Sound(_numbers(raw, width).reshape(-1, channels).mean(1), rate)


def read_wav_file(path: Path) -> Sound:
    """The sound in the file `path`, see `read_wav`; a file of more than MOST_BYTES is refused before it is read."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise DataError(f"{path} has {size} bytes, expected at most {MOST_BYTES}: cut it.")
    return read_wav(path.read_bytes(), str(path))


def _numbers(raw: bytes, width: int) -> NDArray[np.float64]:
    if width == 1:  # the one width that is unsigned
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    # Each sample moves to the upper bytes of 32 bits, so that one scale fits all widths.
    wide = np.zeros((len(raw) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return wide.view("<i4")[:, 0] / 2.0**31


def resampled(sound: Sound, rate: int) -> Sound:
    """`sound` at `rate` samples a second (polyphase filter of scipy), itself if it has that rate already."""
    if sound.rate == rate:
        return sound
    from scipy import signal

    common = gcd(sound.rate, rate)
    return Sound(signal.resample_poly(sound.samples_N, rate // common, sound.rate // common), rate)


def write_wav(sound: Sound) -> bytes:
    """The content of a WAV file with 16 bits a sample; what goes beyond -1 to 1 is cut off."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(np.clip(np.rint(sound.samples_N * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes())
    return content.getvalue()
