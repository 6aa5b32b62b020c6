"""One step of a model in its own runtime, in onnxruntime, in our stream and in C, timed in turn."""

from __future__ import annotations

import ctypes
import io
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.timing import benchmark

from .packages import session
from .subject import Subject

Call = Callable[[], Any]
LOOP = 20  # steps of one call into C, which takes as long from Python as some steps do
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
MANY = """
#include "net.h"
void many(net_state *s, const void *x, void *y, int steps);
void many(net_state *s, const void *x, void *y, int steps)
{
    for (int t = 0; t < steps; ++t)
        net_step(s, x, y);
}
"""


class Step(nn.Module):
    """One step of a model, with its states as inputs and outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        return self.model.step(x, *states)  # type: ignore[operator]


def steps(subject: Subject, nets: Mapping[str, nn.Module], folder: Path) -> dict[str, tuple[Call, int]]:
    """What is timed, by name, with the steps that one call takes. nets: the small nets, by precision."""
    found: dict[str, tuple[Call, int]] = {name: (call, 1) for name, call in subject.rivals.items()}
    whole, nets = subject.online(subject.model), {form: subject.online(net) for form, net in nets.items()}
    ours = {"ours, whole": whole, "ours": nets["float32"], "ours, int8": nets["int8"]}
    for name, net in ours.items():
        stream = srn.accelerate(net, "int8" if "int8" in name else "float32").stream(1, **subject.stream)
        found[name] = (lambda stream=stream: stream.step(subject.frame)), 1
    for name, net in (("onnxruntime, whole", whole), ("onnxruntime, small", nets["float32"])):
        if call := in_onnxruntime(subject, net):
            found[name] = call, 1
    for form, net in nets.items():
        if call := in_c(subject, net, form, folder / form):
            found["C" if form == "float32" else f"C, {form}"] = call, LOOP
    return found


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


def in_c(subject: Subject, net: nn.Module, form: str, folder: Path) -> Call | None:
    """`LOOP` steps of the C file that `net` becomes, once its vectors agree; None without a compiler."""
    report = srn.export_c(net, folder, "net", precision=form, **subject.stream)
    (folder / "many.c").write_text(MANY)
    sources = [str(folder / name) for name in ("net.c", "net_test.c", "many.c")]
    try:
        subprocess.run(["cc", *FLAGS, "-o", str(folder / "net.so"), *sources], check=True)
    except FileNotFoundError:
        return None
    code = ctypes.CDLL(str(folder / "net.so"))
    if wrong := code.net_test():
        raise RuntimeError(f"{subject.name}: step {wrong} of the C file differs from its reference.")
    state = (ctypes.c_char * report["ram"]["state"])()
    x = subject.frame.to(torch.float32 if subject.frame.is_floating_point() else torch.int32).flatten().contiguous()
    y = torch.zeros(report["outputs"][0]["shape"])
    code.net_reset(state)
    return lambda: (code.many(state, ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), LOOP), x)[:0]
