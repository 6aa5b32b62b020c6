"""Install the wheels of dist/ in an empty environment and run what a user runs first; print figures beside their bars.

Ends with 1 where something does not work; figures that miss a bar are marked, since times are those of a machine.
The environment is left in .make/smoke. Run by `make wheel-smoke`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
PLACE = TOP / ".make" / "smoke"
PYTHON = PLACE / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

# Time of the processor, so that what runs beside it counts little.
IMPORT = "import time; a = time.process_time(); import {}; print(time.process_time() - a)"
FIRST_CALL = """
import time, torch, sparsernn as srn
torch.set_num_threads(1)
model = torch.nn.LSTM(64, 256).eval()
x = torch.randn(20, 1, 64)
a = time.process_time()
srn.accelerate(model)(x)
print(time.process_time() - a)
"""
SAVED = """
import sys, torch, sparsernn as srn
path, dtype = sys.argv[1:]
srn.save(srn.accelerate(torch.nn.LSTM(512, 1024, 2).eval(), dtype), path)
"""
LOADED = """
import ctypes, json, sys, torch, sparsernn as srn
torch.set_num_threads(1)

def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * 4096

path, dtype = sys.argv[1:]
x = torch.randn(1, 1, 512)
srn.accelerate(torch.nn.LSTM(512, 16).eval(), dtype)(x)  # code that is loaded once is no model's
with torch.device("meta"):
    empty = torch.nn.LSTM(512, 1024, 2)
before = resident()
fast = srn.load(empty, path)
loaded = resident() - before
fast(x)
packed = sum(p.bytes for row in fast._engine.layers(fast, 1, 1) for layer in row for p in layer.products)
print(json.dumps({"loaded": loaded, "called": resident() - before, "packed": packed}))
"""


def run(*command: str, cache: Path, works: bool = True, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "SPARSERNN"))}
    environment |= {"SPARSERNN_CACHE": str(cache), "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=folder or cache.parent, env=environment, capture_output=True, text=True)
    if works == bool(done.returncode):
        raise SystemExit(f"{' '.join(command)[:300]}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def install(*what: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*command, "--constraint", str(TOP / "constraints.txt"), *what], check=True)


def readme() -> str:
    """The README's blocks of Python up to the first ones of *In training*, in one script."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)[:5])


def seconds(code: str, cache: Path) -> float:
    return float(run(str(PYTHON), "-c", code, cache=cache).stdout.split()[-1])


def figures(folder: Path) -> list[tuple[str, float, str, float]]:
    """What, how much, unit and bar."""
    cache = folder / "cache"
    times: dict[str, list[float]] = {"torch": [], "torch, sparsernn": []}
    for _ in range(5):
        for what, found in times.items():
            found.append(seconds(IMPORT.format(what), cache))
    torch_alone, both = (statistics.median(found) for found in times.values())
    rows = [
        ("import torch", torch_alone, "s", float("inf")),
        ("import sparsernn beyond torch", both - torch_alone, "s", 1.0),
        ("first call, kernels compiled", seconds(FIRST_CALL, folder / "cold"), "s", 2.0),
        ("first call, kernels kept", seconds(FIRST_CALL, folder / "cold"), "s", 2.0),
    ]
    for dtype in ("float32", "bfloat16", "int8") if sys.platform == "linux" else ():
        run(str(PYTHON), "-c", SAVED, str(folder / "model"), dtype, cache=cache)
        done = run(str(PYTHON), "-c", LOADED, str(folder / "model"), dtype, cache=cache)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        size = found["packed"] / 2**20
        rows.append((f"packed weights of a loaded model, {dtype}", size, "MiB", float("inf")))
        rows.append(("  its memory over them", found["called"] / found["packed"], "x", 1.1))
    return rows


def main() -> int:
    names = ("sparsernn", "sparsernn_studies")
    wheels = {name: found[-1] for name in names if (found := sorted((TOP / "dist").glob(f"{name}-*.whl")))}
    if len(wheels) < len(names):
        print("dist/ lacks a wheel: make dist", file=sys.stderr)
        return 1
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE, with_pip=True)
    install(str(wheels["sparsernn"]))
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name, "cache")
        code = folder / "README.py"
        code.write_text(readme(), encoding="utf-8")
        run(str(PYTHON), str(code), cache=cache)
        print("The README's first blocks run from the library's wheel alone.")
        said = run(str(PYTHON), "-m", "sparsernn", "run", "shakespeare", cache=cache, works=False).stderr
        if "pip install sparsernn-studies" not in said:
            raise SystemExit(f"`sparsernn run` without the studies says: {said}")
        rows = figures(folder)
        install(str(wheels["sparsernn_studies"]))
        run(str(PYTHON), "-m", "sparsernn", "run", "reber", "--scale", "smoke", cache=cache)
        print("A study runs from both wheels.")
    for what, value, unit, bar in rows:
        held = "" if bar == float("inf") else f"bar {bar:g} {unit}: {'held' if value <= bar else 'MISSED'}"
        print(f"{what:45} {value:8.2f} {unit:4} {held}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
