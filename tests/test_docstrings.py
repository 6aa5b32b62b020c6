"""Docstrings of what users see follow Google's rules: ruff checks every file that defines it, and no other."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import sparsernn
from sparsernn.analysis.report import Report
from sparsernn.export import audio, onnx_step
from sparsernn.learn.factorise import Factorised
from sparsernn.learn.folded import FoldedSizes
from sparsernn.learn.quantise_aware import QuantiseAware
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.nn import protocol
from sparsernn.reading.model import OnnxModule
from sparsernn.runtime.program.stream import ProgramStream
from sparsernn.runtime.stream import Stream
from sparsernn.structure.structure import Structure
from sparsernn.timing import Benchmark

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "src" / "sparsernn"
RETURNED = [Benchmark, Factorised, FoldedSizes, OnnxModule, ProgramStream, QuantiseAware, Report, Sparsifier, Stream]
RETURNED += [Structure]  # by public functions, or what their results are derived from
MODULES = [audio, onnx_step, protocol]  # public names that are not in the two namespaces


def public() -> list:
    names = [getattr(room, name) for room in (sparsernn, sparsernn.nn) for name in dir(room) if name[0] != "_"]
    return [value for value in names if inspect.isclass(value) or inspect.isfunction(value)]


def test_public_names_have_docstrings():
    assert len(public()) > 50 and [value for value in public() if not value.__doc__] == []


def test_public_names_say_what_they_raise_or_whose_docstring_does():
    says = ("Raises", "raises", "Error", "see `", "`GroupLasso` on")
    silent = {value.__name__ for value in public() if not any(word in str(value.__doc__) for word in says)}
    assert silent == {"Magnitude", "Movement", "Random", "StandardDeviation"}  # they take nothing that could be wrong


def test_ruff_checks_the_docstrings_of_every_file_that_defines_what_users_see():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = tomllib.loads(text)["tool"]["ruff"]["lint"]["per-file-ignores"]
    (checked,) = (re.findall(r"\{(.*)\}", pattern) for pattern, rules in ignored.items() if rules == ["D"])
    files = {Path(str(inspect.getsourcefile(thing))) for thing in (*public(), *RETURNED, *MODULES)}
    assert set(checked[0].split(",")) == {str(file.relative_to(LIBRARY).with_suffix("")) for file in files}
    for name, wrong in (("learn/fold.py", True), ("learn/parts.py", False)):
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "-q",
            "--select",
            "D103",
            "--stdin-filename",
            LIBRARY / name,
            "-",
        ]
        done = subprocess.run(command, input="def lacks_one(): ...\n", capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == wrong, done.stdout
