"""Recurrent layers: along time one step with a state, along features a step for each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..eliminate import Rule, Step, joined
from ..program import INPUT, Clock
from ..values import CONST, HELD, NOW, SEQUENCE, Value
from ..windows import begin, delayed, reached
from .moves import clock_of
from .pointwise import aligned
from .slices import settled

_MODES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN_TANH", "rnn_relu": "RNN_RELU"}
_MOST = 256  # steps along features that are written out


def layers(step: Step) -> list[Value]:
    """lstm, gru, rnn_tanh, rnn_relu over a whole sequence."""
    mode = _MODES[step.name]
    if "batch_sizes" in step.args:
        step.fail("runs over a packed sequence, whose rows end at different steps: give the stream one row's steps.")
    x, given = step["input"], step["hx"]
    states: list[Value] = given if isinstance(given, list) else [given]
    time_axis = 1 if step["batch_first"] and step.dim(x) == 3 else 0
    if x.axis is not None and x.axis != time_axis:
        step.fail("goes over another axis than time.") if x.axis == step.dim(x) - 1 else None
    if x.axis == time_axis and step["bidirectional"]:
        step.fail("is bidirectional: its backward direction needs the whole sequence. Stream the parts before it.")
    if x.axis == time_axis and x.moves and step.asked:
        x = settled(step, x)
    if x.axis == time_axis and x.moves:  # not before what it begins with
        known = max((s.clock.first for s in states if s.kind == HELD), default=x.clock.first)
        x = delayed(step.build, x, reached(x.clock, known))
    tensor = step.tensor(x)
    batched = tensor.dim() == 3
    tensor = tensor if batched else tensor.unsqueeze(1 - time_axis)
    along = tensor.movedim(1 if step["batch_first"] and batched else 0, 0)  # (steps, B, features)
    clock = clock_of(x)
    in_time = x.axis == time_axis and x.moves
    if len(along) > _MOST:
        step.fail(f"goes over {len(along)} features, of which at most {_MOST} are written out.")
    finals: list[list[Tensor]] = []
    directions = 2 if step["bidirectional"] else 1
    weights = [step.tensor(p) for p in step["params"]]
    per = (4 if step["has_biases"] else 2) + (1 if mode == "LSTM" and _projected(step, states) else 0)
    memory = _memories(step, states, in_time, clock, batched, along.shape[1])
    frames = list(along.unbind(0))
    for layer in range(step["num_layers"]):
        outputs = []
        for d in range(directions):
            n = layer * directions + d
            own = _slots(weights[n * per : (n + 1) * per], bool(step["has_biases"]))
            kept = [m[n] for m in memory]
            done: list[Any] = [None] * len(frames)
            for k in range(len(frames)) if d == 0 else reversed(range(len(frames))):
                step.build.emit("recurrent", (frames[k], *own, *kept), tuple(kept), clock, {"mode": mode})
                done[k] = kept[0] if in_time else step.build.copied(kept[0], clock)
            outputs.append(done)
            finals.append(kept)
        frames = outputs[0] if directions == 1 else [_beside(step, a, b, clock) for a, b in zip(*outputs)]
    if in_time:
        out = frames[0].unsqueeze(time_axis if batched else 0)
        out = out if batched else frames[0]
    else:
        out = step.build.work("rnn", (len(frames), *frames[0].shape))
        for k, frame in enumerate(frames):
            step.build.emit("copy", (frame,), (out[k],), clock)
        out = out.movedim(0, time_axis)
        out = out if batched else out.squeeze(1)
    shown = [m if batched else m.squeeze(1) for m in memory]
    last = [Value(NOW, m, None, clock) if in_time else step.gives(m, x, n + 1) for n, m in enumerate(shown)]
    return [step.gives(out, x, 0), *last]


def _projected(step: Step, states: Sequence[Value]) -> bool:
    return step.tensor(states[0]).shape[-1] != step.tensor(states[1]).shape[-1]


def _slots(weights: list[Tensor], biased: bool) -> tuple[Tensor | None, ...]:
    """w_ih, w_hh, b_ih, b_hh, w_hr."""
    w_ih, w_hh, *rest = weights
    biases = rest[:2] if biased else [None, None]
    hr = rest[2 if biased else 0 :]
    return (w_ih, w_hh, *biases, hr[0] if hr else None)


def _memories(
    step: Step, states: Sequence[Value], in_time: bool, clock: Clock, batched: bool, rows: int
) -> list[Tensor]:
    """h and c of all layers and directions, (n, B, width): along time a state, along features set anew each step."""
    found = []
    for name, value in zip(("h", "c"), states):
        tensor = step.tensor(value)
        tensor = tensor if batched else tensor.unsqueeze(1)
        tensor = tensor.expand(tensor.shape[0], rows, tensor.shape[2])
        if in_time:
            if value.kind == HELD and step.build.kind(tensor) == INPUT:
                step.fail("starts from a state that is an input: name it in states=, beside time=.")
            if value.kind == HELD:
                found.append(step.build.state(name, tensor.shape, tensor))
                begin(step.build, found[-1], tensor, clock)
                continue
            if value.kind != CONST:
                step.fail("starts from a state that the model computes of the sequence: start from zeros.")
            assert value.data is not None
            start = value.data.expand(tensor.shape if batched else tensor.squeeze(1).shape)
            found.append(step.build.state(name, tensor.shape, tensor, start.contiguous()))
        else:
            memory = step.build.work(name, tensor.shape, tensor)
            step.build.emit("copy", (tensor,), (memory,), clock)
            found.append(memory)
    return found


def _beside(step: Step, a: Tensor, b: Tensor, clock: Clock) -> Tensor:
    out = step.build.work("both", (*a.shape[:-1], a.shape[-1] + b.shape[-1]))
    step.build.emit("copy", (a,), (out[..., : a.shape[-1]],), clock)
    step.build.emit("copy", (b,), (out[..., a.shape[-1] :],), clock)
    return out


def cell(step: Step) -> Any:
    """lstm_cell, gru_cell, rnn_tanh_cell, rnn_relu_cell: one step, its states given."""
    mode = _MODES[step.name.removesuffix("_cell")]
    given = step["hx"]
    values = aligned(step, [step["input"], *(given if isinstance(given, list) else [given])])
    kind, clock = joined(step, values)
    x, *states = map(step.tensor, values)
    weights = [step.tensor(step.get(n)) for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
    rows = torch.broadcast_shapes(*(t.shape for t in states))
    new = [step.build.work(name, rows) for name in ("h", "c")[: len(states)]]
    flat = [t if t.dim() == 2 else t.unsqueeze(0) for t in (x, *states, *new)]
    inputs, before, after = flat[0], flat[1 : 1 + len(states)], flat[1 + len(states) :]
    step.build.emit("recurrent", (inputs, *weights, None, *before), tuple(after), clock, {"mode": mode})
    first = next((v for v in values if v.kind == kind), values[0])
    if kind == SEQUENCE:
        results = [step.gives(t, first, n if len(states) == 2 else None, clock=clock) for n, t in enumerate(new)]
    else:
        results = [Value(kind, t, None, clock) for t in new]
    return results if len(states) == 2 else results[0]


RULES: dict[str, Rule] = dict.fromkeys(_MODES, layers) | {f"{name}_cell": cell for name in _MODES}
