"""Before anything is written: the oracle, whose bits C will give, against the program in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..runtime.program.interpreter import Interpreter
from .lowering import Plan
from .oracle import Oracle

LIMIT = 1e-5  # of the outputs' size, or four times what torch's own float32 is off
INT8 = 0.25  # the root mean square error of a model in int8, as a share of its outputs' own root mean square
Steps = Sequence[Sequence[np.ndarray]]


def sample(plan: Plan, steps: int, seed: int = 0) -> list[list[np.ndarray]]:
    """Inputs to try a plan with: normal numbers, tokens from all of the table."""
    random = np.random.default_rng(seed)
    return [[_one(plan, k, random) for k in range(len(plan.inputs))] for _ in range(steps)]


def _one(plan: Plan, k: int, random: np.random.Generator) -> np.ndarray:
    argument = plan.inputs[k]
    shape = argument.place.shape
    if argument.place.dtype == "float":
        return random.normal(size=shape).astype(np.float32)
    if argument.place.dtype == "bool":
        return random.integers(0, 2, shape).astype(np.bool_)
    return random.integers(0, plan.bounds.get(argument.port.view.buffer, 2), shape).astype(np.int32)


def check(plan: Plan, inputs: Steps, precision: str) -> tuple[list[list[np.ndarray | None]], dict[str, float]]:
    """The oracle's outputs, and how far they are from the model's. Raises RuntimeError if that is too far."""
    given = Oracle(plan).run(inputs)
    exact, single = (_interpreted(plan, inputs, dtype) for dtype in (torch.float64, torch.float32))
    errors = {"largest": 0.0, "torch_float32": 0.0, "relative": 0.0}
    finite: list[bool] = []
    for k, argument in enumerate(plan.outputs):
        rows = [(g[k], e[k], s[k]) for g, e, s in zip(given, exact, single) if g[k] is not None]
        if not rows or argument.place.dtype != "float":
            continue
        ours, true, theirs = (np.stack([np.asarray(row[i], np.float64) for row in rows]) for i in range(3))
        known = np.isfinite(true)
        if not (np.isfinite(ours) == known).all():
            raise RuntimeError(_far(argument.port.name, "it is finite where the model is not, or the other way round"))
        finite.append(bool(known.any()))
        if not finite[-1]:
            continue
        error, own = (float(np.abs(v[known] - true[known]).max()) for v in (ours, theirs))
        size = max(1.0, float(np.abs(true[known]).max()))
        spread = float(np.sqrt(np.mean(true[known] ** 2)))
        relative = float(np.sqrt(np.mean((ours[known] - true[known]) ** 2))) / max(spread, 1e-12)
        for name, value in (("largest", error), ("torch_float32", own), ("relative", relative)):
            errors[name] = max(errors[name], value)
        if precision == "float32" and error > max(LIMIT * size, 4 * own):
            raise RuntimeError(_far(argument.port.name, f"an error of {error:.2g}; torch's float32 has {own:.2g}"))
        if precision == "int8" and relative > INT8:
            raise RuntimeError(
                f"export_c: in int8 {argument.port.name} is off by {relative:.0%} of its size (root mean square): "
                "this model does not bear it. Use precision='float32'."
            )
    if finite and not any(finite):
        raise RuntimeError(
            "export_c: on the example the model gives no number that is finite: nothing tells whether C is right. "
            "Give another example."
        )
    return given, errors


def _far(name: str, what: str) -> str:
    return f"export_c: output {name} as C works it out differs from the model: {what}. Nothing was written."


def _interpreted(plan: Plan, inputs: Steps, dtype: torch.dtype) -> list[list[np.ndarray | None]]:
    run = Interpreter(plan.program, dtype)
    found = []
    for one in inputs:
        given = [torch.from_numpy(np.array(x)) for x in one]
        found.append([None if y is None else y.numpy() for y in run.step(*given)])
    return found
