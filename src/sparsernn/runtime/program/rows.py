"""Which numbers of a state belong to which row of the batch: found by changing one row of the inputs and looking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .interpreter import Interpreter
from .program import FLOAT, INT, STATE, Clock, Program

_STEPS = 24  # at least, and beyond the length of every memory of past steps


def mask_of(rows: Any, batch: int) -> Tensor:
    """`rows` as booleans (batch,); ValueError for anything else."""
    mask = torch.as_tensor(rows, device="cpu")
    if mask.dtype != torch.bool or tuple(mask.shape) != (batch,):
        got = f"{tuple(mask.shape)} {str(mask.dtype).removeprefix('torch.')}"
        raise ValueError(f"reset: got rows of {got}, expected ({batch},) bool: True for the rows that start anew.")
    return mask


def steps_of_rows(program: Program, batch: int) -> dict[str, int]:
    """For each state that has rows the distance of one from the next: number e belongs to row (e // distance) % batch.

    ValueError where rows can't start anew one by one, or where it was not found out.
    """
    clocks: list[Clock] = [*(o.clock for o in program.operations), *(p.clock for p in program.outputs)]
    late = any(o.options.get("until", 0) > 0 for o in program.operations)
    if late or any(clock.every > 1 or clock.first > 0 for clock in clocks):
        raise ValueError(
            "reset: some of this stream's outputs or operations are due at certain steps of a sequence only,\n"
            "which are the same for all rows: reset all of them, or open a stream for each."
        )
    steps = _STEPS + max((o.outputs[0].shape[0] for o in program.operations if o.kind == "push"), default=0)
    plain = _ends(program, batch, steps, None)
    changed = {row: _differing(plain, _ends(program, batch, steps, row)) for row in (0, batch - 1)}
    start = {name: Interpreter(program).flat(name) for name in plain}
    found: dict[str, int] = {}
    for name, end in plain.items():
        own = {row: at[name] for row, at in changed.items()}
        if not any(len(at) for at in own.values()):
            if not torch.equal(end, start[name]):
                raise ValueError(f"reset: the state {name} counts steps for all rows together: reset all of them.")
            continue
        fits = [step for step in range(1, len(end) // batch + 1) if _fits(step, batch, len(end), own)]
        if not fits:
            raise ValueError(f"reset: which numbers of the state {name} belong to which row is unknown: reset all.")
        found[name] = fits[-1]
    return found


def _fits(step: int, batch: int, size: int, own: dict[int, Tensor]) -> bool:
    return size % (batch * step) == 0 and all(bool(((at // step) % batch == row).all()) for row, at in own.items())


def _ends(program: Program, batch: int, steps: int, changed: int | None) -> dict[str, Tensor]:
    """What the states are after so many steps of random inputs, with row `changed` another one."""
    run, generator = Interpreter(program), torch.Generator("cpu").manual_seed(0)
    for _ in range(steps):
        run.step(*[_input(program, p.view.buffer, p.view.shape, batch, changed, generator) for p in program.inputs])
    return {name: run.flat(name).clone() for name, b in program.buffers.items() if b.kind == STATE}


def _input(
    program: Program, name: str, shape: Sequence[int], batch: int, changed: int | None, generator: torch.Generator
) -> Tensor:
    kind = program.buffers[name].dtype
    two = torch.randn(2, *shape, generator=generator, dtype=torch.float64, device="cpu")
    if kind != FLOAT:
        two = (two > 0).to(torch.int64 if kind == INT else torch.bool)
    axis = next((n for n, size in enumerate(shape) if size == batch), None)
    if changed is not None and axis is not None:
        two[0].select(axis, changed).copy_(two[1].select(axis, changed))
    return two[0]


def _differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (value != b[name]).nonzero().view(-1) for name, value in a.items()}
