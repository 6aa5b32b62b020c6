"""Models of packages, streamed: `python -m benchmarks.real_models`.

Needs an environment of its own: see benchmarks/real-requirements.txt. Each model takes 10,000 steps and gives what the
package's own runtime gives, to 1e-5 (of the largest number of a step where that is above one); then one step is timed
against onnxruntime with states as inputs and outputs, torch and that runtime. Writes
results/benchmarks/real_models.json, from which `python docs/generate.py` makes tables; `--only silero` shows one
package and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import sys
import time
import tracemalloc
import warnings
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sparsernn as srn
from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings

from . import measure
from .endurance import resident
from .measure import RESULTS, Ceiling, Engine, Row, quickest, versus
from .real import dtln, phonemes, policy, silero, speaker
from .real.work import Real, Stepper, session

PARTS = {"silero": silero, "dtln": dtln, "resemblyzer": speaker, "g2p": phonemes, "rsl": policy}
SAME = 1e-5
WARM = 100  # steps after which memory is counted


def ours(real: Real) -> Stepper:
    """The stream; states that a sequence starts from are assigned."""
    stream = srn.accelerate(real.model).stream(1, **real.stream)

    def reset(start: Any) -> None:
        stream.reset()
        if start:
            stream.state = dict(zip(real.starts, start))

    if len(real.states) and real.single is real.model:  # the model's own outputs: the first, then its states
        return Stepper(reset, lambda frame: stream.step(frame)[0])
    return Stepper(reset, stream.step)


def plain(real: Real, dtype: torch.dtype = torch.float32) -> Stepper:
    """torch, with the states as inputs and outputs."""
    kept: list[Any] = [()]

    def reset(start: Any) -> None:
        kept[0] = [s.to(dtype) for s in start or real.states]

    def step(frame: Tensor) -> Any:
        y, *kept[0] = real.single(frame.to(dtype) if frame.is_floating_point() else frame, *kept[0])
        return y

    return Stepper(reset, step)


def exported(real: Real) -> Stepper:
    """onnxruntime on the faster of torch's two exports of one step, with the states as inputs and outputs."""
    frame = real.runs[0].frames[0]
    found = []
    for dynamo in (False, True):
        try:
            run = session(_export(real, frame, dynamo))
        except Exception as error:
            print(f"  torch.onnx.export(dynamo={dynamo}): {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        found.append(_stepping(run, real))
    for stepper in found:
        stepper.reset(())
    return min(found, key=lambda stepper: quickest(lambda: stepper.step(frame), 200))


def _export(real: Real, frame: Tensor, dynamo: bool) -> bytes:
    names = [f"s{n}" for n in range(len(real.states))]
    file: Any = io.BytesIO()
    torch.onnx.export(
        real.single, (frame, *real.states), file, input_names=["x", *names],
        output_names=["y", *(f"{name}_next" for name in names)], dynamo=dynamo, verbose=False,
    )  # fmt: skip
    return file.getvalue()


def _stepping(run: Any, real: Real) -> Stepper:
    x, *names = (given.name for given in run.get_inputs())
    kept: list[Any] = [()]

    def reset(start: Any) -> None:
        kept[0] = [s.numpy() for s in start or real.states]

    def step(frame: Tensor) -> Any:
        y, *kept[0] = run.run(None, {x: frame.numpy(), **dict(zip(names, kept[0]))})
        return y

    return Stepper(reset, step)


def outputs(real: Real, stepper: Stepper) -> list[np.ndarray | None]:
    """Of all steps of all sequences."""
    found = []
    for run in real.runs:
        stepper.reset(run.start)
        for frame in run.frames:
            y = stepper.step(frame)
            found.append(None if y is None else np.array(y).reshape(-1))
    return found


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest; of outputs with numbers above one relative to the largest number of the step, since scores are sums
    of that size."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return max(float(np.abs(a - b).max() / max(1, np.abs(a).max())) for a, b in pairs)


def long(real: Real, stepper: Stepper) -> Row:
    """Times of all steps, and by how much the process grew between the 100th step and the last."""
    steps = sum(len(run.frames) for run in real.runs)
    times, number, traced, grown = np.ones(steps), 0, 0, resident()
    tracemalloc.start()
    for run in real.runs:
        stepper.reset(run.start)
        for frame in run.frames:
            stepper.step(frame)
            number += 1
            if number == WARM:
                traced, grown = tracemalloc.get_traced_memory()[0], resident()
    traced, grown = tracemalloc.get_traced_memory()[0] - traced, resident() - grown
    tracemalloc.stop()
    number = 0
    for run in real.runs:
        stepper.reset(run.start)
        for frame in run.frames:
            start = measure.clock()
            stepper.step(frame)
            times[number] = measure.clock() - start
            number += 1
    p50, p99 = (round(float(np.quantile(times, q)) * 1e6, 2) for q in (0.5, 0.99))
    return {"steps": steps, "p50, us": p50, "p99, us": p99, "Python bytes grown": traced, "resident bytes grown": grown}


def engine(real: Real, stepper: Stepper, aim: float | None = None) -> Engine:
    """What is timed: a frame from the middle, again and again."""
    run = real.runs[0]
    frame = run.frames[len(run.frames) // 2]

    def check() -> Any:
        stepper.reset(run.start)
        return np.array(stepper.step(frame))

    check()
    return Engine(lambda: stepper.step(frame), check, aim)


def exact(real: Real) -> Stepper:
    """One step in float64, the measure of everybody's error."""
    return plain(real._replace(single=copy.deepcopy(real.single).double()), torch.float64)


def measured(name: str, real: Real, ceiling: Ceiling, rounds: int) -> tuple[Row, list[Row]]:
    """What a stream of one model gives and takes, and its ratios."""
    stream = ours(real)
    others = {"onnxruntime": exported(real), "torch": plain(real), **real.originals}
    mine, true = outputs(real, stream), outputs(real, exact(real))
    found = {other: outputs(real, stepper) for other, stepper in others.items()}
    package, size = f"{real.package} {metadata.version(real.package)}", sum(p.numel() for p in real.model.parameters())
    row: Row = {"work": name, "package": package, "weights": real.weights, "licence": real.licence}
    row |= {"parameters": size, **long(real, stream)}
    row["from float64"] = difference(true, mine)
    row["from"] = {other: difference(theirs, mine) for other, theirs in found.items()}
    row["theirs from float64"] = {other: difference(true, theirs) for other, theirs in found.items()}
    timed = {other: engine(real, s, real.aims.get(other)) for other, s in others.items() if s.own_steps}
    ideal = ceiling.ideal(real.operations or 2 * size, 4 * size, 1, calls=1)
    return row, versus(f"{name}, one step", engine(real, stream), timed, ideal, rounds)


def same(real: Real, row: Row) -> bool:
    """Whether the stream gives what the package's first runtime gives."""
    return row["from"][next(iter(real.originals))] <= SAME


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_models", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", choices=PARTS, help="print the rows of one package, and write nothing")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count this thread's own time, on a machine with other work"
    )
    chosen = parser.parse_args(arguments)
    if chosen.cpu_time:
        measure.clock = time.thread_time
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    streams, rows, wrong = list[Row](), list[Row](), list[str]()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ceiling = Ceiling()
        for part in PARTS if chosen.only is None else [chosen.only]:
            for name, real in PARTS[part].works().items():
                row, compared = measured(name, real, ceiling, chosen.rounds)
                streams.append(row)
                wrong += [] if same(real, row) else [name]
                rows += compared
                print(json.dumps(row), *map(json.dumps, compared), sep="\n", flush=True)
    if wrong:
        print(f"other outputs than the packages': {', '.join(wrong)}", file=sys.stderr)
        return 1
    if chosen.only is None:
        content: dict[str, Any] = {"name": "real_models", "clock": measure.clock.__name__, "rows": rows}
        content |= {"streams": streams, **surroundings()}
        content["versions"]["onnxruntime"] = metadata.version("onnxruntime")
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(RESULTS / "real_models.json", json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
