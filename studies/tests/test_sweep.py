"""Sweeps from the command line, and that one which is killed ends as one that was left alone."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sparsernn.cli import main

DRIVER = Path(__file__).resolve().parent / "tiny_sweep.py"
OVER = ["--over", "hidden=4,6", "learning_rate=log:1e-3:1e-1"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, no_handlers):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSERNN_DATA", raising=False)


# --- a small sweep from the command line


def refused(capsys, arguments, code=2):
    there = sorted(str(path) for path in Path.cwd().rglob("*"))
    assert main(["sweep", *arguments]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err and said.err.count("\n") <= 3
    assert sorted(str(path) for path in Path.cwd().rglob("*")) == there
    return said.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rebar", "--over", "hidden=8"], "There is no recipe 'rebar'; did you mean reber?"),
        (["reber"], "A sweep needs --over key=values"),
        (["reber", "--over", "hiden=8"], "did you mean hidden"),
        (["reber", "--over", "hidden=8", "--set", "hiden=8"], "did you mean hidden"),
        (["shakespeare", "--scale", "paper", "--over", "hidden=8"], "has no scale 'paper'"),
        (["reber", "--over", "hidden=8", "--trials", "0"], "trials is 0, expected a whole number from 1 on."),
        (["reber", "--over", "hidden=8", "--jobs", "0"], "jobs is 0, expected a whole number from 1 on."),
        (["reber", "--over", "hidden=8", "--seed", "-1"], "seed is -1, expected a whole number from 0 on."),
        (
            ["reber", "--over", "hidden=8", "--seed", "9" * 23],
            "seed is " + "9" * 23 + ", expected a whole number from 0 to",
        ),
        (["reber", "--over", "hidden=8", "--sampler", "tpe"], "sampler is tpe, expected grid"),
        (["reber", "--over", "hidden=8:9", "--sampler", "grid"], "sampler is grid, expected tpe or random"),
        (["reber", "--over", "hidden=8:9", "--sampler", "tpe", "--jobs", "2"], "Take jobs=1, or sampler random"),
    ],
)
def test_wrong_sweeps(capsys, arguments, expected):
    assert expected in refused(capsys, arguments)


def test_without_ray_the_install_command_is_given(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(capsys, ["reber", "--over", "hidden=8", "--ray", "local"], 1)
    assert "ray is needed for" in said and "pip install 'sparsernn-studies[ray]'" in said


def test_a_sweep_from_the_command_line(capsys):
    options = ["--scale", "smoke", "--set", "strings=200", "steps=4", "warm_up=1", "hidden=8", "--folder", "swept"]
    command = ["reber", "--over", "learning_rate=1e38,1e-3", *options]
    assert main(["sweep", *command, "--results", "kept"]) == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out and "Report: swept/report.html" in out
    trials = json.loads(Path("swept/table.json").read_text())["trials"]
    assert trials == json.loads(Path("kept/sweeps/reber-smoke-learning_rate.json").read_text())["trials"]
    assert [trial["number"] for trial in trials] == [0, 1]
    by_rate = {trial["settings"]["learning_rate"]: trial for trial in trials}
    assert by_rate[1e38]["state"] == "failed" and "The loss is nan at step" in by_rate[1e38]["reason"]
    (rows,) = Path("swept/trials").glob(f"*{by_rate[1e-3]['number']}/results/reber/smoke/gru-target-seed0.json")
    measured = json.loads(rows.read_text())["measured"]
    assert by_rate[1e-3]["state"] == "done"
    assert (by_rate[1e-3]["quality"], by_rate[1e-3]["size"]) == (measured["test_accuracy"], measured["nonzero"])
    page = Path("swept/report.html").read_text(encoding="utf-8")
    assert "Sweep</h2>" in page and page.count("<svg") >= 2

    # The same command again repeats nothing and shows the same.
    before = {path: path.stat().st_mtime_ns for path in Path("swept/trials").rglob("*")}
    assert main(["sweep", *command]) == 0
    assert capsys.readouterr().out == out
    assert {path: path.stat().st_mtime_ns for path in Path("swept/trials").rglob("*")} == before

    # Another sweep, another recipe or anything else in the folder, or another process at work: refused.
    said = refused(capsys, ["reber", "--over", "learning_rate=1e-3", *options], 1)
    assert "swept holds another sweep: its over is learning_rate=1e38,1e-3, here it is learning_rate=1e-3" in said
    assert "its recipe is reber, here it is shakespeare" in refused(
        capsys, ["shakespeare", "--scale", "smoke", "--over", "hidden=8", "--folder", "swept"], 1
    )
    with FileLock("swept/lock"):
        assert "Another process carries out the sweep in swept" in refused(capsys, command, 1)
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("x")
    assert "mine is not a sweep" in refused(capsys, [*command, "--folder", "mine"], 1)


# --- killed and resumed


def start(folder: str, pause: float) -> subprocess.Popen[str]:
    """The tiny sweep in a session of its own, all its processes in one group."""
    command = [sys.executable, str(DRIVER), "sweep", "tiny", "--scale", "smoke", *OVER, "--trials", "5", "--jobs", "2"]
    environment = {**os.environ, "TINY_PAUSE": str(pause), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--folder", folder], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def wait_for(sweep: subprocess.Popen[str], text: str) -> re.Match[str]:
    """Read what the sweep says until it says something that fits `text`."""
    assert sweep.stderr is not None
    heard = []
    for line in sweep.stderr:
        heard.append(line)
        if found := re.search(text, line):
            return found
    raise AssertionError("".join(heard))


def kill(sweep: subprocess.Popen[str], group: bool) -> None:
    (os.killpg if group else os.kill)(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert sweep.stderr is not None
    sweep.stderr.close()


def end(sweep: subprocess.Popen[str]) -> str:
    _, said = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, said
    return said


def gone(process: int) -> bool:
    for _ in range(200):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.timeout(900)  # a busy machine starts processes slowly
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and process groups")
def test_a_sweep_that_is_killed_ends_as_one_that_was_left_alone():
    killed()


@pytest.mark.nightly
@pytest.mark.counts("killed_sweeps", 3)  # a worker, the whole sweep, the process that leads
@pytest.mark.parametrize("repeat", range(20))
def test_twenty_sweeps_that_are_killed_end_as_one_that_was_left_alone(repeat):
    killed()


def killed():
    end(start("alone", 0))

    # A worker is killed in the middle of its second training, then the whole sweep.
    sweep = start("killed", 0.03)
    victims = {}
    while len(victims) < 2:
        found = wait_for(sweep, r"trial (\d): process (\d+)")
        victims[found[1]] = int(found[2])
    number = wait_for(sweep, r"trial (\d): sparse, step 20 of 40")[1]
    os.kill(victims[number], signal.SIGKILL)
    wait_for(sweep, rf"trial {number}: its process died \(by SIGKILL\); again")
    wait_for(sweep, r"\(2 of 5\)")
    wait_for(sweep, r"trial \d: dense, step 20 of 40")
    kill(sweep, group=True)
    ended = {path: path.stat().st_mtime_ns for path in Path("killed").glob("trials/*/outcome.json")}
    assert 2 <= len(ended) < 5

    # Then only the process that leads, so that its workers have to end by themselves.
    sweep = start("killed", 0.03)
    process = int(wait_for(sweep, r"trial \d: process (\d+)")[1])
    wait_for(sweep, r"trial \d: \w+, step 32 of 40")
    kill(sweep, group=False)
    assert gone(process)

    end(start("killed", 0))
    assert {path: path.stat().st_mtime_ns for path in ended} == ended
    alone, killed = (json.loads(Path(name, "table.json").read_text()) for name in ("alone", "killed"))
    assert alone["trials"] == killed["trials"] and [trial["number"] for trial in killed["trials"]] == [0, 1, 2, 3, 4]
    assert all(trial["state"] == "done" for trial in killed["trials"])
    with sqlite3.connect("killed/optuna.db") as notes:
        assert notes.execute("select number, state from trials order by number").fetchall() == [
            (n, "COMPLETE") for n in range(5)
        ]
    notes.close()
    # Each trial went on where it was: its first steps were taken once, though it was killed after them.
    for log in Path("killed").glob("trials/*/log.txt"):
        steps = re.findall(r"(\w+): step (\d+) of", log.read_text())
        assert steps.count(("dense", "4")) == steps.count(("sparse", "4")) == 1
        repeated = [step for step in set(steps) if steps.count(step) > 1]
        assert len(repeated) <= 3
