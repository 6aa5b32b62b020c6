"""The command line: exit codes, and a sentence for every mistake."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from sparsernn import cli
from sparsernn.cli import joined, main
from sparsernn_studies import train
from sparsernn_studies.commands import export_c_run
from sparsernn_studies.signals import Stopped

SMALL = ["--set", "strings=200", "hidden=8", "steps=6", "warm_up=2"]
REBER = ["run", "reber", "--scale", "smoke", *SMALL]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, no_handlers):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSERNN_DATA", raising=False)


def sentence(capsys, arguments, code):
    """What the command says on stderr, after a check of its exit code and that nothing was written."""
    assert main(arguments) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.count("\n") <= 3
    assert list(Path.cwd().iterdir()) == []
    return said.err


def test_list_shows_every_recipe(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "shakespeare" in out and "reber" in out


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "shakespear"], "There is no recipe 'shakespear'; did you mean shakespeare?"),
        (["run", "shakespeare", "--scale", "paper"], "Recipe shakespeare has no scale 'paper', only smoke, cpu."),
        (["run", "reber", "--set", "hiden=3"], "there is no setting 'hiden'; did you mean hidden"),
        (["run", "reber", "--set", "hidden"], "--set hidden: expected key=value"),
        (["run", "reber", "--set", "hidden=x"], "--set hidden=x: 'x' is not a whole number."),
        (["run", "reber", "--set", "hidden=2+2"], "'2+2' is not a whole number"),
        (["run", "reber", "--set", "target=much"], "'much' is not a number"),
        (["run", "reber", "--set", "embedded=perhaps"], "'perhaps' is not true or false"),
        (["run", "reber", "--set", "cells=lstm,elman"], "cells is 'lstm,elman', expected some of lstm, gru, rnn"),
        (["run", "shakespeare", "--set", "precision=half"], "precision is 'half', expected one of"),
        (["run", "reber", "--set", "learning_rate=nan"], "learning_rate is nan, expected a number above 0."),
        (["run", "reber", "--set", "sparsity=1.2"], "sparsity is 1.2, expected a share between 0 and 1."),
        (["run", "shakespeare", "--set", "target=1.2"], "target is 1.2, expected a share between 0 and 1."),
        (["run", "shakespeare", "--set", "steps=0"], "steps is 0, expected a whole number, at least 1."),
        (["run", "reber", "--seed", "-1"], "--seed -1: a seed is a whole number from 0 to 4294967295."),
        (["run", "reber", "--seed", "12345678901234567890123"], "a seed is a whole number from 0 to 4294967295."),
        (["inspect", "nothing"], "There is no run nothing; `sparsernn run` makes one."),
        (["bench", "reber"], "There is no run reber"),
        (["report", "reber"], "There is no run reber"),
    ],
)
def test_wrong_commands(capsys, arguments, expected):
    assert expected in sentence(capsys, arguments, 2)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "reber", "--scale", "huge"], ["list", "--x"]])
def test_what_does_not_parse_is_a_usage_error(capsys, arguments):
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_data_folder_that_is_not_there(capsys):
    assert "does not exist; name one that does" in sentence(capsys, ["run", "reber", "--data", "nowhere"], 1)


def test_without_tyro_the_install_command_is_given(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert sentence(capsys, ["list"], 1) == "tyro is needed for the command line: pip install 'sparsernn[cli]'\n"


def test_every_setting_counts_however_it_is_given(capsys):
    assert main([*REBER[:2], "--set", "hidden=9", "--seed", "3", "--set", "hiden=3", "--set=steps=1"]) == 2
    assert "there is no setting 'hiden'" in capsys.readouterr().err
    assert joined(["run", "reber", "--set", "a=1", "b=2", "--seed", "3", "--set", "c=3", "--set=d=4"]) == [
        *("run", "reber", "--seed", "3", "--set", "a=1", "b=2", "c=3", "d=4")
    ]
    assert joined(["list"]) == ["list"]


def test_settings_are_read_by_their_type(capsys):
    assert main([*REBER, "cells=gru,rnn", "sparsity=0.5", "embedded=true"]) == 0
    (noted,) = Path.cwd().glob("runs/reber/smoke-seed0-*/run.json")
    settings = json.loads(noted.read_text())["settings"]
    assert settings["cells"] == ["gru", "rnn"] and settings["sparsity"] == 0.5 and settings["embedded"] is True
    assert len(list(noted.parent.glob("results/reber/smoke/*.json"))) == 6


@pytest.fixture
def with_export_c(monkeypatch):
    """The command also where the studies were installed before there was one."""
    known = {**cli.commands(), "export-c": export_c_run}
    monkeypatch.setattr(cli, "commands", lambda: known)


def test_a_run_can_be_inspected_timed_and_reported(capsys, with_export_c):
    assert main(["run", "reber", "--scale", "smoke"]) == 0
    assert "Report: runs/reber/smoke-seed0/report.html" in capsys.readouterr().out
    for run in ("reber", "runs/reber/smoke-seed0"):
        assert main(["inspect", run]) == 0
        assert "units can go" in capsys.readouterr().out
    assert main(["export-c", "reber"]) == 1
    assert "can't run step by step: it packs its sequences" in capsys.readouterr().err and not Path("c").exists()
    assert main(["bench", "reber"]) == 0
    assert "gru-compact" in capsys.readouterr().out
    Path("runs/reber/smoke-seed0/report.html").unlink()
    assert main(["report", "reber"]) == 0
    assert "<html" in Path("runs/reber/smoke-seed0/report.html").read_text(encoding="utf-8")


def test_a_model_of_a_run_becomes_c(capsys, monkeypatch, with_export_c):
    nets = {"thin": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))}
    models = SimpleNamespace(models=nets, sparsified="thin", example_inputs=torch.randn(2, 9, 4))
    run = lambda opened: SimpleNamespace(loaded=lambda: models)  # noqa: E731
    monkeypatch.setattr("sparsernn_studies.commands._open", lambda run_: (run, SimpleNamespace(console=Console())))
    assert main(["export-c", "shakespeare", "--folder", "c", "--name", "net", "--precision", "int8"]) == 0
    assert "bytes of tables" in capsys.readouterr().out
    assert {path.name for path in Path("c").iterdir()} == {"net.c", "net.h", "net.json", "net_test.c"}
    for option, more in ((["--weights", "file"], {".bin"}), (["--wrappers", "python", "rust"], {".py", ".rs"})):
        folder = Path(option[0].strip("-"))
        assert main(["export-c", "shakespeare", "--folder", str(folder), *option]) == 0
        assert {path.suffix for path in folder.iterdir()} == {".h", ".c", ".json", *more}
    assert main(["export-c", "shakespeare", "--name", "8bit"]) == 1
    assert "expected the beginning of C names" in capsys.readouterr().err
    assert main(["export-c", "shakespeare", "--row", "none"]) == 2
    assert "has no row none; name one of" in capsys.readouterr().err


@pytest.fixture
def quick_costs(monkeypatch, tmp_path):
    """One timing of each kernel, and a file of one's own for the costs: its place, as `SPARSERNN_CACHE` would give."""
    from sparsernn.runtime import costs, tune

    def once(call, number):
        start = time.perf_counter_ns()
        call()
        return time.perf_counter_ns() - start

    monkeypatch.setattr(tune, "_best", once)
    place = {"file": tmp_path / "costs.json"}
    for module in (costs, tune):
        monkeypatch.setattr(module, "tuned_file", lambda: place["file"])
    costs.current.cache_clear()
    yield place
    costs.current.cache_clear()


def test_tune_measures_shows_and_keeps(capsys, quick_costs):
    from sparsernn.runtime import costs
    from sparsernn.runtime.layouts import LAYOUTS

    assert main(["tune"]) == 0
    out = capsys.readouterr().out
    assert f"Written to {quick_costs['file']}" in out
    assert all(name in out for name in LAYOUTS)
    kept = json.loads(quick_costs["file"].read_text())
    assert kept == json.loads(costs.as_json(costs.current())) and costs.current() != costs.Costs()
    assert f"{kept['panel'][0]:.3g}" in out


def test_tune_says_where_nothing_can_be_kept(capsys, quick_costs):
    quick_costs["file"] = None
    assert main(["tune"]) == 0
    assert "Nothing was written: there is no cache folder that is yours alone." in capsys.readouterr().out
    quick_costs["file"] = Path("nowhere") / "costs.json"
    assert main(["tune"]) == 1
    said = capsys.readouterr()
    assert "can't be kept in nowhere/costs.json (No such file or directory): set SPARSERNN_CACHE." in said.err
    assert "panel" in said.out and list(Path.cwd().iterdir()) == []


def test_a_folder_that_is_no_run(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main(["inspect", "empty"]) == 2
    assert "empty is not a run: there is no run.json in it." in capsys.readouterr().err
    (tmp_path / "empty" / "run.json").write_text("{")
    assert main(["inspect", "empty"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(
    "change",
    [
        *({"seed": seed} for seed in ("1", 1.5, True, None, -1, 10**23, [])),
        *({key: value} for key in ("recipe", "scale", "command") for value in (3, None, ["reber"])),
        *({"settings": value} for value in (None, [], "hidden")),
        *({"settings": {"hidden": value}} for value in ("8", [8], 8.5, True, {})),
        {"settings": {"hiden": 8}},
    ],
)
def test_a_run_that_was_edited_by_hand_is_a_sentence_that_names_it(capsys, tmp_path, change):
    content = {"recipe": "reber", "scale": "smoke", "seed": 0, "settings": {}, "command": "sparsernn run reber"}
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "run.json").write_text(json.dumps(content | change))
    assert main(["inspect", "edited"]) in (1, 2)
    said = capsys.readouterr().err
    assert "edited" in said and "Traceback" not in said and said.count("\n") <= 3


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, "\udcff", '{"seed": ' + "9" * 5000 + "}"])
def test_what_is_no_run_json_is_a_sentence_that_names_it(capsys, tmp_path, content):
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["inspect", "edited"]) in (1, 2)
    said = capsys.readouterr().err
    assert "edited/run.json" in said and "Traceback" not in said and said.count("\n") <= 3


def test_a_full_disk_names_the_file(capsys, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(REBER) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "run.json" in said and "Traceback" not in said
    assert not list(Path.cwd().rglob("run.json")) and not list(Path.cwd().rglob("*.tmp"))


def test_a_damaged_checkpoint_fails_the_run(capsys):
    folder = Path("runs/reber/smoke-seed0/gru-dense")
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"x" * 100)
    assert main(["run", "reber", "--scale", "smoke"]) == 1
    said = capsys.readouterr().err
    assert "checkpoint.safetensors is truncated or not a checkpoint" in said and "Traceback" not in said


def test_divergence_fails_the_run(capsys):
    assert main([*REBER, "learning_rate=1e38"]) == 1
    said = capsys.readouterr().err
    assert "The loss is nan at step 2 of 6" in said and "Traceback" not in said


def test_a_stopped_run_says_so_and_resumes(capsys, monkeypatch):
    def stopped(*arguments, **more):
        raise Stopped(15, "gru-dense", 3, Path("checkpoint.safetensors"))

    with monkeypatch.context() as patch:
        patch.setattr("sparsernn_studies.study.train", stopped)
        assert main(REBER) == 128 + 15
    assert "gru-dense was stopped by SIGTERM after step 3" in capsys.readouterr().err
    assert main(REBER) == 0


def test_rows_that_are_done_are_not_made_again(capsys, monkeypatch):
    assert main(REBER) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(train, "train", None)
    monkeypatch.setattr("sparsernn_studies.study.train", None)
    assert main(REBER) == 0
    assert capsys.readouterr().out == first


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "sparsernn", "run", "rebar"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("There is no recipe 'rebar'; did you mean reber?")
