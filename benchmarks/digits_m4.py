"""Spoken digits on an emulated Cortex-M4: `python -m benchmarks.digits_m4 --data DIR`.

The nets of the study `spoken-digits` (dense, compact, with blocks; trained first where RUNS has none) become C, which
is compiled for a Cortex-M4 and hears every recording there, frame by frame, from reset on. Its label is held against
that of our stream on this machine, its sums of logits against those of the same C compiled here, bit by bit. Writes
results/benchmarks/digits_m4.json as it goes, and goes on from there at the same commit. Needs 'sparsernn[devices]'.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import sparsernn as srn
from sparsernn.export.emulator import Emulated
from sparsernn.export.machines import built
from sparsernn.files import write_atomically
from sparsernn_studies.data import data_folder
from sparsernn_studies.results import surroundings
from sparsernn_studies.runs import Run, run_folder
from sparsernn_studies.stories.spoken_digits import SpokenDigits

from .measure import RESULTS, Row

RECORD = RESULTS / "digits_m4.json"
TARGET = "Cortex-M4"
SLICE = 100  # recordings between two writings
CALIBRATED = 200  # recordings of the training speakers that fix scales
AT, SUMS, FRAMES = 0x4000000, 4, 256  # where the emulated function finds how many frames, puts sums, finds features
HEARD = f"""
#include "net.c"
int heard(const float *x, int frames, float *sums);
int heard(const float *x, int frames, float *sums)
{{
    static net_state state;
    static float y[NET_OUTPUTS];
    int best = 0;
    net_reset(&state);
    for (int k = 0; k < NET_OUTPUTS; ++k)
        sums[k] = 0.0f;
    for (; frames > 0; --frames, x += NET_INPUTS) {{
        net_step(&state, x, y);
        for (int k = 0; k < NET_OUTPUTS; ++k)
            sums[k] += y[k];
    }}
    for (int k = 1; k < NET_OUTPUTS; ++k)
        best = sums[k] > sums[best] ? k : best;
    return best;
}}
#if defined(__arm__)
int told(void);
int told(void)
{{
    return heard((const float *){AT + FRAMES}, *(const volatile int32_t *){AT}, (float *){AT + SUMS});
}}
#endif
"""


class Net(NamedTuple):
    """`row`: of the study, whose weights these are. fixed: whether the scales of int8 inputs are."""

    row: str
    precision: str = "float32"
    fixed: bool = False


NETS = {
    "dense": Net("dense"),
    "compact": Net("compact"),
    "blocks": Net("blocks"),
    "blocks, int8": Net("blocks", "int8"),
    "blocks, int8, fixed scales": Net("blocks", "int8", True),
}


def trained(runs: Path, seed: int, data: Path | None) -> SpokenDigits:
    """The study with its first four nets done."""
    settings, scale = SpokenDigits.at("cpu"), "cpu"
    folder = run_folder(runs, SpokenDigits.name, scale, seed, {})
    command = f"sparsernn run {SpokenDigits.name} --scale {scale} --seed {seed}"
    run = Run(SpokenDigits.name, scale, seed, settings, folder, folder / "results", data_folder(data), command)
    run.begin()
    study = SpokenDigits(run)
    for name in ("dense", "sparse", "compact", "blocks"):
        study.result(study.named(name))
    return study


def streamed(model: Any, precision: str, frames: Sequence[Tensor]) -> list[int]:
    """The labels of our stream here; a processor without products of int8 runs them in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        stream = srn.accelerate(model, precision).stream(batch=1)  # type: ignore[arg-type]
    found = []
    for x_TF in frames:
        stream.reset()
        total_1C = torch.zeros(1, stream.output_size)
        for x_1F in x_TF.split(1):
            total_1C += stream.step(x_1F)
        found.append(int(total_1C.argmax()))
    return found


Heard = Callable[[np.ndarray], tuple[int, bytes]]


def emulated(folder: Path, outputs: int) -> Heard:
    """Features (T, F) -> label and the bytes of the sums, on the emulated processor."""
    machine = Emulated(built(folder, folder / "heard.c", "told", TARGET), TARGET)

    def hear(x_TF: np.ndarray) -> tuple[int, bytes]:
        machine.machine.mem_write(AT, len(x_TF).to_bytes(4, "little"))
        machine.machine.mem_write(AT + FRAMES, x_TF.astype("<f4").tobytes())
        return machine.call(), bytes(machine.machine.mem_read(AT + SUMS, 4 * outputs))

    return hear


def here(folder: Path, outputs: int) -> Heard:
    """The same by this processor."""
    library = folder / "heard.so"
    flags = ("-O2", "-march=native", "-shared", "-fPIC")
    subprocess.run(["cc", *flags, "-o", str(library), str(folder / "heard.c")], check=True)
    code = ctypes.CDLL(str(library))

    def hear(x_TF: np.ndarray) -> tuple[int, bytes]:
        x, sums = np.ascontiguousarray(x_TF, np.float32), np.zeros(outputs, np.float32)
        label = code.heard(x.ctypes.data_as(ctypes.c_void_p), len(x), sums.ctypes.data_as(ctypes.c_void_p))
        return label, sums.tobytes()

    return hear


def exported(study: SpokenDigits, net: Net, folder: Path) -> dict[str, Any]:
    """NAME.json of the net; the C lies in `folder`."""
    model = study.stored(net.row)
    batches = None
    if net.fixed:
        known = study.sounds.split.train
        batches = [x[:, None] for x in study.sounds.heard(known[:: max(1, len(known) // CALIBRATED)]).frames]
    (folder / "heard.c").write_text(HEARD)
    return srn.export_c(
        model, folder, "net", study.example_inputs, net.precision, measure=True, calibrate=batches, time=0
    )


def figures(report: dict[str, Any]) -> Row:
    """Of the C of one net: bytes, instructions."""
    found = report["measured"][TARGET]
    return {
        "precision": report["precision"],
        "tables": report["flash"]["tables"],
        "code": found["code"],
        "flash": report["flash"]["tables"] + found["code"],
        "state": report["ram"]["state"],
        "stack": found["stack"],
        "ram": report["ram"]["state"] + found["stack"],
        "multiply_adds": report["multiply_adds"],
        "instructions": found["instructions"],
        "off_by": report["errors"]["relative"],
    }


def hear_all(study: SpokenDigits, name: str, row: Row, most: int, keep: Callable[[Row], None]) -> None:
    """Go on with `row` up to `most` recordings: those of the test speaker first."""
    net, every = NETS[name], study.sounds.all
    frames, classes = every.frames[:most], every.classes_N.tolist()
    tested = len(study.sounds.test.frames)
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        report = exported(study, net, folder)
        row |= {"work": name, **figures(report)}
        outputs = report["outputs"][0]["shape"][-1]
        there, own = emulated(folder, outputs), here(folder, outputs)
        expected = streamed(study.stored(net.row), net.precision, frames[row["recordings"] :])
        for begin in range(row["recordings"], len(frames), SLICE):
            began = time.monotonic()
            for n in range(begin, min(begin + SLICE, len(frames))):
                x_TF = frames[n].numpy()
                label, sums = there(x_TF)
                row["recordings"] += 1
                row["frames"] += len(x_TF)
                row["labels_of_stream"] += label == expected.pop(0)
                row["bits_of_here"] += (label, sums) == own(x_TF)
                row["right"] += n < tested and label == classes[n]
            row["seconds"] = round(row["seconds"] + time.monotonic() - began, 1)
            row["test_accuracy"] = row["right"] / min(tested, row["recordings"])
            keep(row)
            print(f"{name}: {json.dumps(row)}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits_m4", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with data sets; SPARSERNN_DATA otherwise")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default runs)")
    parser.add_argument("--seed", type=int, default=0, help="of the study: who is tested (default 0)")
    parser.add_argument("--only", choices=NETS, action="append", help="these nets (default: all)")
    parser.add_argument("--recordings", type=int, default=3000, help="at most so many (default 3000)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = trained(chosen.runs, chosen.seed, chosen.data)
    begun: Row = dict.fromkeys(("recordings", "frames", "labels_of_stream", "bits_of_here", "right", "seconds"), 0)
    rows: dict[str, Row] = {}
    around = surroundings()
    if RECORD.exists() and (old := json.loads(RECORD.read_text(encoding="utf-8")))["commit"] == around["commit"]:
        rows = {row["work"]: row for row in old["rows"]} if old["seed"] == chosen.seed else {}

    def keep(row: Row) -> None:
        rows[row["work"]] = row
        content = {"name": "digits_m4", "seed": chosen.seed, "rows": [rows[n] for n in NETS if n in rows], **around}
        write_atomically(RECORD, json.dumps(content, indent=2) + "\n")

    with torch.no_grad():
        for name in chosen.only or NETS:
            hear_all(study, name, rows.get(name, dict(begun)), chosen.recordings, keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
