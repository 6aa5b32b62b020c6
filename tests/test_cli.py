"""The command of the library alone: `tune`, and where the commands of the studies are to be had."""

import pytest

from sparsernn import cli


@pytest.mark.parametrize("command", cli.OF_STUDIES)
def test_without_the_studies_their_commands_say_what_to_install(capsys, monkeypatch, command):
    monkeypatch.setattr(cli, "entry_points", lambda group: ())
    assert cli.main([command, "shakespeare"]) == 1
    assert "pip install sparsernn-studies" in capsys.readouterr().err


def test_an_error_with_an_exit_code_ends_the_command_with_it(capsys, monkeypatch):
    class Refused(Exception):
        exit_code = 77

    def refuse() -> None:
        raise Refused("This one says no.")

    monkeypatch.setattr(cli, "commands", lambda: {"refuse": refuse, "tune": cli.tune_kernels})
    assert cli.main(["refuse"]) == 77
    assert capsys.readouterr().err == "This one says no.\n"
