"""Build both distributions twice, from two copies of the tracked files in folders of other names, and compare them.

Writes the wheels and source archives and their sums to dist/. Ends with 1 where a byte differs. Run by `make dist`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def copied(folder: Path) -> Path:
    """The tracked files as they stand here, with times of now and permissions as git has them."""
    listed = subprocess.run(["git", "ls-files", "-s", "-z"], cwd=TOP, check=True, capture_output=True, text=True).stdout
    for line in filter(None, listed.split("\0")):
        mode, name = line.split()[0], line.split("\t", 1)[1]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / name, target)
        target.chmod(0o755 if mode == "100755" else 0o644)
    return folder


def built(source: Path, out: Path) -> dict[str, str]:
    """Name -> sha256 of what is built of a copy."""
    when = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=TOP, check=True, capture_output=True, text=True)
    environment = os.environ | {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or when.stdout.strip()}
    subprocess.run([sys.executable, str(TOP / "tools" / "lower_kernels.py"), str(source / "src")], check=True)
    for project in (source, source / "studies"):
        # The wheel is made of the folder, not of the source archive, which holds sources alone.
        command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel"]
        command += ["--outdir", str(out), str(project)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def main() -> int:
    with tempfile.TemporaryDirectory() as here:
        one, two = Path(here, "a"), Path(here, "another folder", "of a longer name")
        first, second = built(copied(one), Path(here, "first")), built(copied(two), Path(here, "second"))
        if first != second:
            differ = [name for name in first | second if first.get(name) != second.get(name)]
            print(f"These differ between two builds: {', '.join(differ)}", file=sys.stderr)
            return 1
        target = TOP / "dist"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(here, "first"), target)
    (target / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in first.items()))
    for name, digest in first.items():
        print(f"{digest}  {(target / name).stat().st_size:>9,}  {name}")
    print("Built twice, equal to the byte.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
