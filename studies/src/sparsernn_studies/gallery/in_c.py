"""A net as C: compiled here, held against our stream on what is tested on, and counted on a Cortex-M4."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.export.machines import missing
from sparsernn.runtime.precision import Wanted

from .subject import STEP, Subject

TARGET = "Cortex-M4"
LOOP = 20  # steps of one call into C when it is timed, which takes as long from Python as some steps do
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
MANY = """
#include "net.h"
void many(net_state *s, const char *x, char *y, int steps, int given, int taken);
void many(net_state *s, const char *x, char *y, int steps, int given, int taken)
{
    for (int t = 0; t < steps; ++t, x += given, y += taken)
        net_step(s, (const void *)x, (void *)y);
}
"""


class InC:
    """The C file that `net` becomes, once its own vectors agree; `report`: what NAME.json holds.

    Called with inputs (B, T, ...) it gives outputs (B, T, ...) of sequences that each begin anew.
    """

    def __init__(self, subject: Subject, net: nn.Module, precision: str, folder: Path) -> None:
        measure = not missing("ziglang", "unicorn")
        self.report = srn.export_c(net, folder, "net", precision=precision, measure=measure, **subject.stream)
        (folder / "many.c").write_text(MANY)
        sources = [str(folder / name) for name in ("net.c", "net_test.c", "many.c")]
        subprocess.run(["cc", *FLAGS, "-o", str(folder / "net.so"), *sources], check=True)
        self.code = ctypes.CDLL(str(folder / "net.so"))
        if wrong := self.code.net_test():
            raise RuntimeError(f"{subject.name}: step {wrong} of the C file differs from its reference.")
        self.state = (ctypes.c_char * self.report["ram"]["state"])()
        self.shape = tuple(self.report["outputs"][0]["shape"])[1:]

    def __call__(self, x: Tensor) -> Tensor:
        found = torch.empty(*x.shape[:2], *self.shape)
        for own, y in zip(_as_c(x), found):
            self.code.net_reset(self.state)
            self._run(own, y, len(own), own[0].nbytes, y[0].nbytes)
        return found

    def looped(self, frame: Tensor) -> Callable[[], Any]:
        """A call that takes `LOOP` steps of one input."""
        x, y = _as_c(frame), torch.empty(self.shape)
        self.code.net_reset(self.state)
        return lambda: (self._run(x, y, LOOP, 0, 0), y)[:0]

    def _run(self, x: Tensor, y: Tensor, steps: int, given: int, taken: int) -> None:
        at = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr())
        self.code.many(self.state, *at, steps, given, taken)


def in_c(subject: Subject, net: nn.Module, precision: Wanted, folder: Path) -> InC | None:
    """None without a compiler, where layers differ in precision, which C has one of, and of what has no step."""
    if not isinstance(precision, str) or subject.call != STEP:
        return None
    try:
        return InC(subject, net, precision, folder)
    except FileNotFoundError:
        return None


def compared(subject: Subject, code: InC, stream: Any) -> dict[str, Any]:
    """How far C is from `stream`, in shares of its largest output, and from the whole net; what it takes of a device.

    The bar's metrics are there where all of the model runs step by step.
    """
    stream.reset()
    ours = torch.stack([stream.step(x).clone()[0] for x in subject.heard.split(1)])
    off = float((code(subject.heard[None])[0] - ours).abs().max() / ours.abs().max())
    found: dict[str, Any] = {"steps": len(ours), "off by": off}
    if subject.online(subject.model) is subject.model:
        found["test"] = {name: float(value) for name, value in subject.judge(code, subject.test).items()}
    flash, ram = code.report["flash"], code.report["ram"]
    found |= {"flash": flash["tables"] + flash["code"], "ram": sum(ram.values())}
    return found | {"instructions": code.report["measured"].get(TARGET, {}).get("instructions")}


def _as_c(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.is_floating_point() else torch.int32).contiguous()
