"""Resemblyzer's encoder: who speaks, as a vector of length 1, from mel spectrograms. The package's class itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .work import STEPS, Real, Run, Stepper, speech

PACKAGE, FILE = "Resemblyzer", "resemblyzer/pretrained.pt"
WINDOW, UNITS, LAYERS = 160, 256, 3  # frames that the package embeds at once


class One(nn.Module):
    """One step of the encoder, with h and c as inputs and outputs."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.lstm, self.linear = encoder.lstm, encoder.linear

    def forward(self, mels: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        _, (h, c) = self.lstm(mels[:, None], (h, c))
        raw = torch.relu(self.linear(h[-1]))
        return raw / torch.norm(raw, dim=1, keepdim=True), h, c


def windows(encoder: nn.Module) -> Stepper:
    """The package's own way: a window is embedded when it is complete, so it has an output every 160 frames."""
    kept: list[Tensor] = []

    def step(frame: Tensor) -> Any:
        kept.append(frame)
        return encoder(torch.stack(kept, 1)) if len(kept) == WINDOW else None

    return Stepper(lambda start: kept.clear(), step, own_steps=False)


def works() -> dict[str, Real]:
    """The encoder, in windows of 1.6 seconds."""
    from resemblyzer import VoiceEncoder, wav_to_mel_spectrogram

    encoder = VoiceEncoder("cpu", verbose=False).eval()
    mels = torch.from_numpy(wav_to_mel_spectrogram(speech(STEPS / 100 + 2)))
    frames = [mel[None] for mel in mels[: STEPS // WINDOW * WINDOW]]
    runs = [Run(frames[n : n + WINDOW]) for n in range(0, len(frames), WINDOW)]
    runs.append(Run(frames[: STEPS - len(frames)]))
    real = Real(
        PACKAGE,
        FILE,
        "Apache-2.0",
        encoder,
        {"example": mels[None, :24], "time": 1},
        One(encoder).eval(),
        [torch.zeros(LAYERS, 1, UNITS) for _ in "hc"],
        runs,
        {"its own: windows": windows(encoder)},
    )  # fmt: skip
    return {"Resemblyzer": real}
