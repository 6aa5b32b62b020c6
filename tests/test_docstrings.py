"""Docstrings of what users see follow Google's rules, as ruff checks them in every file that defines a public name."""

from __future__ import annotations

import inspect
import subprocess
import sys

import sparsernn

# Layout that the formatter or the house's style settles, and methods whose meaning is Python's own.
LEFT_OUT = "D105,D107,D209,D403"


def test_docstrings_of_public_names_are_there_and_well_formed() -> None:
    public = [getattr(sparsernn, name) for name in dir(sparsernn) if not name.startswith("_")]
    named = [value for value in public if inspect.isclass(value) or inspect.isfunction(value)]
    assert len(named) > 30 and all(value.__doc__ for value in named)
    files = sorted({str(inspect.getsourcefile(value)) for value in named})
    rules = ["--isolated", "--select", "D", "--ignore", LEFT_OUT, "--config", 'lint.pydocstyle.convention="google"']
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *rules, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
