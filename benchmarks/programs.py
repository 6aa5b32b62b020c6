"""Models that are no chain, one step of a stream, against torch and onnxruntime with states as inputs and outputs."""

from __future__ import annotations

import io
import warnings
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.program import INPUT, WORK, Buffer, Operation, Port, Program, whole

from .endurance import STEPS, lasting
from .measure import Ceiling, Engine, Ideal, Row, quickest, small_weights, versus
from .programs_models import Crn, Policy, Step, Tcn

MODELS: dict[str, tuple[Any, tuple[int, ...], int, int, float]] = {  # frame, axis of time, its steps, target
    "TCN + GRU": (Tcn, (1, 40), 1, 24, 3),
    "CRN": (Crn, (1, 1, 64), 2, 24, 3),
    "policy": (Policy, (1, 45), 1, 24, 5),
}
DISPATCH = 8  # nanoseconds an operation at most


def programs(ceiling: Ceiling, rounds: int) -> list[Row]:
    """A TCN with a GRU, a CRN and a policy, step by step; the times of 10,000 steps, and whether memory grows."""
    rows = []
    for name, (make, shape, axis, steps, target) in MODELS.items():
        torch.manual_seed(0)
        model = small_weights(make()).eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.2), module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        frame = torch.randn(*shape)
        example = torch.randn(*shape[:axis], steps, *shape[axis:])
        stream = srn.accelerate(model).stream(1, example=example, time=axis)
        others = {"torch": _torch(model, frame), "onnxruntime": _onnx(model, frame, target)}
        found = versus(f"{name}, one step", _stream(stream, frame), others, _ideal(ceiling, model), rounds)
        stream.reset()
        lasted = lasting(stream, list(torch.randn(STEPS, *shape)))
        print(f"{name}: {lasted}")
        rows += [row | lasted for row in found]
    took = round(median(dispatch() for _ in range(9)), 2)  # a difference of two times: one alone says little
    print(f"dispatch: {took} ns an operation of 16 numbers, {DISPATCH} at most")
    return [row | {"dispatch_ns": took} for row in rows]


def dispatch(count: int = 400) -> float:
    """Nanoseconds that one more operation, a relu of 16 numbers, adds to a step."""
    took = [_chain(n) for n in (count, 2 * count)]
    return (took[1] - took[0]) / count * 1e9


def _chain(count: int) -> float:
    x, y = whole("x", (16,)), whole("y", (16,))
    buffers = {"x": Buffer("x", 16, "float", INPUT), "y": Buffer("y", 16, "float", WORK)}
    operations = tuple(Operation("relu", (x if n == 0 else y,), (y,)) for n in range(count))
    run = Compiled(Program(buffers, operations, (Port("x", x),), (Port("y", y),)))
    frame = torch.randn(16)
    return quickest(lambda: run.step(frame), 2000)


def _stream(stream: Any, frame: Tensor) -> Engine:
    def check() -> Tensor:
        stream.reset()
        return stream.step(frame).clone()

    return Engine(lambda: stream.step(frame), check)


def _torch(model: Any, frame: Tensor) -> Engine:
    carried = [model.states()]

    def step() -> Tensor:
        y, *carried[0] = model.step(frame, *carried[0])
        return y

    def check() -> Tensor:
        carried[0] = model.states()
        return step()

    return Engine(step, check)


def _onnx(model: Any, frame: Tensor, target: float) -> Engine:
    import onnxruntime

    states, file = model.states(), io.BytesIO()
    names = [f"s{n}" for n in range(len(states))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Step(model).eval(), (frame, *states), file, input_names=["x", *names],
            output_names=["y", *(f"{name}_next" for name in names)], dynamo=False,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": frame.numpy()}
    carried = [[s.numpy() for s in states]]

    def step() -> Any:
        y, *carried[0] = session.run(None, {**feeds, **dict(zip(names, carried[0]))})
        return y

    def check() -> Any:
        carried[0] = [s.numpy() for s in model.states()]
        return step()

    return Engine(step, check, target)


def _ideal(ceiling: Ceiling, model: nn.Module) -> Ideal:
    """Every weight read once, from the caches that hold them all."""
    size = sum(4 * p.numel() for p in model.parameters())
    return Ideal(ceiling.call + size / ceiling.bandwidth(size), "bytes")
