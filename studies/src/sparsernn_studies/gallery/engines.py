"""One step, or one call, of a model in its own runtime, in onnxruntime, in our stream and in C, timed in turn."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.runtime.precision import Wanted
from sparsernn.timing import benchmark

from .in_c import LOOP, compared, in_c
from .packages import session
from .precision import online
from .subject import STEP, Subject

Call = Callable[[], Any]


class Step(nn.Module):
    """One step of a model, with its states as inputs and outputs; a call of it where it has none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        return self.model.step(x, *states) if states else (self.model(x),)  # type: ignore[operator]


def steps(
    subject: Subject, nets: Mapping[str, tuple[nn.Module, Wanted]], folder: Path
) -> tuple[dict[str, tuple[Call, int]], dict[str, Any]]:
    """What is timed, by name, with the steps that one call takes; and what is said of the C of each form.

    nets: the small nets and their precisions, by form.
    """
    found: dict[str, tuple[Call, int]] = {name: (call, 1) for name, call in subject.rivals.items()}
    parts = {form: subject.online(net) for form, (net, _) in nets.items()}
    wanted: dict[str, Wanted] = {form: online(net, parts[form], precision) for form, (net, precision) in nets.items()}
    whole = subject.online(subject.model)
    found["ours, whole"] = _called(subject, _fast(subject, whole)), 1
    fast = {form: _fast(subject, part, wanted[form]) for form, part in parts.items()}
    for form, own in fast.items():
        found["ours" if form == "float32" else f"ours, {form}"] = _called(subject, own), 1
    for name, net in (("onnxruntime, whole", whole), ("onnxruntime, small", parts["float32"])):
        if call := in_onnxruntime(subject, net):
            found[name] = call, 1
    said = {}
    for form, part in parts.items():
        if code := in_c(subject, part, wanted[form], folder / form):
            said[form] = compared(subject, code, fast[form])
            found["C" if form == "float32" else f"C, {form}"] = code.looped(subject.frame), LOOP
    return found, said


def _fast(subject: Subject, net: nn.Module, precision: Wanted = "float32") -> Any:
    """What takes steps, or `net` itself where it has none."""
    made = srn.accelerate(net, precision)
    return made.stream(1, **subject.stream) if subject.call == STEP else made


def _called(subject: Subject, fast: Any) -> Call:
    run = fast.step if subject.call == STEP else fast
    return lambda: run(subject.frame)


def timed(calls: Mapping[str, tuple[Call, int]], rounds: int) -> dict[str, float]:
    """Microseconds of one step each, the median of rounds in which all take turns; the thread's own time."""
    models = {name: (lambda _, call=call: call()) for name, (call, _) in calls.items()}
    quiet = Console(file=io.StringIO())
    found = benchmark(models, torch.zeros(1), repeats=rounds, console=quiet, clock=time.thread_time)
    return {row.name: row.milliseconds * 1000 / calls[row.name][1] for row in found.rows}


def in_onnxruntime(subject: Subject, net: nn.Module) -> Call | None:
    """A step of torch's export of `net`; None without onnxruntime, or where torch can't write it."""
    try:
        import onnxruntime as _  # noqa: F401
    except ImportError:
        return None
    states, file = list(subject.states(net)), io.BytesIO()
    names = [f"s{n}" for n in range(len(states))]
    following = Step(net)(subject.frame, *states)[1:]
    if [getattr(state, "shape", None) for state in following] != [state.shape for state in states]:
        return None  # layers of unequal widths: their states are no tensor
    given: Any = file
    torch.onnx.export(
        Step(net).eval(), (subject.frame, *states), given, input_names=["x", *names],
        output_names=["y", *(f"{name}_next" for name in names)], dynamo=False, verbose=False,
    )  # fmt: skip
    run = session(file.getvalue())
    kept = [{name: state.numpy() for name, state in zip(names, states)}]
    x = subject.frame.numpy()

    def call() -> Any:
        y, *following = run.run(None, {"x": x, **kept[0]})
        kept[0] = dict(zip(names, following))
        return y

    return call
