"""Listening step by step: a label that settles while the frames come in, and the time that each frame takes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.learn.quantise_aware import quantise_aware
from sparsernn.runtime.linear import AcceleratedLinear
from sparsernn.runtime.modules import Accelerated
from sparsernn.surgery.checkpoint import save

from ..models import FrameClassifier
from ..tasks.frames import Sequences, accuracy, labels
from ..tasks.log_mel import HOP, RATE, Ear, Floats, Scale

HOP_SECONDS = HOP / RATE
Start = Callable[[], Callable[[Tensor], Tensor]]  # begins anew and gives the step


@dataclass
class Listener:
    """Hears sound in pieces and knows the label so far: the class of the running mean of the frames' logits.

    `stream`: of an accelerated model. `frame_seconds`: what each frame took, features and model together.
    """

    stream: Any
    scale: Scale
    frame_seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ear = Ear(self.scale)
        self._sum_C = torch.zeros(self.stream.output_size)
        self.frames = 0
        self.stream.reset()

    def hear(self, samples_N: Floats) -> None:
        """Take in the next samples (1, -1 to 1, at RATE a second); any number of them."""
        began = time.perf_counter()
        for features_F in self._ear.feed(samples_N):
            self._sum_C += self.stream.step(torch.from_numpy(features_F)[None])[0]
            self.frames += 1
            ended = time.perf_counter()
            self.frame_seconds.append(ended - began)
            began = ended

    @property
    def shares_C(self) -> Tensor:
        """The probability of each class so far; all alike before the first frame."""
        return (self._sum_C / max(1, self.frames)).softmax(0)


def settling(listener: Listener, samples_N: Floats) -> Iterator[tuple[float, int, float]]:
    """(seconds heard, class, its probability) at the first frame and wherever the class changes."""
    label = -1
    for begin in range(0, len(samples_N), HOP):
        before = listener.frames
        listener.hear(samples_N[begin : begin + HOP])
        if listener.frames > before:
            shares_C = listener.shares_C
            now = int(shares_C.argmax())
            if now != label:
                label = now
                yield min(begin + HOP, len(samples_N)) / RATE, label, float(shares_C[now])


def same_labels(model: Any, sequences: Sequences) -> int:
    """On how many of the sequences the stream of an accelerated model gives the label of its whole-sequence call."""
    stream = model.stream(batch=1)
    streamed = []
    for x_TF in sequences.frames:
        stream.reset()
        total_1C = torch.zeros(1, stream.output_size)
        for x_1F in x_TF.split(1):
            total_1C += stream.step(x_1F)
        streamed.append(int((total_1C / len(x_TF)).argmax()))
    return int((labels(model, sequences) == torch.tensor(streamed)).sum())


def step_bytes(model: nn.Module) -> int:
    """Bytes of matrices that one step reads: as they are packed in an accelerated model, else the float32 weights."""
    total = 0
    for module in model.modules():
        if isinstance(module, AcceleratedLinear):
            total += module._engine.product(module, 1)[0].bytes  # type: ignore[union-attr]
        elif isinstance(module, Accelerated):
            for layer in chain.from_iterable(module._engine.matrices(module)):  # type: ignore[union-attr, arg-type]
                chosen = layer.choices(1, 1).items()
                total += sum(layer.matrices[name].packed(choice.layout).bytes for name, choice in chosen)
    return total or sum(4 * p.numel() for p in model.parameters() if p.dim() > 1)


def file_bytes(model: nn.Module) -> int:
    """Bytes of the file of the model as it runs."""
    with TemporaryDirectory() as folder:
        save(model, file := Path(folder) / "model.safetensors")
        return file.stat().st_size


def accuracy_in_int8(model: FrameClassifier, sequences: Sequences, example_inputs: Tensor) -> float:
    """Of the model with weights and inputs of its products rounded to int8, as int8 kernels have them."""
    rounded = copy.deepcopy(model)
    quantise_aware(rounded, example_inputs).attach(torch.optim.SGD(rounded.parameters(), 0.0))
    return accuracy(rounded, sequences)


def stepping_layers(model: FrameClassifier) -> Start:
    """Frame by frame through the model's own nn.GRU layers, sequences of one."""

    def start() -> Callable[[Tensor], Tensor]:
        states: list[Tensor | None] = [None] * len(model.layers)

        def step(x_1F: Tensor) -> Tensor:
            h_11H = x_1F[None]
            for n, layer in enumerate(model.layers):
                h_11H, states[n] = layer(h_11H, states[n])
            return model.head(h_11H[0])

        return step

    return start


def stepping_cells(model: FrameClassifier) -> Start:
    """Frame by frame through nn.GRUCell with the same weights."""
    cells: list[nn.GRUCell] = []
    for layer in model.layers:
        assert isinstance(layer, nn.GRU)
        cell = nn.GRUCell(layer.input_size, layer.hidden_size)
        cell.load_state_dict({name: getattr(layer, f"{name}_l0") for name in cell.state_dict()})
        cells.append(cell)

    def start() -> Callable[[Tensor], Tensor]:
        states: list[Tensor | None] = [None] * len(cells)

        def step(x_1F: Tensor) -> Tensor:
            h_1H = x_1F
            for n, cell in enumerate(cells):
                h_1H = states[n] = cell(h_1H, states[n])
            return model.head(h_1H)

        return step

    return start


def streaming(model: Any) -> Start:
    """Frame by frame through the stream of an accelerated model."""
    stream = model.stream(batch=1)

    def start() -> Callable[[Tensor], Tensor]:
        stream.reset()
        return stream.step

    return start


def time_frames(
    models: Mapping[str, nn.Module], sequences: Sequence[Tensor], sounds: Sequence[Floats], scale: Scale
) -> dict[str, dict[str, float]]:
    """What one frame takes in each model, one thread, all models on every sequence in turn.

    `sequences`: features (T, F); `sounds`: samples to take features of. torch's models take the faster of nn.GRU and
    nn.GRUCell. For each model: `us_step`, `us_step_p99` (median and 99th percentile of the model's step),
    `us_features` (median), `real_time_factor` (features and step over the 10 ms that a frame stands for),
    `speedup_step` and `spread_step` (against the first model, sequence by sequence; the spread is the distance of the
    quartiles over the median).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            ways: dict[str, Start] = {}
            for name, model in models.items():
                if isinstance(next(iter(model.layers)), Accelerated):  # type: ignore[arg-type]
                    ways[name] = streaming(model)
                else:
                    pair = {"layers": stepping_layers(model), "cells": stepping_cells(model)}  # type: ignore[arg-type]
                    took = _timed(pair, sequences[:4])
                    ways[name] = pair[min(pair, key=lambda way: sum(map(sum, took[way])))]
            took = _timed(ways, sequences)
        features = statistics.median(seconds for sound in sounds for seconds in _hearing(sound, scale))
    finally:
        torch.set_num_threads(threads)
    first = [sum(each) for each in took[next(iter(ways))]]
    return {name: _figures(took[name], first, features) for name in ways}


def _timed(ways: Mapping[str, Start], sequences: Sequence[Tensor]) -> dict[str, list[list[float]]]:
    """Seconds of each step: name -> for each sequence a list."""
    took: dict[str, list[list[float]]] = {name: [] for name in ways}
    for way in ways.values():  # once unmeasured, so that memory is there and kernels are compiled
        step = way()
        for x_1F in sequences[0].split(1):
            step(x_1F)
    for x_TF in sequences:
        frames = x_TF.split(1)
        for name, way in ways.items():
            step, marks = way(), [time.perf_counter()]
            for x_1F in frames:
                step(x_1F)
                marks.append(time.perf_counter())
            took[name].append([after - before for before, after in pairwise(marks)])
    return took


def _hearing(sound: Floats, scale: Scale) -> Iterator[float]:
    ear = Ear(scale)
    for begin in range(0, len(sound), HOP):
        began = time.perf_counter()
        if list(ear.feed(sound[begin : begin + HOP])):
            yield time.perf_counter() - began


def _figures(took: Sequence[Sequence[float]], first: Sequence[float], features: float) -> dict[str, float]:
    steps = sorted(seconds for sequence in took for seconds in sequence)
    middle = statistics.median(steps)
    ratios = sorted(theirs / sum(own) for theirs, own in zip(first, took))
    speedup = statistics.median(ratios)
    return {
        "us_step": 1e6 * middle,
        "us_step_p99": 1e6 * steps[int(0.99 * (len(steps) - 1))],
        "us_features": 1e6 * features,
        "real_time_factor": (middle + features) / HOP_SECONDS,
        "speedup_step": speedup,
        "spread_step": (ratios[(3 * len(ratios)) // 4] - ratios[len(ratios) // 4]) / speedup,
    }
