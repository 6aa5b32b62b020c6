"""What the gallery reads of installed packages, and their own runtimes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

NAMES = {
    "silero-vad": "silero",
    "g2p_en": "phonemes",
    "DTLN": "dtln",
    "Resemblyzer": "speaker",
    "arabic-diacritizer": "diacritics",
    "ddddocr": "characters",
}


def installed(package: str, path: str) -> str:
    """Where a file of an installed package lies; the package is not imported."""
    found = Path(str(metadata.distribution(package).locate_file(path)))
    if not found.is_file():
        raise FileNotFoundError(f"{path}: not in {package} {metadata.version(package)}.")
    return str(found)


def session(model: str | bytes) -> Any:
    """onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def g2p_en() -> Any:
    """g2p_en's class without the dictionary that it would download."""
    import nltk  # pyright: ignore[reportMissingImports]

    nltk.download = lambda *args, **options: False  # asked for at import
    from g2p_en.g2p import G2p  # pyright: ignore[reportMissingImports]

    made = G2p.__new__(G2p)
    made.graphemes = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    made.g2idx = {grapheme: n for n, grapheme in enumerate(made.graphemes)}
    made.load_variables()
    return made
