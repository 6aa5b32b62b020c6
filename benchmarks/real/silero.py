"""silero-vad at 16 kHz: speech or not, for each 512 samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .work import RATE, STEPS, Real, Run, Stepper, speech

PACKAGE, FILE = "silero-vad", "silero_vad/data/silero_vad.jit"
CHUNK, CONTEXT, UNITS = 512, 64, 128
OPERATIONS = 2 * (4 * 258 * 256 + 4 * 128 * 129 * 3 + 2 * 64 * 128 * 3 + 64 * 64 * 3 + 128 * 64 * 3 + 8 * 128 * 128)


class Detector(nn.Module):
    """A chunk (B, 512), the end of the one before (B, 64) and h and c (2, B, 128), to a probability (B, 1) and the
    next two."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.encoder = nn.Sequential(
            nn.Conv1d(129, 128, 3, padding=1), nn.ReLU(),
            nn.Conv1d(128, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(64, 128, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.rnn = nn.LSTMCell(128, UNITS)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(UNITS, 1, 1), nn.Sigmoid())

    def forward(self, chunk: Tensor, context: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.pad(torch.cat([context, chunk], 1)[:, None], (0, 64), "reflect")
        real, imaginary = self.stft(x).chunk(2, 1)
        y = self.encoder(torch.sqrt(real**2 + imaginary**2)).squeeze(-1)
        h, c = self.rnn(y, (state[0], state[1]))
        probability = self.head(h[..., None]).squeeze(1).mean(1, keepdim=True)
        return probability, chunk[:, -CONTEXT:], torch.stack([h, c])


def detector(stored: dict[str, Tensor]) -> Detector:
    """With the tensors of the package's TorchScript model of 16 kHz."""
    net = Detector()
    own = {"stft.weight": stored["_model.stft.forward_basis_buffer"]}
    for kind in ("weight", "bias"):
        own[f"head.1.{kind}"] = stored[f"_model.decoder.decoder.2.{kind}"]
        for n in range(4):
            own[f"encoder.{2 * n}.{kind}"] = stored[f"_model.encoder.{n}.reparam_conv.{kind}"]
        for side in ("ih", "hh"):
            own[f"rnn.{kind}_{side}"] = stored[f"_model.decoder.rnn.{kind}_{side}"]
    net.load_state_dict(own)
    return net.eval()


def shipped(model: Any) -> Stepper:
    """One of the package's own models, which keep context and state themselves."""
    return Stepper(lambda start: model.reset_states(), lambda chunk: model(chunk, RATE))


def works() -> dict[str, Real]:
    """The detector."""
    from silero_vad import load_silero_vad

    script = load_silero_vad()
    net = detector(script.state_dict())
    samples = torch.from_numpy(speech(60))
    chunks = [c[None] for c in samples.split(CHUNK) if len(c) == CHUNK]
    states = [torch.zeros(1, CONTEXT), torch.zeros(2, 1, UNITS)]
    stream = {"example": (chunks[0], *states), "states": {"context": 1, "state": 2}}
    originals = {"its own: TorchScript": script, "its own: onnxruntime": load_silero_vad(onnx=True)}
    real = Real(
        PACKAGE,
        FILE,
        "MIT",
        net,
        stream,
        net,
        states,
        [Run((chunks * (1 + STEPS // len(chunks)))[:STEPS])],
        {name: shipped(model) for name, model in originals.items()},
        aims=dict.fromkeys(("onnxruntime", *originals), 1.5),
        operations=OPERATIONS,
    )
    return {"silero-vad": real}
