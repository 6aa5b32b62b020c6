"""silero-vad at 16 kHz: speech or not, for each 512 samples and the 64 before them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sound import Talk, fourier, speech
from .subject import Bar, Subject

FILE, CHUNK, CONTEXT = "silero_vad/data/silero_vad.jit", 512, 64
TAPS = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))  # of the convolutions, those that ever meet a frame
NOTE = (
    "A fifth of the file's numbers is a Fourier basis, which is computed, and 7% are taps of convolutions that only "
    "ever multiply padding: both go without a change."
)


class Detector(nn.Module):
    """Chunks with their contexts (B, T, 576) to probabilities of speech (B, T, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(387, 128), nn.Linear(384, 64), nn.Linear(128, 64), nn.Linear(64, 128)])
        self.rnn = nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Linear(128, 1)

    def features(self, x: Tensor) -> Tensor:
        """The file's four convolutions as products: chunks (N, 576) to (N, 128)."""
        first, second, third, fourth = self.encoder
        real, imaginary = F.conv1d(F.pad(x[:, None], (0, 64), "reflect"), fourier(), stride=128).chunk(2, 1)
        y = F.pad(torch.sqrt(real**2 + imaginary**2), (1, 1)).transpose(1, 2)
        y = F.pad(F.relu(first(torch.cat([y[:, :4], y[:, 1:5], y[:, 2:]], 2))), (0, 0, 1, 0))
        y = F.relu(second(torch.stack([y[:, :3].flatten(1), y[:, 2:].flatten(1)], 1)))
        return F.relu(fourth(F.relu(third(y.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(F.relu(self.rnn(self.of_sequences(x))[0])))

    def of_sequences(self, x: Tensor) -> Tensor:
        return self.features(x.reshape(-1, CHUNK + CONTEXT)).reshape(x.shape[0], x.shape[1], -1)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.rnn(self.features(x)[:, None], (h, c))
        return torch.sigmoid(self.head(F.relu(y[:, 0]))), h, c


def detector(stored: dict[str, Tensor]) -> Detector:
    """With the tensors of the package's TorchScript model of 16 kHz."""
    net, own = Detector(), dict[str, Tensor]()
    for kind in ("weight", "bias"):
        own[f"head.{kind}"] = stored[f"_model.decoder.decoder.2.{kind}"].reshape(getattr(net.head, kind).shape)
        for n, taps in enumerate(TAPS):
            tensor = stored[f"_model.encoder.{n}.reparam_conv.{kind}"]
            own[f"encoder.{n}.{kind}"] = tensor if kind == "bias" else tensor[..., taps].transpose(1, 2).flatten(1)
        for side in ("ih", "hh"):
            own[f"rnn.{kind}_{side}_l0"] = stored[f"_model.decoder.rnn.{kind}_{side}"]
    net.load_state_dict(own)
    return net.eval()


def chunks(sounds: Sequence[Any]) -> Tensor:
    """Sounds of one length as what the detector takes, (B, T, 576)."""
    return F.pad(torch.stack([torch.as_tensor(s) for s in sounds]), (CONTEXT, 0)).unfold(1, CHUNK + CONTEXT, CHUNK)


def subjects(folder: Path | None) -> list[Subject]:
    from silero_vad import load_silero_vad  # pyright: ignore[reportMissingImports]

    script = load_silero_vad()
    own = {"TorchScript": script, "onnxruntime": load_silero_vad(onnx=True)}
    stored, talk = script.state_dict(), Talk(folder)
    net = detector(stored)
    calibration = [chunks([talk.made(8, n)]) for n in range(20)]
    random = torch.Generator().manual_seed(0)
    heard = torch.cat([chunks([talk.made(8, 100 + n)]) for n in range(200)])
    training = [heard[torch.randperm(len(heard), generator=random)[:8]] for _ in range(100)]
    validation, test = (chunks([talk.made(20, n, part) for n in range(30)]) for part in ("validation", "test"))
    whole = functools.cache(net)

    def difference() -> float:
        script.reset_states()
        sound = torch.from_numpy(speech(20))
        theirs = torch.stack([script(x[None], 16_000)[0] for x in sound.split(CHUNK)[:-1]])
        return float((theirs - net(chunks([sound]))[0, : len(theirs)]).abs().max())

    def judge(model: Any, x: Tensor) -> dict[str, float]:
        ours, theirs = model(x), whole(x)
        same = ((ours > 0.5) == (theirs > 0.5)).float().mean()
        return {"same decisions": float(same), "off by": float((ours - theirs).abs().mean())}

    sound, shares = torch.from_numpy(speech(1))[None, :CHUNK], {"weight": (0.73, 0.655)}
    bytes_ = 4 * sum(v.numel() for k, v in stored.items() if k.startswith("_model."))
    return [
        Subject(
            "silero-vad", "silero-vad", FILE, "MIT", bytes_, net, difference, calibration, training, judge,
            validation, test, Bar("same decisions", 0.995), {"example": test[:1, :8], "time": 1}, test[0, 20:],
            lambda model: [torch.zeros(1, 1, model.rnn.hidden_size)] * 2,
            {f"its own: {name}": lambda run=run: run(sound, 16_000) for name, run in own.items()},
            talk.data, NOTE, shares=shares, steps=200, rate=5e-4, hidden={"rnn": "rnn.l0"},
            loss=lambda ours, whole: F.binary_cross_entropy(ours.clamp(1e-6, 1 - 1e-6), whole),
        )
    ]  # fmt: skip
