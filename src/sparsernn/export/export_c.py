"""`export_c`: a model as one C file that gives the same bits wherever floats are IEEE's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

from torch import nn

from .._modules import copied, unwrap
from ..nn.layers import LayeredRecurrent
from ..runtime.program.program import Program
from ..runtime.program.steps import States
from .agreement import Steps, check, sample
from .blob import blob
from .calibration import limits_of
from .examples import made_of, runs_of, step_inputs
from .files import header, source
from .folder import write_all
from .footprint import footprint
from .lowering import Refused
from .measured import on_processors
from .plan import lower
from .refusals import check_choices, check_model, check_name, check_numbers, check_wrappers
from .vectors import vectors_source
from .wrappers import WRAPPERS

VECTORS = 32  # steps in NAME_test.c


def export_c(
    model: nn.Module,
    folder: str | Path,
    name: str = "model",
    example: Any = None,
    precision: str = "float32",
    weights: str = "source",
    batch: int = 1,
    *,
    time: int | Mapping[str, int | None] | None = None,
    states: States | None = None,
    delay: int = 0,
    measure: bool = False,
    wrappers: Sequence[str] = (),
    calibrate: Iterable[Any] | None = None,
) -> dict[str, Any]:
    """Write one time step of a causal model as C99 that needs no library; the same bits wherever floats are IEEE's.

    Four files come to lie in `folder`, all or none: NAME.h and NAME.c (a state without pointers, `NAME_reset`,
    `NAME_step`; no heap, no global that is written), NAME_test.c (`NAME_test()` is 0, or the number of the first step
    that differs from the reference) and NAME.json (the footprint: see below). weights="file" puts the tables into
    NAME.bin instead, which the caller loads and hands to each step.

    example: the model's inputs, as it is called, of any length in time; not needed for a model that begins with an
    Embedding, a Linear or a recurrent layer. precision: "float32", or "int8" for products with weights in int8 and one
    scale a row, inputs with one scale a step. batch: sequences that a step runs side by side (a model that takes one
    step itself, or sequences without a batch: those of the example). time, states, delay: as for
    `accelerate(model).stream`. measure: compile for Cortex-M4, aarch64 and RISC-V and run there, by an emulator
    (`pip install 'sparsernn[devices]'`; some seconds).

    calibrate: for "int8", batches of inputs (a DataLoader, or a list of what the model takes, of any length and number
    of rows): the inputs of each product get one scale for good, that of their largest number on the batches, or of a
    high percentile where that brings less error; numbers beyond it are cut. By default each step has its own scale.

    wrappers: what else is written: "c++" (NAME.hpp, a class), "python" (NAME.py, ctypes), "rust" (NAME.rs), "arduino"
    (a library folder), "web" (a page with an AudioWorklet, for a sample in and a sample out).

    Returns the content of NAME.json. "flash": bytes of the tables (exact) and of the code (an estimate unless
    measured); "ram": bytes of the state (exact), of the stack (measured); "multiply_adds" of a step; "measured": for
    each processor bytes of code and stack, and instructions of a step, which are no cycles; "limits": with `calibrate`,
    the largest number of each product's inputs that is not cut.

    Raises ValueError and RuntimeError with the reason where C can't be written, before anything is: for a model in
    training mode or accelerated already, one that can't run step by step, weights that are not finite.
    """
    check_name(name)
    check_choices(precision, weights, batch, calibrate is not None)
    model = unwrap(model)
    check_model(model)
    model = _with_all_gates(model)
    made = made_of("export_c", model, example, batch, time, states, delay)
    if calibrate is None:
        inputs, runs = step_inputs(made, VECTORS), None
    else:
        runs = list(runs_of(model, made, calibrate, batch))
        inputs = list(islice(chain.from_iterable(runs), VECTORS))
    return export_program(made.program, folder, name, precision, weights, inputs, measure, wrappers, runs)


def _with_all_gates(model: nn.Module) -> nn.Module:
    """`model`, or a copy in which layers without their constant gates have them as zero rows, which cost nothing."""
    if not any(_is_gated(module) for module in model.modules()):
        return model
    model = copied(model)
    if _is_gated(model):
        return cast(Any, model).to_dense()
    for parent in [*model.modules()]:
        for name, module in parent.named_children():
            if _is_gated(module):
                setattr(parent, name, cast(Any, module).to_dense())
    return model


def _is_gated(module: nn.Module) -> bool:
    """Whether kernels take it in its dense form only, and it is not made of other layers."""
    stack = isinstance(module, LayeredRecurrent) and module.like_torch and module.packing() is None
    return stack and next(module.children(), None) is None


def export_program(
    program: Program,
    folder: str | Path,
    name: str = "model",
    precision: str = "float32",
    weights: str = "source",
    inputs: Steps | None = None,
    measure: bool = False,
    wrappers: Sequence[str] = (),
    calibrate: Iterable[Steps] | None = None,
) -> dict[str, Any]:
    """Write `program` as NAME.h, NAME.c, NAME_test.c and NAME.json; returns the content of NAME.json.

    inputs: of some steps, each an array for every input, which the oracle is compared on; drawn at random by default.
    calibrate: sequences of such steps, by which the scales of int8 inputs are fixed.
    """
    check_name(name)
    check_choices(precision, weights, calibrated=calibrate is not None)
    check_numbers(program)
    check_wrappers(wrappers, weights, name)
    try:
        limits = None if calibrate is None else limits_of(program, calibrate)
        plan = lower(program, precision, limits)
        plan.filed = weights == "file"
    except Refused as refused:
        raise ValueError(f"export_c: {refused}") from None
    given = sample(plan, VECTORS) if inputs is None else inputs
    outputs, errors = check(plan, given, precision)
    text, tests = source(plan, name), vectors_source(plan, name, given[:VECTORS], outputs[:VECTORS])
    report = footprint(
        plan, name, precision, errors, text, on_processors(plan, name, tests, len(given)) if measure else {}
    )
    report |= {} if limits is None else {"limits": limits}
    files = {f"{name}.h": header(plan, name), f"{name}.c": text, f"{name}_test.c": tests}
    try:
        more = {file: made for kind in wrappers for file, made in WRAPPERS[kind](plan, name, files).items()}
    except Refused as refused:
        raise ValueError(f"export_c: {refused}") from None
    tables = {f"{name}.bin": blob(plan.tables)} if plan.filed else {}
    write_all(folder, {**tables, **files, **more, f"{name}.json": json.dumps(report, indent=2) + "\n"})
    return report
