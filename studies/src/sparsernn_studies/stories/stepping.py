"""One streaming step of a character LSTM, batch 1, state carried, in the ways there are to run it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from sparsernn.timing import Row, benchmark

Step = Callable[[Tensor], Tensor]
# The thread's own time, where it is told finely enough: other programs on the machine don't count then.
CLOCK = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter


def step_lstm(model: Any) -> Step:
    """Through the model's own nn.LSTM, a sequence of one."""
    state = [model.zero_state(1)]

    def step(x_B: Tensor) -> Tensor:
        logits_TBV, state[0] = model(x_B[None], state[0])
        return logits_TBV[0]

    return step


def step_cell(model: Any) -> Step:
    """Through nn.LSTMCell with the same weights."""
    lstm = model.lstm
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size)
    cell.load_state_dict({name: getattr(lstm, f"{name}_l0") for name in cell.state_dict()})
    state = [tuple(part[0] for part in model.zero_state(1))]

    def step(x_B: Tensor) -> Tensor:
        state[0] = cell(model.embedding(x_B), state[0])
        return model.head(state[0][0])

    return step


def time_steps(models: Mapping[str, nn.Module], fast: Sequence[str], rounds: int) -> dict[str, Row]:
    """Time one step of each model, one thread; torch's rows are the faster of nn.LSTM and nn.LSTMCell.

    Ratios are against the first model; the models named in `fast` run as streams.
    """
    x_B = torch.zeros(1, dtype=torch.long)
    ways: dict[str, Step] = {}
    for name, model in models.items():
        if name in fast:
            ways[name] = model.stream(batch=1).step  # type: ignore[operator, union-attr]
            continue
        pair: dict[str, Step] = {"lstm": step_lstm(model), "cell": step_cell(model)}
        ways[name] = pair[min(timed(pair, x_B, rounds).values(), key=lambda row: row.milliseconds).name]
    # Once more, all of them side by side, since a ratio is worked out round by round.
    return timed(ways, x_B, rounds)


def timed(works: Mapping[str, Callable[..., Any]], x: Tensor, rounds: int) -> dict[str, Row]:
    """Time each of `works` on `x`, one thread; ratios are against the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            quiet = Console(file=io.StringIO())
            found = benchmark(works, x, repeats=rounds, console=quiet, clock=CLOCK)
            return {row.name: row for row in found.rows}
    finally:
        torch.set_num_threads(threads)
