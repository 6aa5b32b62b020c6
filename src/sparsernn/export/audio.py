"""Formats of audio plug-ins: the JSON that RTNeural reads, the .nam file of neural-amp-modeler's LSTM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..files import write_atomically
from .layers import ACTIVATIONS, Link, links

NAM_VERSION = "0.5.4"


def export_rtneural(model: nn.Module, path: str | Path, example: Any = None) -> None:
    """Write a chain of LSTM, GRU, Linear layers and activations as the JSON that RTNeural's `parseJson` reads.

    Matrices are (inputs, outputs), gates in Keras' order. RTNeural begins with zero states. Raises ValueError for a
    model of another form.
    """
    found = links("export_rtneural", model, example)
    if any(np.any(state) for link in found for state in link.states):
        raise ValueError("export_rtneural: RTNeural begins with zero states, and this model does not.")
    layers: list[dict[str, Any]] = []
    for link in found:
        if link.kind in ACTIVATIONS:
            if not layers or layers[-1]["type"] != "dense" or layers[-1]["activation"]:
                raise ValueError(f"export_rtneural: {link.kind} has to follow on a Linear layer.")
            layers[-1]["activation"] = link.kind
        elif link.kind in _RTNEURAL:
            kind, weights = _RTNEURAL[link.kind](link)
            layers.append({"type": kind, "activation": "", "shape": [None, None, link.outputs],
                           "weights": [w.tolist() for w in weights]})  # fmt: skip
        else:
            raise ValueError(f"export_rtneural: RTNeural has no layer of the kind {link.kind}.")
    content = {"in_shape": [None, None, found[0].inputs], "layers": layers}
    write_atomically(Path(path), json.dumps(content).encode())


def _lstm(link: Link) -> tuple[str, list[np.ndarray]]:
    w_ih, w_hh, b_ih, b_hh = link.weights
    return "lstm", [w_ih.T, w_hh.T, b_ih + b_hh]


def _gru(link: Link) -> tuple[str, list[np.ndarray]]:
    r, z, n = np.split(np.arange(3 * link.outputs), 3)
    w_ih, w_hh, b_ih, b_hh = (w[np.r_[z, r, n]] for w in link.weights)
    return "gru", [w_ih.T, w_hh.T, np.stack([b_ih, b_hh])]


def _linear(link: Link) -> tuple[str, list[np.ndarray]]:
    return "dense", [link.weights[0].T, link.weights[1]]


_RTNEURAL = {"LSTM": _lstm, "GRU": _gru, "linear": _linear}


def export_nam(model: nn.Module, path: str | Path, example: Any = None, *, sample_rate: int = 48_000) -> None:
    """Write LSTM layers and a Linear layer behind them as a .nam file, which neural-amp-modeler plays.

    The file is of its architecture "LSTM": the layers have one width, the Linear layer one output. `sample_rate` is in
    samples a second. Raises ValueError for a model of another form.
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float)) or not 0 < sample_rate < float("inf"):
        raise ValueError(f"export_nam: got sample_rate={sample_rate!r}, expected samples a second, 48000 say.")
    *layers, head = links("export_nam", model, example)
    widths = {layer.outputs for layer in layers}
    known = len(widths) == 1 and all(layer.kind == "LSTM" for layer in layers)
    if not known or (head.kind, head.outputs) != ("linear", 1):
        form = ", ".join(f"{x.kind} {x.inputs} to {x.outputs}" for x in (*layers, head))
        raise ValueError(f"export_nam: got {form}; expected LSTM layers of one width and a Linear layer of one output.")
    weights: list[np.ndarray] = []
    for layer in layers:
        w_ih, w_hh, b_ih, b_hh = layer.weights
        weights += [np.concatenate([w_ih, w_hh], 1), b_ih + b_hh, *layer.states]
    weights += [*head.weights]
    config = {"input_size": layers[0].inputs, "hidden_size": widths.pop(), "num_layers": len(layers)}
    content = {"version": NAM_VERSION, "metadata": {}, "architecture": "LSTM", "config": config,
               "weights": np.concatenate([w.reshape(-1) for w in weights]).tolist(),
               "sample_rate": sample_rate}  # fmt: skip
    write_atomically(Path(path), json.dumps(content).encode())
