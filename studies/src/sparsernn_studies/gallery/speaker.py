"""Resemblyzer's encoder: who speaks, as a vector of length 1, from mel spectrograms of 10 ms frames."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .sound import Talk
from .subject import Bar, Subject

PACKAGE, FILE = "Resemblyzer", "resemblyzer/pretrained.pt"
MELS, UNITS, LAYERS, WINDOW = 40, 256, 3, 160  # WINDOW: frames that the package embeds at once
OTHERS = ["lstm.weight_hh_*", "lstm.weight_ih_l1", "lstm.weight_ih_l2", "linear.weight"]  # than what reads the sound
NOTE = (
    "The package calls its net with windows of 160 frames, 1.6 seconds, and takes the vector of the last: the bar is "
    "of such a window, in which ours gives the vector of every frame. Our stream and C take steps of one frame, 10 ms. "
    "The matrix that reads the sound, 3% of the numbers, loses no weight: its inputs range over five orders of size."
)


class Speaker(nn.Module):
    """Frames (B, T, 40) to the vectors (B, T, 256) of what was heard so far."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, UNITS, LAYERS, batch_first=True)
        self.linear = nn.Linear(UNITS, UNITS)

    def forward(self, x: Tensor) -> Tensor:
        return self.vector(self.lstm(x)[0])

    def vector(self, y: Tensor) -> Tensor:
        raw = torch.relu(self.linear(y))
        return raw / torch.norm(raw, dim=-1, keepdim=True)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.lstm(x[:, None], (h, c))
        return self.vector(y[:, 0]), h, c


def apart(ours: Tensor, whole: Tensor) -> Tensor:
    """One less the cosine, of what was heard for half a window and longer."""
    return (1 - (ours * whole).sum(-1))[:, WINDOW // 2 :].mean()


def subjects(folder: Path | None) -> list[Subject]:
    logging.getLogger("numba").setLevel(logging.WARNING)
    from resemblyzer import VoiceEncoder, wav_to_mel_spectrogram  # pyright: ignore[reportMissingImports]

    encoder, net, talk = VoiceEncoder("cpu", verbose=False).eval(), Speaker(), Talk(folder)
    net.load_state_dict({k: v for k, v in encoder.state_dict().items() if k.startswith(("lstm.", "linear."))})
    net.eval()

    def windows(count: int, seed: int, part: str = "training") -> Tensor:
        """(count, 160, 40), from talks of 16 seconds."""
        found: list[Tensor] = []
        while len(found) < count:
            mels = torch.from_numpy(wav_to_mel_spectrogram(talk.made(16, seed + len(found), part)))
            found += mels[: len(mels) // WINDOW * WINDOW].split(WINDOW)
        return torch.stack(found[:count])

    random = torch.Generator().manual_seed(0)
    calibration, heard = windows(100, 0), windows(600, 1000)
    validation, test = windows(60, 0, "validation"), windows(60, 0, "test")
    training = [heard[torch.randperm(len(heard), generator=random)[:8]] for _ in range(150)]
    whole = functools.cache(net)

    def difference() -> float:
        with torch.no_grad():
            return float((encoder(test) - net(test)[:, -1]).abs().max())

    def judge(model: Any, x: Tensor) -> dict[str, float]:
        same = (model(x)[:, -1] * whole(x)[:, -1]).sum(-1)
        return {"cosine": float(same.mean()), "least cosine": float(same.min())}

    window = test[:1]
    steps = {"heard": test[0, 20:], "states": lambda model: [torch.zeros(LAYERS, 1, UNITS)] * 2, "rivals": {}}
    return [
        Subject(
            PACKAGE, PACKAGE, FILE, "Apache-2.0", 4 * sum(p.numel() for p in net.parameters()), net, difference,
            list(calibration.split(5)), training, judge,
            validation, test, Bar("cosine", 0.995), {"example": test[:1, :8], "time": 1}, window,
            lambda model: [], {"its own: torch": lambda: encoder(window)}, talk.data, NOTE,
            steps=150, rate=1e-4, loss=apart, hidden={"lstm": "lstm.l2"},
            shares={"unit": (0.85,), "weight": (0.82, 0.46)}, thinned=OTHERS, call="window", stepwise=steps,
        )
    ]  # fmt: skip
