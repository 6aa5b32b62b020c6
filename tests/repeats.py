"""The whole suite again and again, with a record: python tests/repeats.py --count 50 --record FILE

Goes on where FILE ends. Each run is recorded with its commit, and with the names of what failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings

TOP = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--record", type=Path, required=True)
    chosen = parser.parse_args()
    content: dict[str, Any] = {"name": "repeats", "cases": 0, "runs": [], "mismatches": []}
    if chosen.record.exists():
        content = json.loads(chosen.record.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pytest", "-m", "not nightly", "-n", "auto", "--dist", "loadscope"]
    while content["cases"] < chosen.count:
        began = time.monotonic()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
        around = surroundings()
        if done.returncode:
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
            content["mismatches"].append({"run": content["cases"], "failed": failed or done.stdout[-2000:]})
        content["runs"].append({"commit": around["commit"], "seconds": round(time.monotonic() - began, 1)})
        content |= {"cases": content["cases"] + 1, **around}
        write_atomically(chosen.record, json.dumps(content, indent=1) + "\n")
        print(f"{content['cases']} runs, {len(content['mismatches'])} with a red", flush=True)
    return 1 if content["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
