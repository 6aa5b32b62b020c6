"""Free spoken digit dataset: 3,000 recordings of "zero" to "nine" by six speakers, 8 kHz; the metric is accuracy.

Jakobovski's free-spoken-digit-dataset, CC BY-SA 4.0. The files come from the data folder.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import DataError, DataFile, read
from .log_mel import RATE, Floats
from .wav import Sound, read_wav, resampled, write_wav

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset"
FILE = DataFile(
    "fsdd/recordings.zip",
    "0bc2c5cae0c1416ee9edb1c1cfd2d646d683a6fdea4b28c71c98b621015bb484",
    "",
    f"{ADDRESS} (its folder recordings as a zip, or that folder itself at fsdd/recordings)",
)
CONTENT = (
    "a2e8a660492f28d9eed6270b290d26cbc5c81d6077ce87d3c0ad5adf4d4ee696"  # sha256 of names and contents, see `digest`
)
MOST_FILES, LARGEST = 10_000, 1 << 20  # recordings in all, bytes of one
_NAME = re.compile(r"(?:recordings/)?([0-9])_([a-z]+)_([0-9]{1,3})\.wav")


@dataclass(frozen=True)
class Recording:
    """One spoken digit."""

    digit: int
    speaker: str
    number: int
    samples_N: Floats


@dataclass(frozen=True)
class Split:
    """Whole speakers apart: nobody who is tested was heard in training or when settings were chosen."""

    train: tuple[Recording, ...]
    valid: tuple[Recording, ...]
    test: tuple[Recording, ...]


def load(folder: Path | None) -> list[Recording]:
    """All recordings, by digit, speaker and number, from fsdd/recordings.zip or the unpacked folder fsdd/recordings.

    The zip is read where it lies, each file at most a megabyte. Raises DataError, which names the file and where to
    get it, if it is missing, damaged or not the expected one.
    """
    unpacked = None if folder is None else folder / "fsdd" / "recordings"
    if folder is not None and unpacked is not None and unpacked.is_dir() and not (folder / FILE.path).is_file():
        files = {path.name: _limited(path) for path in sorted(unpacked.glob("*.wav"))[: MOST_FILES + 1]}
        found = digest(files)
        if found != CONTENT:
            raise DataError(
                f"{unpacked} does not hold the expected 3,000 recordings: their sha256 is {found[:16]}..., expected "
                f"{CONTENT[:16]}...\nGet them from {ADDRESS}; results on other data could not be compared."
            )
    else:
        files = dict(unzipped(read(FILE, folder)))
    return recordings(files)


def _limited(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes, expected at most {LARGEST}: not one of the recordings."
        )
    return path.read_bytes()


def unzipped(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each WAV file in a zip. Raises DataError if it is damaged or unfolds to too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".wav")]
            if len(members) > MOST_FILES or any(member.file_size > LARGEST for member in members):
                raise DataError(f"{FILE.path} unfolds to more than {MOST_FILES} files or {LARGEST} bytes a file.")
            for member in members:
                with archive.open(member) as file:
                    yield member.filename, file.read(LARGEST)
    # zipfile raises NotImplementedError for a compression that it does not know.
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise DataError(f"{FILE.path} cannot be read ({error}). Fetch it again from {FILE.address}.") from None


def digest(files: dict[str, bytes]) -> str:
    """sha256 over the names, without folders, and contents, in the order of the names."""
    total = hashlib.sha256()
    for name, content in sorted((Path(name).name, content) for name, content in files.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def recordings(files: dict[str, bytes]) -> list[Recording]:
    """The recordings in `files`, {digit}_{speaker}_{number}.wav -> content, at 8 kHz."""
    made = []
    for name, content in files.items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise DataError(f"{name} is not named like a recording, {{digit}}_{{speaker}}_{{number}}.wav.")
        digit, speaker, number = found.groups()
        made.append(Recording(int(digit), speaker, int(number), resampled(read_wav(content, name), RATE).samples_N))
    return sorted(made, key=lambda r: (r.digit, r.speaker, r.number))


def split(found: Sequence[Recording], seed: int) -> Split:
    """Two speakers set apart, the others for training; `seed` chooses which, as many turns as there are speakers.

    The test speaker of seed s is s-th by name and validation is half-way round the circle: of six speakers, the
    seeds 0 to 2 are tested on three whom the validation of these seeds never hears. Raises DataError if there are
    fewer than three speakers.
    """
    speakers = sorted({recording.speaker for recording in found})
    if len(speakers) < 3:
        raise DataError(f"The recordings are of {len(speakers)} speakers, expected at least 3 to set two apart.")
    test, valid = (speakers[(seed + n) % len(speakers)] for n in (0, len(speakers) // 2))
    apart = {who: tuple(r for r in found if r.speaker == who) for who in (test, valid)}
    return Split(tuple(r for r in found if r.speaker not in apart), apart[valid], apart[test])


def made(seed: int = 0, speakers: Sequence[str] = ("ada", "bea", "cy", "dot"), each: int = 4) -> list[Recording]:
    """Tones in place of recordings, to try things out without data: `each` of a digit and speaker."""
    return recordings(made_files(seed, speakers, each))


def made_files(seed: int, speakers: Sequence[str], each: int) -> dict[str, bytes]:
    """{digit}_{speaker}_{number}.wav -> content: two tones a digit, one of them gliding; speakers differ in pitch."""
    generator = np.random.default_rng(seed)
    files = {}
    for digit in range(10):
        for number, speaker in enumerate(speakers):
            for n in range(each):
                seconds = generator.uniform(0.15, 0.25)
                t = np.arange(int(seconds * RATE)) / RATE
                pitch = 1 + 0.06 * number + generator.uniform(-0.02, 0.02)
                low = np.sin(2 * np.pi * pitch * (300 + 120 * (digit % 5)) * t)
                high = np.sin(2 * np.pi * pitch * (1500 + (1200 if digit < 5 else -600) * t / seconds) * t)
                x = 0.2 * low + 0.1 * high + 0.002 * generator.standard_normal(len(t))
                files[f"{digit}_{speaker}_{n}.wav"] = write_wav(Sound(x, RATE))
    return files
