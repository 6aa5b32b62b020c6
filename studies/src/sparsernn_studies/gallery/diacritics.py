"""arabic-diacritizer: the marks of vowels that Arabic is written without, by a bidirectional LSTM and attention."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..tasks.sequences import of_one_length, shuffled
from .packages import installed
from .sound import PARTS, part_of
from .subject import Bar, Subject

PACKAGE, FILE = "arabic-diacritizer", "diacritize/assets/bilstm_best.pt"
LETTERS, UNITS, MARKS = 54, 256, 15
SHORTEST, LONGEST, TESTED, ROWS = 24, 96, 300, 8
NOTE = (
    "The net hears a sentence in both directions and has no step: what is timed is a whole call of one sentence of 60 "
    "letters, and there is no C of it. Letters are looked up and then multiplied: table and matrices are one matrix "
    "with a column for each, 4% of the numbers less without a change. The error is against the marks that the "
    "sentences of the package's cache have, of 300 that are only tested on; the original was trained on such."
)


class Attention(nn.Module):
    """What each place (B, T, 512) takes of all: weights from tanh of the sum of two products (Bahdanau)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.W, self.U, self.v = (nn.Linear(size, to, bias=False) for to in (size, size, 1))

    def forward(self, y: Tensor) -> Tensor:
        scores = self.v(torch.tanh(self.W(y)[:, :, None] + self.U(y)[:, None]))[..., 0]
        return torch.softmax(scores, -1) @ y


class Diacritizer(nn.Module):
    """Letters (B, T) of sentences to scores (B, T, 15) of the mark of each."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, LETTERS)
        self.lstm = nn.LSTM(LETTERS, UNITS, 3, batch_first=True, bidirectional=True)
        self.attention, self.classifier = Attention(2 * UNITS), nn.Linear(2 * UNITS, MARKS)

    def forward(self, letters: Tensor) -> Tensor:
        return self.classifier(self.attention(self.lstm(self.letters(letters))[0]))


def diacritizer(stored: dict[str, Tensor]) -> Diacritizer:
    """With the tensors of the file: the table becomes a unit matrix, since its products stand in the first layer."""
    net, own = Diacritizer(), dict(stored)
    rows = own.pop("embedding.weight").double()
    for end in ("", "_reverse"):
        name = f"lstm.weight_ih_l0{end}"
        own[name] = (own[name].double() @ rows.T).float()
    net.load_state_dict(own | {"letters.weight": torch.eye(LETTERS)})
    return net.eval()


def sentences() -> Iterator[tuple[str, list[int], list[int]]]:
    """Of the package's cache, those of letters that the net knows: first words, letters, and the mark of each."""
    from diacritize.config import LABEL_MAP  # pyright: ignore[reportMissingImports]
    from diacritize.tokenizer import UNK, CharTokenizer  # pyright: ignore[reportMissingImports]
    from diacritize.unicode_utils import extract_diacritics  # pyright: ignore[reportMissingImports]

    read = CharTokenizer()
    with gzip.open(installed(PACKAGE, "diacritize/assets/word_cache.json.gz"), "rt", encoding="utf-8") as file:
        stored = json.load(file)["sentences"]
    for bare, marked in (next(iter(variants.items())) for key, variants in stored.items() if len(key) <= LONGEST):
        letters, marks = read.encode(bare, add_special=False), extract_diacritics(marked)
        known = UNK not in letters and all(mark in LABEL_MAP for mark in marks)
        if known and SHORTEST <= len(letters) == len(marks) <= LONGEST:
            yield " ".join(bare.split()[:3]), letters, [LABEL_MAP[mark] for mark in marks]


def alike(found: Sequence[Any], rows: int) -> list[tuple[Tensor, Tensor]]:
    """Letters and marks, (rows, T) each or fewer rows, of sentences that are equally long."""
    batches = of_one_length(found, lambda sentence: len(sentence[1]), rows)
    return [(torch.tensor([s[1] for s in batch]), torch.tensor([s[2] for s in batch])) for batch in batches]


def subjects(folder: Path | None) -> list[Subject]:
    from diacritize.baseline.model import BiLSTMDiacritizer  # pyright: ignore[reportMissingImports]

    their = BiLSTMDiacritizer.from_pretrained(installed(PACKAGE, FILE))
    net, parts = diacritizer(their.state_dict()), {part: list[Any]() for part in PARTS}
    for each in sentences():
        parts[part_of(each[0])].append(each)  # sentences that begin alike are of one part
    validation, test = (alike(parts[part][:TESTED], 64) for part in ("validation", "test"))
    training = shuffled([letters for letters, _ in alike(parts["training"], ROWS)])
    sentence = next(letters[:1] for letters, _ in test if letters.shape[1] == 60)

    def difference() -> float:
        both = [(their(letters), net(letters)) for letters, _ in test[:10]]
        return max(float((a - b).abs().max() / a.abs().max()) for a, b in both)

    def judge(model: Any, found: Any) -> dict[str, float]:
        wrong = sum(int((model(x).argmax(-1) != marks).sum()) for x, marks in found)
        return {"diacritic error": wrong / sum(marks.numel() for _, marks in found)}

    return [
        Subject(
            PACKAGE, PACKAGE, FILE, "MIT", 4 * sum(p.numel() for p in their.parameters()), net, difference,
            training[:24], training[24:], judge, validation, test,
            Bar("diacritic error", 0.005, at_most=True, over=True), {}, sentence, lambda model: [],
            {"its own: torch": lambda: their(sentence)}, "sentences of the package's cache", NOTE,
            shares={"weight": (0.46, 0.36)}, loss="logits", steps=60, rate=5e-4, call="sentence",
        )
    ]  # fmt: skip
