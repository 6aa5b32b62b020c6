"""Sweeps on Ray Tune: the table of one machine, early stopping, and a node that is lost. Skipped without Ray."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("ray", reason="ray is not installed: pip install 'sparsernn-studies[ray]'")

pytestmark = [
    pytest.mark.nightly,
    # Ray starts processes and sockets of its own and leaves some to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SMALL = ["--scale", "smoke", "--set", "strings=200", "steps=20", "warm_up=2"]
SWEEP = ["sweep", "reber", *SMALL, "--over", "learning_rate=1e-3,3e-3,1e-2"]


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "sparsernn", *SWEEP, *more]


def trials(folder: Path) -> list[dict]:
    return json.loads((folder / "table.json").read_text())["trials"]


def run(*more: str) -> str:
    done = subprocess.run(command(*more), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The sweep on one machine."""
    folder = tmp_path_factory.mktemp("alone") / "sweep"
    run("--folder", str(folder))
    return folder


def assert_same(folder: Path, other: Path) -> None:
    """The same table and, bit by bit, the same trained models."""
    assert trials(folder) == trials(other)
    models = [{p.relative_to(f): load_file(p) for p in f.glob("trials/*/*.safetensors")} for f in (folder, other)]
    assert models[0].keys() == models[1].keys() and len(models[0]) == 9
    for path, tensors in models[0].items():
        assert all(torch.equal(tensor, models[1][path][name]) for name, tensor in tensors.items())


def test_no_cluster_at_the_address(tmp_path):
    done = subprocess.run(
        command("--folder", str(tmp_path / "s"), "--ray", "127.0.0.1:1"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "There is no Ray cluster at 127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr


def test_a_sweep_on_ray_has_the_table_of_one_machine(tmp_path, alone):
    folder = tmp_path / "sweep"
    said = run("--folder", str(folder), "--ray", "local", "--jobs", "2", "--stopping", "none")
    assert_same(folder, alone)
    assert len(set(re.findall(r"trial (\d): gru-dense, step 20 of 20", said))) == 3
    # A sweep that was begun on Ray goes on here, where there is nothing left to do.
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*")}
    run("--folder", str(folder))
    assert_same(folder, alone)
    assert {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*")} == before


def test_trials_that_lag_behind_are_stopped_once(tmp_path):
    folder = tmp_path / "sweep"
    more = ["--folder", str(folder), "--ray", "local", "--jobs", "1"]
    arguments = [sys.executable, "-m", "sparsernn", "sweep", "reber", *SMALL, "--over", "learning_rate=1e-2,1e-3,3,5,9"]
    for _ in range(2):
        done = subprocess.run([*arguments, *more], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        states = [trial["state"] for trial in trials(folder)]
        assert len(states) == 5 and set(states) == {"done", "stopped"}
        outcomes = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/outcome.json")}
        if _ == 0:
            first = outcomes
    assert first == outcomes


def test_a_node_is_lost_midway(tmp_path, alone):
    from ray.cluster_utils import Cluster

    folder = tmp_path / "sweep"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        more = ["--folder", str(folder), "--ray", cluster.address, "--stopping", "none"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        sweep = subprocess.Popen(command(*more), stderr=subprocess.PIPE, text=True, env=environment)
        assert sweep.stderr is not None
        begun: set[str] = set()
        heard = []
        # Both nodes are at work, each in the middle of a trial.
        for line in sweep.stderr:
            heard.append(line)
            begun |= set(re.findall(r"trial (\d): gru-prune, step", line))
            if len(begun) == 2:
                break
        assert len(begun) == 2, "".join(heard)
        cluster.remove_node(second, allow_graceful=False)
        _, said = sweep.communicate(timeout=900)
        assert sweep.returncode == 0, said
    finally:
        cluster.shutdown()
    assert_same(folder, alone)
    ended = re.findall(r"trial (\d) done", "".join(heard) + said)
    assert sorted(ended) == ["0", "1", "2"]
    assert re.search(r"trial \d: its process died; again", said)
