"""The decoder of g2p_en, which spells words that are in no dictionary, one phoneme a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsernn_studies.gallery.packages import g2p_en

from .work import STEPS, Real, Run, Stepper

PACKAGE, FILE = "g2p_en", "g2p_en/checkpoint20.npz"
PHONEMES, WIDTH, UNITS, BEGIN, END, LONGEST = 74, 256, 256, 2, 3, 20


class Decoder(nn.Module):
    """The phoneme before (B,) and the state (B, 256), from the word's encoder at first, to scores (B, 74)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PHONEMES, WIDTH)
        self.cell = nn.GRUCell(WIDTH, UNITS)
        self.scores = nn.Linear(UNITS, PHONEMES)

    def forward(self, phoneme: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(self.embedding(phoneme), h)
        return self.scores(h), h


def decoder(stored: Any) -> Decoder:
    """With the arrays of the package's checkpoint."""
    own = {"embedding.weight": "dec_emb", "scores.weight": "fc_w", "scores.bias": "fc_b"}
    own |= {f"cell.{kind}_{side}": f"dec_{kind[0]}_{side}" for kind in ("weight", "bias") for side in ("ih", "hh")}
    net = Decoder()
    net.load_state_dict({name: torch.from_numpy(stored[theirs]) for name, theirs in own.items()})
    return net.eval()


def stepping(g2p: Any) -> Stepper:
    """A turn of the loop in the package's `predict`, in numpy."""
    kept = [np.zeros((1, UNITS), np.float32)]
    weights = [getattr(g2p, f"dec_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")]

    def reset(start: Any) -> None:
        kept[0] = start[0].numpy() if start else np.zeros((1, UNITS), np.float32)

    def step(phoneme: Tensor) -> Any:
        kept[0] = g2p.grucell(np.take(g2p.dec_emb, phoneme.numpy(), axis=0), kept[0], *weights)
        return np.matmul(kept[0], g2p.fc_w.T) + g2p.fc_b

    return Stepper(reset, step)


def runs(g2p: Any, loop: Stepper) -> list[Run]:
    """Made-up words: the encoder's state, and the phonemes that the package's decoder gives for them."""
    random, found, count = np.random.default_rng(0), [], 0
    while count < STEPS:
        word = "".join(random.choice(["b", "st", "k", "m", "pr", "l", "sh", "d"]) + random.choice(list("aeiou"))
                       for _ in range(random.integers(2, 6)))  # fmt: skip
        letters = g2p.encode(word)
        weights = [getattr(g2p, f"enc_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        h = g2p.gru(letters, letters.shape[1], *weights)[:, -1]
        start, frames, phoneme = [torch.from_numpy(h)], [], BEGIN
        loop.reset(start)
        while phoneme != END and len(frames) < min(LONGEST, STEPS - count):
            frames.append(torch.tensor([phoneme]))
            phoneme = int(loop.step(frames[-1]).argmax())
        found.append(Run(frames, start))
        count += len(frames)
    return found


def works() -> dict[str, Real]:
    """The decoder."""
    g2p = g2p_en()
    loop, net, h = stepping(g2p), decoder(g2p.variables), torch.zeros(1, UNITS)
    real = Real(
        PACKAGE,
        FILE,
        "Apache-2.0",
        net,
        {"example": (torch.tensor([BEGIN]), h), "states": {"h": 1}},
        net,
        [h],
        runs(g2p, loop),
        {"its own: numpy": loop},
        starts=["h"],
    )
    return {"g2p_en, decoder": real}
