"""`benchmark`: models side by side on the same inputs, as ratios that travel."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .analysis import words
from .runtime.bounds import error_bound
from .runtime.layers import AcceleratedModel

ROUNDS = 15
_SHORTEST = 2e-3  # seconds of one timing: shorter calls are repeated within it
_LONGEST = 20.0  # seconds of the whole, where `repeats` is not given


@dataclass(frozen=True)
class Row:
    """One model. Ratios are the first model's time over this one's, round by round: above 1 is faster.

    `milliseconds` is the median over the rounds, of one call on all examples; `ratio` is the median as well. `spread`
    is the distance of the quartiles of the ratio over its median; `max_error` the largest absolute difference of any
    output from the first model's on these inputs, None where the shapes differ. `bound`, for models accelerated in
    bfloat16 or int8: what the output can differ at most from the same model's in float32, for any input of any length;
    None where there is no such bound (see `sparsernn.runtime.bounds`).
    """

    name: str
    milliseconds: float
    ratio: float
    spread: float
    max_error: float | None
    metric: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What `benchmark` returns; printing it shows the table."""

    rows: tuple[Row, ...]
    threads: int
    repeats: int
    metric_name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: rows, threads, repeats."""
        return asdict(self)

    def __rich__(self) -> Table:
        first = self.rows[0].name
        note = f"{self.repeats} interleaved rounds, {self.threads} thread" + ("" if self.threads == 1 else "s")
        bounded = any(row.bound is not None for row in self.rows)
        note += "; max error: on these inputs, bound: on any" if bounded else ""
        table = Table(title=f"Against {first}", caption=note)
        table.add_column("model")
        columns = ["time (ms)", "speed", "spread", "max error"]
        columns += (["bound"] if bounded else []) + ([self.metric_name] if self.metric_name else [])
        for column in columns:
            table.add_column(column, justify="right")
        for row in self.rows:
            cells = [row.name, words.figure(row.milliseconds, 4), words.times(row.ratio), f"±{50 * row.spread:.0f}%"]
            cells.append("other shape" if row.max_error is None else f"{row.max_error:.1e}")
            if bounded:
                cells.append("" if row.bound is None else words.figure(row.bound))
            if self.metric_name:
                cells.append("" if row.metric is None else words.figure(row.metric, 4))
            table.add_row(*cells)
        return table

    def __str__(self) -> str:
        console = Console(width=100, force_terminal=False, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def benchmark(
    models: Mapping[str, Callable[..., Any]],
    example_inputs: Any,
    *,
    metric: Callable[[Any], float] | None = None,
    repeats: int | None = None,
    console: Console | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Time `models` on `example_inputs`, one after the other in every round, print the table and return it.

    In a round each model is called once before it is timed, so that its weights lie where they do in use: in the
    caches, if they fit.

    models: name -> module (run in eval mode without gradients, left in the mode it was in) or any callable; the first
    is what the others are compared with. example_inputs: a tensor, a tuple of arguments, a dict of keywords, or a list
    of such examples, all of which one timing covers. metric: a function of the model, worked out once for each (the
    quality that a lower precision costs). repeats: rounds; default 15, or fewer where they would take long. clock:
    seconds; `time.thread_time` leaves out what other programs take of a busy machine (one thread only).

    Raises ValueError for an empty mapping or too few repeats, TypeError for a model that can't be called.
    """
    if not isinstance(models, Mapping) or not models:
        got = "no models" if isinstance(models, Mapping) else f"models as a {type(models).__name__}"
        raise ValueError(f"benchmark: got {got}; expected a dict of name -> model, the first to compare with.")
    for name, model in models.items():
        if not callable(model):
            raise TypeError(f"benchmark: {name!r} is a {type(model).__name__}, expected a module or a function.")
    if repeats is not None and repeats < 1:
        raise ValueError(f"benchmark: repeats is {repeats}, expected 1 or more.")
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    calls = {name: _call(model, examples) for name, model in models.items()}
    with _inference(models.values()):
        outputs = {name: _flat(call()) for name, call in calls.items()}
        inner, longest = {}, 0.0
        for name, call in calls.items():
            took = min(_time(call, 1, clock) for _ in range(3))
            inner[name] = max(1, round(_SHORTEST / max(took, 1e-9)))
            longest += took * (inner[name] + 1)
        rounds = repeats or max(3, min(ROUNDS, int(_LONGEST / max(longest, 1e-9))))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                call()  # not counted: the caches hold what the model before it read
                times[name].append(_time(call, inner[name], clock))
        bounds = {name: _bound(model, examples[0]) for name, model in models.items()}
        scores = {name: None if metric is None else float(metric(model)) for name, model in models.items()}
    first = next(iter(calls))
    rows = []
    for name in calls:
        ratios = sorted(a / b for a, b in zip(times[first], times[name]))
        middle = statistics.median(ratios)
        spread = (ratios[(3 * len(ratios)) // 4] - ratios[len(ratios) // 4]) / middle
        error = _difference(outputs[first], outputs[name])
        rows.append(Row(name, statistics.median(times[name]) * 1e3, middle, spread, error, scores[name], bounds[name]))
    name = None if metric is None else getattr(metric, "__name__", "metric")
    result = Benchmark(tuple(rows), torch.get_num_threads(), rounds, name)
    (console or Console()).print(result)
    return result


def _bound(model: Any, example: Any) -> float | None:
    return error_bound(model, copy.deepcopy(example)) if isinstance(model, AcceleratedModel) else None


def _call(model: Callable[..., Any], examples: list[Any]) -> Callable[[], list[Any]]:
    def one(example: Any) -> Any:
        if isinstance(example, dict):
            return model(**example)
        if isinstance(example, tuple) and not hasattr(example, "_fields"):
            return model(*example)
        return model(example)

    # Models may change their arguments in place; each has its own.
    own = copy.deepcopy(examples)
    return lambda: [one(example) for example in own]


def _time(call: Callable[[], Any], number: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(number):
        call()
    return (clock() - start) / number


@contextmanager
def _inference(models: Any) -> Iterator[None]:
    training = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    training = [module for module in training if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, PackedSequence):
        return _flat(value.data)
    if hasattr(value, "__array__"):
        return [torch.as_tensor(value).clone()]
    if isinstance(value, Mapping):
        value = list(value.values())
    try:
        parts = list(value)
    except TypeError:
        return []
    return [] if isinstance(value, str) else [tensor for part in parts for tensor in _flat(part)]


def _difference(a: list[Tensor], b: list[Tensor]) -> float | None:
    """Largest difference of the tensors that both have at the same place: states may be narrower, outputs not."""
    pairs = [(x, y) for x, y in zip(a, b) if x.shape == y.shape and x.numel()]
    if not pairs or a[0].shape != b[0].shape:
        return None
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)
