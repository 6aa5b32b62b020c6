"""The command of the library alone: `tune`, and where the commands of the studies are to be had."""

import subprocess
import sys

import pytest

from sparsernn import cli


@pytest.mark.parametrize("command", cli.OF_STUDIES)
def test_without_the_studies_their_commands_say_what_to_install(capsys, monkeypatch, command):
    monkeypatch.setattr(cli, "entry_points", lambda group: ())
    assert cli.main([command, "shakespeare"]) == 1
    assert "pip install sparsernn-studies" in capsys.readouterr().err


def test_the_library_never_imports_the_studies():
    code = "import sys, sparsernn.cli, sparsernn.timing; print('sparsernn_studies' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_an_error_with_an_exit_code_ends_the_command_with_it(capsys, monkeypatch):
    class Refused(Exception):
        exit_code = 77

    def refuse() -> None:
        raise Refused("This one says no.")

    monkeypatch.setattr(cli, "commands", lambda: {"refuse": refuse, "tune": cli.tune_kernels})
    assert cli.main(["refuse"]) == 77
    assert capsys.readouterr().err == "This one says no.\n"
