"""Step programs of one operation, of tensors that lie in memory in every way, and their interpreter as the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsernn.runtime.program.compiled import Compiled
from sparsernn.runtime.program.interpreter import Interpreter
from sparsernn.runtime.program.operations import OPERATIONS
from sparsernn.runtime.program.program import (
    BOOL,
    CONSTANT,
    FLOAT,
    INPUT,
    INT,
    STATE,
    WORK,
    Buffer,
    Operation,
    Port,
    Program,
    View,
)

KINDS = {torch.bool: BOOL, torch.int64: INT}


def dtype_of(tensor: Tensor) -> str:
    return KINDS.get(tensor.dtype, FLOAT)


def base_of(tensor: Tensor) -> Tensor:
    """All of the memory that `tensor` shows a part of."""
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())  # type: ignore[call-overload]


def view_of(name: str, tensor: Tensor) -> View:
    return View(name, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))


def one_operation(
    kind: str, inputs: Sequence[Tensor | float | None], options: Mapping[str, Any], constants: Sequence[int] = (),
    laid_out: str = "plain",
) -> tuple[Program, list[Tensor]]:  # fmt: skip
    """The program of a single operation and the inputs of its step: the memory of each tensor that is no constant."""
    first = [torch.as_tensor(v, dtype=torch.float64) if isinstance(v, float) else v for v in inputs]
    found = OPERATIONS[kind](*first, **options)
    results = [found] if isinstance(found, Tensor) else list(found)
    buffers, views, given, ports = {}, [], [], []
    for n, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            views.append(tensor)
            continue
        name, flat = f"x{n}", base_of(tensor)
        if n in constants:
            buffers[name] = Buffer(name, flat.numel(), dtype_of(tensor), CONSTANT, flat)
        else:
            buffers[name] = Buffer(name, flat.numel(), dtype_of(tensor), INPUT)
            ports.append(Port(name, View(name, (flat.numel(),), (1,))))
            given.append(flat)
        views.append(view_of(name, tensor))
    outputs = []
    for n, result in enumerate(results):
        place = placed(result, laid_out)
        buffers[f"y{n}"] = Buffer(f"y{n}", base_of(place).numel(), dtype_of(result), WORK)
        outputs.append(view_of(f"y{n}", place))
    operation = Operation(kind, tuple(views), tuple(outputs), options)
    program = Program(buffers, (operation,), tuple(ports), tuple(Port(v.buffer, v) for v in outputs))
    return program, given


def placed(result: Tensor, laid_out: str) -> Tensor:
    """Memory for a result: "plain", "turned" (axes in the other order) or "inside" (a part of something larger)."""
    if laid_out == "turned":
        return torch.zeros(result.shape[::-1]).permute([*reversed(range(result.dim()))])
    if laid_out == "inside":
        larger = torch.zeros([n + 2 for n in result.shape])
        return larger[tuple(slice(1, n + 1) for n in result.shape)]
    return torch.zeros(result.shape)


def error(program: Program, steps: Sequence[Sequence[Tensor]], **options: Any) -> float:
    """The largest difference between the compiled program in float32 and the interpreter in float64, over all that was
    written, in the outputs' own size where that is above 1; NaN and infinities have to be where the others are."""
    oracle, run, worst = Interpreter(program), Compiled(program, **options), 0.0
    for inputs in steps:
        want = oracle.step(*inputs)
        got = run.step(*[x.float() if x.is_floating_point() else x for x in inputs])
        assert [w is None for w in want] == [g is None for g in got]
        pairs = [(w, g) for w, g in zip(want, got) if w is not None]
        for kind in (WORK, STATE):
            pairs += [(oracle.flat(name), value) for name, value in run.content(kind).items()]
        worst = max([worst, *(apart(w, g) for w, g in pairs)])
    return worst


def apart(want: Tensor, got: Tensor) -> float:
    assert want.shape == got.shape
    if not want.is_floating_point():
        return float((want != got).any())
    want, got = want.float().double(), got.double()
    same = (want == got) | (want.isnan() & got.isnan())
    scale = want[want.isfinite()].abs().max().clamp(min=1.0) if want.isfinite().any() else 1.0
    away = torch.where(same, 0.0, (want - got).abs() / scale).nan_to_num(nan=torch.inf)
    return float(away.max()) if want.numel() else 0.0


def inputs_for(program: Program, steps: int, seed: int = 1) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one(port: Port) -> Tensor:
        kind, shape = program.buffers[port.view.buffer].dtype, port.view.shape
        if kind == INT:
            return torch.randint(2, shape, generator=generator)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise > 0 if kind == BOOL else noise

    return [[one(port) for port in program.inputs] for _ in range(steps)]
